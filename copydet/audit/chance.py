"""What similarity is worth: how alike training images are to each other anyway, the chance level of an audit.

After Somepalli et al. 2023 (arXiv 2212.03860, section 4): a generator that only learnt the distribution makes pictures
that are as near to training images as those are to each other. So each of a sample of training images gets its nearest
other training image: by descriptor, for the distribution of similarities, and a smaller sample by the whole way that
generations take, for the share that is called copies. Copies of the very same file do not count as others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copydet.audit.training_set import SAME, Place, TrainingSet
from copydet.decisions.ignore import Ignored
from copydet.errors import ImageProblem
from copydet.images.originals import Originals
from copydet.matching import MatchOptions, OpenDescriptor, match_images
from copydet.progress import Progress
from copydet.records import Image

SAMPLE = 5000  # training images whose nearest other is looked for by descriptor
MATCHED = 400  # training images that are matched as if they were generations
_BLOCK = 256
_REPEATS = 16
_SPARE = 4  # times as many are drawn as are matched, since repeats are passed over


@dataclass(frozen=True)
class Chance:
    """`similarity` float64 [n]: each sampled image's nearest other. `copies` bool [m]: whether a sampled image was
    called a copy of another; empty where originals are out of reach. `second` float64 [n]: the nearest other with
    repeats of the same file among the others.
    """

    similarity: NDArray[np.float64]
    copies: NDArray[np.bool_]
    second: NDArray[np.float64]


def nearest_others(
    training: TrainingSet, count: int, seed: int, progress: Progress
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`similarity` and `second` of Chance, for `count` sampled training images.

    An image without another (all that is near it is itself) is left out of the first.
    """
    places, found, second = training.sample(count, seed), [], []
    for start in range(0, len(places), _BLOCK):
        block = places[start : start + _BLOCK]
        vectors = training.vectors(block)
        found += [line[0][1] for line in training.distinct(vectors, 1, below=SAME) if line]
        if len(training) > 1:
            second += training.nearest(vectors, 2).similarity[:, 1].tolist()
        progress.advance(len(block))
    return np.array(found, np.float64), np.array(second, np.float64)


def matched_others(
    training: TrainingSet, opened: OpenDescriptor, options: MatchOptions, count: int, seed: int, progress: Progress
) -> NDArray[np.bool_]:
    """Whether each of `count` sampled training images is called a copy of another, bool [at most count].

    Images whose repeats alone would fill the candidates are passed over, and so are those that cannot be read.
    """
    images: list[Image] = []
    ignored: set[tuple[str, str]] = set()
    originals = Originals()
    drawn = training.sample(_SPARE * count, seed + 1)
    places = [drawn[number] for number in np.random.default_rng(seed + 1).permutation(len(drawn)).tolist()]
    for start in range(0, len(places), _BLOCK):
        if len(images) == count:
            break
        for same in _with_repeats(training, places[start : start + _BLOCK]):
            if len(same) <= options.top_k // 2 and len(images) < count:
                own = same[0]
                images.append(Image(own["image_id"], own["uri"], "", partial(_read, originals, own["uri"])))
                ignored |= {(own["image_id"], each["image_id"]) for each in same}
    chosen = replace(options, ignored=Ignored(pairs=frozenset(ignored)))
    results = match_images(images, training.references, opened, chosen, progress)
    return np.array(
        [bool(each.matches) and each.matches[0].verdict != "no_match" for each in results if each.status == "ok"], bool
    )


def _with_repeats(training: TrainingSet, places: Sequence[Place]) -> list[list[dict[str, Any]]]:
    """image_id and uri of each image and then of all that are the same but in name, up to _REPEATS."""
    near = training.nearest(training.vectors(places), _REPEATS)
    lists = []
    for line, place in enumerate(places):
        same = np.flatnonzero(near.similarity[line] >= SAME)
        found = zip(near.shard[line, same].tolist(), near.row[line, same].tolist(), strict=True)
        lists.append(training.facts(list(dict.fromkeys([place, *found]))))
    return lists


def _read(originals: Originals, uri: str) -> bytes:
    data = originals.read(uri)
    if data is None:
        raise ImageProblem("unreadable", "the original cannot be had")
    return data
