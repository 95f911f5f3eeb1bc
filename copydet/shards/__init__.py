"""Recipes, quantisers and the files of one shard: codes, descriptors and what is known of each image."""

import os

# Arrow's own pool keeps what was freed, and the peak would creep up with the number of chunks. Read when pyarrow is
# imported.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
