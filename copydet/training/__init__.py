"""Training of descriptors: batched edits on the training device, SSCD's objective, a loop that resumes exactly."""
