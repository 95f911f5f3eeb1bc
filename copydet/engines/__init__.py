"""Where shards are built: in this process."""
