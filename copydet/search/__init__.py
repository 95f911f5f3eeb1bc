"""From a query descriptor to the nearest references: retrieval over shards, exact re-scoring, score normalisation."""
