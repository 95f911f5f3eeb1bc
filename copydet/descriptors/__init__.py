"""Networks, their weights and the runtimes that turn pixels into vectors."""
