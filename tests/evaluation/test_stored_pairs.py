from pathlib import Path

import numpy as np
import pytest

from copydet.evaluation.calibrate import CalibrationPairs
from copydet.evaluation.population import AskedAbout, Population
from copydet.evaluation.stored_pairs import Shown, gone, label
from copydet.records import Image


def asked(parent: int, *, is_copy: bool = True, others: tuple[int, ...] = ()) -> Shown:
    image = Image(str(parent), "", "test", lambda: b"")
    return Shown(parent, AskedAbout(image, parent, is_copy, "", others))


@pytest.fixture(scope="module")
def made() -> Population:
    """Images of noise, of which 8 and 9 are the same picture."""
    thumbnails = np.random.default_rng(0).uniform(0, 255, (10, 24 * 24 * 3)).astype(np.float32)
    thumbnails[9] = thumbnails[8] + 1
    return Population(Path("nowhere"), 5, (), thumbnails, np.eye(10, dtype=np.float32))


def test_a_pair_has_the_same_label_from_both_sides(made: Population) -> None:
    rng = np.random.default_rng(1)
    labels = set()
    for _ in range(2000):
        one, other = (
            asked(int(parent), is_copy=bool(rng.random() < 0.7), others=tuple(rng.choice(10, 2).tolist()))
            if rng.random() < 0.6
            else Shown(int(parent))
            for parent in rng.integers(0, 10, 2)
        )
        labels.add(label(made, one, other))
        assert label(made, one, other) is label(made, other, one)
    assert labels == {True, False, None}


def test_a_photograph_and_its_edit_are_copies_and_a_second_photograph_is_none(made: Population) -> None:
    assert label(made, Shown(3), asked(3)) is True
    assert label(made, Shown(3), asked(3, is_copy=False)) is False
    assert label(made, Shown(3), Shown(4)) is False
    assert label(made, asked(3), asked(4)) is False


def test_nobody_can_say_of_two_edits_of_one_photograph_or_of_what_was_pasted_together(made: Population) -> None:
    assert label(made, asked(3), asked(3)) is None
    assert label(made, Shown(3), asked(4, others=(3,))) is None
    assert label(made, asked(3, others=(5,)), asked(4, others=(5,))) is None
    assert label(made, Shown(8), asked(9)) is None, "nearly the same picture"


def test_a_folder_that_was_out_of_reach_is_there_again_whatever_happens(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "one.png").write_bytes(b"one")

    def fail() -> None:
        with gone(folder):
            assert not folder.exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (folder / "one.png").read_bytes() == b"one"


@pytest.mark.slow
def test_pairs_of_stored_images_are_looked_at_with_pixels_and_without(calibration_pairs: CalibrationPairs) -> None:
    stored = calibration_pairs.stored
    seen = ~stored.blind
    assert 10 < stored.is_copy[seen].sum() <= 30
    assert stored.is_copy[seen].sum() == stored.is_copy[stored.blind].sum(), "the same pairs"
    assert (stored.group[seen] == stored.group[stored.blind]).all()
    compared = np.array([numbers.compared for numbers in stored.numbers])
    assert compared[seen].mean() > 0.5
    assert not compared[stored.blind].any()
