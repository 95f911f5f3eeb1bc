"""Stored features of an image serve as those of a query, in all variants."""

import numpy as np
import skimage.data

from copydet.local_features.codes import shipped_codec
from copydet.local_features.describe import describe_local
from copydet.local_features.extract import extract, invert, mirror
from copydet.local_features.frames import VARIANTS
from copydet.local_features.stored import stored_features


def test_the_vectors_of_the_variants_are_nearly_those_of_the_turned_descriptors() -> None:
    codec = shipped_codec()
    found = extract(skimage.data.chelsea(), 110, contrast=0.35)
    features = stored_features(codec.encode(found))
    assert features.vectors.shape[:2] == (4, len(found))
    plain = codec.decode_vectors(codec.encode(found))
    coded = float(np.einsum("nd,nd->n", codec.project(found.descriptors), plain).mean())
    for number, (mirrored, negative) in enumerate(VARIANTS):
        turned = mirror(found.descriptors) if mirrored else found.descriptors
        turned = codec.project(invert(turned) if negative else turned)
        cosine = np.einsum("nd,nd->n", turned, features.vectors[number])
        assert cosine.mean() > coded - 0.08, (mirrored, negative)
        assert np.allclose(np.linalg.norm(features.vectors[number], axis=1), 1, atol=1e-5)


def test_an_image_without_features_has_none() -> None:
    features = stored_features(describe_local(np.full((64, 64, 3), 90, np.uint8), 110))
    assert features.vectors.shape[1] == len(features.frames) == 0
