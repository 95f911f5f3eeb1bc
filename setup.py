"""Adds indexes/ to the package as copydet/recipes: pyproject.toml can find packages or map folders, but not both."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["copydet*"]), "copydet.recipes"],
    package_dir={"copydet.recipes": "indexes"},
)
