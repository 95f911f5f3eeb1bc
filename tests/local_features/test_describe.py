"""Local features as a shard stores them."""

import numpy as np
import pytest

from copydet.local_features.describe import RECORD_BYTES, describe_local


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 200, 3), (64, 64, 3), (224, 149, 3)])
@pytest.mark.parametrize("content", ["flat", "noise"])
def test_any_picture_gives_at_most_as_many_features_as_asked_for(shape: tuple[int, int, int], content: str) -> None:
    pixels = np.full(shape, 90, np.uint8)
    if content == "noise":
        pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    features = describe_local(pixels, 50)
    assert features.dtype == np.uint8
    assert features.shape[1] == RECORD_BYTES
    assert len(features) <= 50
    assert np.array_equal(features, describe_local(pixels, 50))
