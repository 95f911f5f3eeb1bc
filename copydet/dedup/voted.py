"""The second road to candidates: images that share stored local features, whatever their descriptors say.

Crops, collages and heavy edits are often unlike their original as a whole. As in `copydet match`, features vote, and
votes must agree on a place (search/votes.py); both sides' features are the stored ones.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from copydet.dedup.collection import Collection, Numbers
from copydet.local_features.codes import shipped_codec
from copydet.local_features.describe import QueryFeatures
from copydet.local_features.gist import NO_GIST
from copydet.local_features.stored import stored_features
from copydet.process import usable_cpus
from copydet.records import ImageFeatures
from copydet.search.votes import LocalLists
from copydet.shards.local import join_local

# Chosen on training images with planted copies (scripts/benchmark_dedup.py): of the copies that votes find with all
# features, four lists and more candidates, all but a few, in half the time.
VOTED = 3  # candidates of an image
_STRONGEST = 64  # features that vote for an image
_NPROBE = 1
_VARIANTS = 2  # as it is, mirrored
_TOGETHER = 64  # images that vote in one go


@dataclass(frozen=True)
class Voting:
    """The contents `numbers` of a collection and their local features, in the order of their ids: answers don't depend
    on how images lie in shards.
    """

    collection: Collection
    numbers: Numbers

    def candidates(self, block: Numbers) -> tuple[Numbers, Numbers]:
        """Places in `block` and the numbers of other contents that share features with the image there."""
        parts = [block[start : start + _TOGETHER] for start in range(0, len(block), _TOGETHER)]
        ask = partial(self._of_images, self._lists)
        with ThreadPoolExecutor(usable_cpus()) as pool:
            found = [each for part in pool.map(ask, parts) for each in part]
        asker = np.repeat(np.arange(len(block)), [len(each) for each in found])
        return asker, np.concatenate([np.empty(0, np.int64), *found])

    @cached_property
    def _lists(self) -> LocalLists:
        stored = [ImageFeatures(records, NO_GIST) for records in self.collection.records(self.numbers.tolist())]
        return LocalLists(shipped_codec(), [join_local(stored)], nprobe=_NPROBE)

    def _of_images(self, lists: LocalLists, numbers: Numbers) -> list[Numbers]:
        queries = []
        for records in self.collection.records(numbers.tolist()):
            strongest = stored_features(records[:_STRONGEST])
            queries.append(QueryFeatures(strongest.frames, strongest.vectors[:_VARIANTS]))
        voted = lists.vote_each(queries, VOTED + 1, voters=False)
        others = (self.numbers[each.image] for each in voted)
        return [each[each != number][:VOTED] for each, number in zip(others, numbers.tolist(), strict=True)]
