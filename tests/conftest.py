"""What all tests share."""

from hypothesis import settings

# The same examples on every run: a test that passed here passes there. --hypothesis-profile=search looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, max_examples=500)
settings.load_profile("same")
