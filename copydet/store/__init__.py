"""Bytes, JSON, hashes, renames and locks: what makes an index survive a crash. Knows neither torch nor FAISS."""
