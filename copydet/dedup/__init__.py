"""Duplicates inside a collection and between collections: pairs, clusters, and what to keep of them."""
