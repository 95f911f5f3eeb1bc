"""The bank at rest is int8: small, and close enough to what was saved."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from copydet.descriptors.background import dequantise, load_bank, quantise, read_bank, save_bank
from copydet.descriptors.registry import Descriptor
from copydet.errors import UsageError
from copydet.images.resize import Resize
from copydet.records import Vectors


def unit_vectors(count: int, dimension: int, seed: int = 0) -> Vectors:
    values = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 20), dimension=st.integers(2, 512), seed=st.integers(0, 2**32 - 1))
def test_a_vector_and_its_stored_form_have_a_cosine_above_0_999(count: int, dimension: int, seed: int) -> None:
    vectors = unit_vectors(count, dimension, seed)
    stored = dequantise(*quantise(vectors)).astype(np.float32)
    assert stored.shape == vectors.shape
    assert ((stored * vectors).sum(axis=1) > 0.999).all()


def test_similarities_to_a_stored_bank_are_off_by_less_than_a_hundredth(tmp_path: Path) -> None:
    vectors, queries = unit_vectors(2000, 256), unit_vectors(50, 256, 1)
    save_bank(tmp_path / "background.safetensors", vectors)
    bank = read_bank(tmp_path / "background.safetensors", 256)
    assert bank.vectors.dtype == np.float16
    assert (tmp_path / "background.safetensors").stat().st_size < 1.05 * 2000 * 256
    error = np.abs(queries @ bank.vectors.astype(np.float32).T - queries @ vectors.T)
    assert error.max() < 0.01


def test_saving_twice_gives_the_same_bank_and_hash(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_bank(tmp_path / name, unit_vectors(5, 8))
    one, two = read_bank(tmp_path / "one", 8), read_bank(tmp_path / "two", 8)
    assert one.hash == two.hash
    np.testing.assert_array_equal(one.vectors, two.vectors)


def test_a_descriptor_without_a_bank_has_none() -> None:
    descriptor = Descriptor("x", "0", 8, Resize("square", 8), (0, 0, 0), (1, 1, 1), "mobilenet_v2")
    assert load_bank(descriptor) is None


@pytest.mark.parametrize(
    "tensors",
    [
        {"vectors": np.zeros((3, 8), np.int8)},
        {"vectors": np.zeros((3, 8), np.float32), "scale": np.ones(3, np.float32)},
        {"vectors": np.zeros((3, 9), np.int8), "scale": np.ones(3, np.float32)},
        {"vectors": np.zeros((3, 8), np.int8), "scale": np.ones(2, np.float32)},
    ],
)
def test_what_is_not_a_bank_of_this_dimension_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, tmp_path / "bank")
    with pytest.raises(UsageError, match="bank"):
        read_bank(tmp_path / "bank", 8)


def test_a_damaged_bank_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bank").write_bytes(b"\xff" * 100)
    with pytest.raises(UsageError, match="cannot read the background bank"):
        read_bank(tmp_path / "bank", 8)
