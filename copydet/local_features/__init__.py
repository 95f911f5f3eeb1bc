"""Local features of an image: found, described, and packed into the few bytes that a shard stores."""
