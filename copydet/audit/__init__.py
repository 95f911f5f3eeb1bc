"""How much of what a generator makes replicates its training images, which ones, and whether that is above chance."""
