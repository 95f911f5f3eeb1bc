import tomllib
from pathlib import Path

import pytest

import copydet


def test_the_names_of_the_api_are_there_on_first_use() -> None:
    from copydet.index import Index, compare, describe

    assert (copydet.Index, copydet.compare, copydet.describe) == (Index, compare, describe)
    assert set(copydet.__all__) <= set(dir(copydet))


def test_the_version_is_that_of_the_project() -> None:
    project = Path(copydet.__file__).parents[1] / "pyproject.toml"
    if not project.is_file():
        pytest.skip("runs from an installed package")
    assert tomllib.loads(project.read_text())["project"]["version"] == copydet.__version__


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Indexx'"):
        copydet.Indexx  # noqa: B018
