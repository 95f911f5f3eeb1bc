"""Complexity: exact for pictures whose numbers are known, rising with what there is to see."""

import numpy as np
import pytest

from copydet.audit.complexity import measure_complexity


def test_an_even_picture_has_no_entropy_and_no_variation() -> None:
    flat = measure_complexity(np.full((64, 64, 3), 90, np.uint8))
    assert (flat.entropy, flat.variation) == (0, 0)


def test_two_levels_in_equal_parts_are_one_bit() -> None:
    halves = np.zeros((64, 64, 3), np.uint8)
    halves[:, 32:] = 255
    found = measure_complexity(halves)
    assert found.entropy == pytest.approx(1)
    assert found.variation == pytest.approx(255 / 63 / 2)  # one step in each row, none down


def test_noise_is_more_complex_than_a_ramp_and_a_ramp_than_nothing() -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None] * 4, (64, 1, 3))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    flat, ramped, noised = (measure_complexity(each) for each in (np.zeros_like(ramp), ramp, noise))
    assert flat.entropy < ramped.entropy < noised.entropy
    assert flat.compressed < ramped.compressed < noised.compressed
    assert flat.variation < ramped.variation < noised.variation
