"""Where images come from and how they become pixels: sources, decoding with limits, the parallel loader, edits."""
