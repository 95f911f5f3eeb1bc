"""A folder of photos with copies among them, and its index by the shipped descriptor."""

from pathlib import Path

import pytest
from planted import plant

from copydet.index import Index


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory.mktemp("planted") / "photos")


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Index:
    return Index.build(photos, tmp_path_factory.mktemp("indexed") / "photos.index", device="cpu")
