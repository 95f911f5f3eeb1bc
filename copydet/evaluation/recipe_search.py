"""Searching descriptors through a recipe's codes, in memory, by the same parts that build and search an index."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from copydet.records import StoredVectors, Vectors
from copydet.search.retrieve import retrieve
from copydet.shards.quantiser import SEED, check_factory, make_codes, train_quantiser
from copydet.shards.recipe import Recipe


@dataclass(frozen=True)
class _Shard:
    codes: Any
    descriptors: StoredVectors


def search_with_recipe(
    recipe: Recipe, queries: Vectors, references: Vectors, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best references as an index of this recipe proposes them -> rows int64 [n, k] (-1 = none), similarities.

    As in an index, references too few for the recipe's training keep exact codes, and a collection small enough is
    scanned without codes: then this equals exact search. Raises UsageError for a factory string that FAISS refuses.
    """
    check_factory(recipe, references.shape[1])
    stored = references.astype(np.float16)
    starts = range(0, max(len(stored), 1), recipe.shard_images)
    trained = _train(recipe, stored)
    parts = (stored[start : start + recipe.shard_images] for start in starts)
    shards = [_Shard(make_codes(trained, part), part) for part in parts]
    found = retrieve(shards, queries, k, nprobe=recipe.nprobe or None, candidates=recipe.candidates or k)
    rows = np.where(found.row < 0, -1, found.row + found.shard.astype(np.int64) * recipe.shard_images)
    return rows, found.similarity


def _train(recipe: Recipe, stored: StoredVectors) -> NDArray[np.uint8] | None:
    sampled = recipe.sample_images(len(stored))
    if recipe.train_images and sampled < recipe.train_images_min:
        return None
    factory = recipe.codes(stored.shape[1], len(stored), sampled)
    if factory == "Flat":
        return None
    chosen = np.sort(np.random.default_rng(SEED).choice(len(stored), sampled, replace=False))
    return train_quantiser(factory, stored[chosen].astype(np.float32))
