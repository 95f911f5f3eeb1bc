"""What whitens gists."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from copydet.errors import UsageError
from copydet.local_features.gist import GIST_BYTES, energies, save_gist, whiten
from copydet.training.gist import principal, train_gist


def test_principal_components_have_variance_1_and_say_nothing_of_each_other() -> None:
    rng = np.random.default_rng(5)
    numbers = rng.standard_normal((4000, 30)) @ rng.standard_normal((30, 30))
    projection = principal(np.cov(numbers.T), 12)
    assert np.allclose(np.cov((numbers @ projection).T), np.eye(12), atol=1e-4)
    kept = np.linalg.norm(projection, axis=0)
    assert (np.diff(kept) > 0).all()  # the less variance, the more it is stretched


def test_gists_trained_on_pictures_are_whitened_for_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    cells = []
    for number in range(530):
        small = rng.integers(0, 256, (9, 11, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number:03}.png"), cv2.resize(small, (110, 90), interpolation=cv2.INTER_CUBIC))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    mean, projection = train_gist([str(tmp_path)])
    for path in sorted(tmp_path.glob("???.png")):
        pixels = np.asarray(cv2.cvtColor(np.asarray(cv2.imread(str(path))), cv2.COLOR_BGR2RGB), np.uint8)
        cells.append(energies(pixels).ravel())
    gists = whiten(np.array(cells), mean, projection).astype(float)
    assert gists.shape[1] == GIST_BYTES
    assert np.abs(gists.mean(axis=0)).max() < 4
    assert np.allclose(gists.std(axis=0), gists.std(), rtol=0.2)
    for name in ("a", "b"):
        save_gist(tmp_path / name, *train_gist([str(tmp_path)]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_too_few_pictures_are_refused_in_a_line(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(UsageError, match="1 images could be decoded; training needs at least 512"):
        train_gist([str(tmp_path)])
