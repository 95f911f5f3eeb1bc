"""Recipes, quantisers and the files of one shard: codes, descriptors and what is known of each image."""
