"""Which image of a cluster is kept: rules by name, or any SQL ORDER BY list over the images' columns."""

import numpy as np

from copydet.dedup.collection import Collection, Numbers, sorted_by

RULES = {
    "largest": "width::BIGINT * height DESC, bytes DESC",
    "oldest": "indexed_at",
    "first": "",  # as the sources list them
}


def preferences(collection: Collection, rule: str) -> Numbers:
    """int64 [images]: of two images the one with the lower number is kept. Those of `against` come before all others.

    `rule` is a name in RULES or an ORDER BY list. Raises UsageError for a list that DuckDB cannot read.
    """
    count = len(collection)
    own_shards = int(np.searchsorted(collection.starts, collection.own))
    preference = np.arange(count) - collection.own * (np.arange(count) >= collection.own)
    order_by = RULES.get(rule, rule)
    if order_by:
        shards, starts = collection.shards[:own_shards], collection.starts[: own_shards + 1]
        order = sorted_by(shards, starts, collection.living[: collection.own], order_by)
        preference[order] = np.arange(len(order))
    preference[: collection.own] += count - collection.own
    return preference
