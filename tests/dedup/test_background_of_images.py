"""The background of each image is that of score normalisation, found once, without pictures that the bank shares."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted import groups, index_vectors

from copydet.dedup import background
from copydet.dedup.background import find_background
from copydet.dedup.collection import Collection, open_collection
from copydet.dedup.exact import find_contents
from copydet.descriptors.background import Bank
from copydet.progress import Silent
from copydet.search.score_norm import background_similarity


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    """250 images and 52 of another collection, with a bank of 40 vectors, of which the last is the first image."""
    vectors = groups([5] * 60, spread=0.1)
    own = index_vectors(tmp_path / "own", vectors[:250], [f"{number:03}" for number in range(250)])
    other = index_vectors(tmp_path / "other", vectors[248:], [f"{number:03}" for number in range(52)])
    present = open_collection([own], [other])
    entries = np.random.default_rng(3).standard_normal((40, vectors.shape[1]))
    entries /= np.linalg.norm(entries, axis=1, keepdims=True)
    entries[-1] = vectors[0]
    return replace(present, opened=replace(present.opened, bank=Bank(entries.astype(np.float16), "")))


def test_backgrounds_are_those_of_a_bank_without_what_the_collection_holds(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "BLOCK", 50)
    images = np.flatnonzero(np.random.default_rng(1).random(len(collection)) < 0.7)
    found = find_background(collection, find_contents(collection, tmp_path), images, tmp_path, Silent())
    bank = collection.opened.bank
    assert bank is not None
    vectors = collection.vectors(images).astype(np.float32)
    assert np.array_equal(found[images], background_similarity(vectors, Bank(bank.vectors[:-1], "")))
    assert np.isnan(np.delete(found, images)).all()


def test_a_finished_block_is_not_computed_again(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "BLOCK", 50)
    images, contents = np.arange(120), find_contents(collection, tmp_path)
    whole = find_background(collection, contents, images, tmp_path, Silent())
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("background-*")}
    assert len(stamps) == 3
    (tmp_path / "background-000001.npy").unlink()
    again = find_background(collection, contents, images, tmp_path, Silent())
    assert np.array_equal(whole, again, equal_nan=True)
    changed = {path.stem for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert changed == {"background-000001"}
