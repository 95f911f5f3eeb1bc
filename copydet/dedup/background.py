"""What images have in common with unrelated ones, for the normalised similarity of pairs: once for each image."""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from copydet.dedup.collection import Collection, Numbers
from copydet.dedup.exact import Contents
from copydet.descriptors.background import Bank
from copydet.engines.engine import HERE, Engine
from copydet.process import UNDIVIDED_PRODUCTS
from copydet.progress import Progress
from copydet.search.score_norm import background_similarity
from copydet.store import atomic

BLOCK = 2048  # images whose background is one checkpoint
_TILE = 8192
_BANK_TILE = 1024
_IN_BANK = 0.97  # the bank is stored in 8 bits: the same image comes out below 1


def find_background(
    collection: Collection, contents: Contents, images: Numbers, work: Path, progress: Progress, engine: Engine = HERE
) -> NDArray[np.float32]:
    """Background similarity of `images` (see search.score_norm), float32 [all images], NaN for the others. Finished
    blocks stay in `work` and are not computed again.
    """
    with UNDIVIDED_PRODUCTS:
        bank = _bank_outside(collection, contents.firsts, work, engine)
        blocks = [images[start : start + BLOCK] for start in range(0, len(images), BLOCK)]
        files = [work / f"background-{number:06d}.npy" for number in range(len(blocks))]
        waiting = [(block, path) for block, path in zip(blocks, files, strict=True) if not path.exists()]
        progress.advance(len(images) - sum(len(block) for block, _ in waiting))
        for (block, _), _ in zip(waiting, engine.each(partial(_write, collection, bank), waiting), strict=True):
            progress.advance(len(block))
    background = np.full(len(collection), np.nan, np.float32)
    for block, path in zip(blocks, files, strict=True):
        background[block] = np.load(path, allow_pickle=False)
    return background


def _write(collection: Collection, bank: Bank | None, place: tuple[Numbers, Path]) -> None:
    block, path = place
    _save(background_similarity(collection.vectors(block).astype(np.float32), bank), path)


def _bank_outside(collection: Collection, firsts: Numbers, work: Path, engine: Engine) -> Bank | None:
    """The background bank without pictures that the collection holds: public data sets share many, and an image that
    is its own background would be like nothing. Calibration does the same.
    """
    bank = collection.opened.bank
    if bank is None or not len(bank.vectors):
        return bank
    path = work / "bank.npy"
    if not path.exists():
        entries, outside = bank.vectors.astype(np.float32), np.ones(len(bank.vectors), bool)
        parts = [firsts[start : start + _TILE] for start in range(0, len(firsts), _TILE)]
        for unlike in engine.each(partial(_unlike, collection, entries), parts):
            outside &= unlike
        _save(outside, path)
    return Bank(bank.vectors[np.load(path, allow_pickle=False)], bank.hash)


def _unlike(collection: Collection, entries: NDArray[np.float32], images: Numbers) -> NDArray[np.bool_]:
    """Which bank entries none of the images is, bool [entries]."""
    outside = np.ones(len(entries), bool)
    for start in range(0, len(images), _BANK_TILE):
        tile = collection.vectors(images[start : start + _BANK_TILE]).astype(np.float32)
        outside &= (entries @ tile.T).max(axis=1) < _IN_BANK
    return outside


def _save(values: NDArray[np.float32] | NDArray[np.bool_], path: Path) -> None:
    with atomic.new_file(path) as partial_path, partial_path.open("wb") as file:
        np.save(file, values, allow_pickle=False)
