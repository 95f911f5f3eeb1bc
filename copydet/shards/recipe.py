"""Recipes: TOML files in indexes/ that say which FAISS index a shard's codes are, and how they are trained and
searched.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from copydet.errors import UsageError
from copydet.images.parts import REFERENCE_VIEWS

TRAIN_PER_LIST = 39  # FAISS's own lower bound of training points for a centroid
_TRAIN_WELL = 200_000  # taken where lists need fewer: what indexes of a million images were measured with
_ID_BYTES = 8  # an inverted list keeps a 64-bit number beside each code


@dataclass(frozen=True)
class Recipe:
    """A recipe; every field is explained in the TOML files and in indexes/README.md. Counts are images."""

    name: str
    description: str
    factory: str
    code_bytes: int
    train_images: int
    train_images_min: int
    shard_images: int
    nprobe: int
    candidates: int
    auto_images: int
    local_features: int
    reference_views: str = "whole"

    def codes(self, dimension: int, images: int, trained_on: int) -> str:
        """The FAISS factory string for the shards of a collection of `images` images, trained on `trained_on`.

        Lists follow the collection, not its shards: a query visits its lists in every shard, so that lists of a shard's
        size would make it visit more codes with each shard.
        """
        code_bytes = min(self.code_bytes, dimension)
        lists = max(1, min(_lists(images), trained_on // TRAIN_PER_LIST))
        rotated = dimension - dimension % code_bytes if code_bytes else dimension
        return self.factory.format(dimension=dimension, lists=lists, code_bytes=code_bytes, rotated=rotated)

    def sample_images(self, images: int) -> int:
        """How many of a collection's images training takes: enough to fill its lists."""
        return min(images, self.train_images, max(_TRAIN_WELL, TRAIN_PER_LIST * _lists(images)))

    def memory_bytes(self, dimension: int) -> int:
        """Bytes of memory that the codes of one image, and of its parts, take when they are searched."""
        return (1 + len(REFERENCE_VIEWS[self.reference_views])) * self._code_bytes(dimension)

    def _code_bytes(self, dimension: int) -> int:
        if self.code_bytes:
            return min(self.code_bytes, dimension) + _ID_BYTES
        if "RaBitQ" in self.factory:  # a bit a number and two floats (Gao and Long, SIGMOD 2024)
            return -(-dimension // 8) + 8 + _ID_BYTES
        return dimension if "SQ8" in self.factory else 4 * dimension


def _lists(images: int) -> int:
    """Inverted lists for a collection of so many images, by FAISS's guidelines."""
    return int(4 * math.sqrt(images))


def recipe_folder() -> Path:
    """Where the shipped recipes lie: copydet/recipes in an installed package, indexes/ in a source checkout."""
    package = Path(__file__).parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "indexes"


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in recipe_folder().glob("*.toml"))


def load_recipe(name_or_file: str) -> Recipe:
    """A shipped recipe by name, or a TOML file's. Raises UsageError that lists the names or the field at fault."""
    path = Path(name_or_file)
    if name_or_file in recipe_names():
        path = recipe_folder() / f"{name_or_file}.toml"
    elif not path.is_file():
        raise UsageError(f"no recipe {name_or_file!r}: use auto, {', '.join(recipe_names())} or a TOML file")
    try:
        return parse_recipe(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check types and ranges of a recipe's fields. Raises ValueError naming the field."""
    known = {field.name: field.type for field in fields(Recipe)}
    for name in values:
        if name not in known:
            raise ValueError(f"unknown field {name!r}; the fields are {', '.join(known)}")
    values = {**{field.name: field.default for field in fields(Recipe) if field.default is not MISSING}, **values}
    for name, kind in known.items():
        if name not in values:
            raise ValueError(f"{name} is missing")
        value = values[name]
        if kind is str and not (isinstance(value, str) and value):
            raise ValueError(f"{name} must be text")
        if kind is int and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 1 << 40):
            raise ValueError(f"{name} must be a whole number from 0 on")
    recipe = Recipe(**values)
    if recipe.reference_views not in REFERENCE_VIEWS:
        raise ValueError(f"reference_views must be one of {', '.join(REFERENCE_VIEWS)}")
    if recipe.shard_images < 1:
        raise ValueError("shard_images must be at least 1")
    if recipe.train_images < recipe.train_images_min:
        raise ValueError("train_images must not be below train_images_min")
    try:
        recipe.codes(256, 1000, 1000)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"factory names an unknown placeholder: {error}") from None
    return recipe


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """What a snapshot stores: the whole recipe."""
    return asdict(recipe)


def auto_local_features() -> int:
    """`local_features` of the recipes that `auto` chooses from. They share it, so that describing can begin before the
    choice.
    """
    return load_recipe(recipe_names()[0]).local_features


def choose_recipe(images: int, dimension: int, max_memory: int) -> tuple[Recipe, str]:
    """The recipe that `auto` takes for `images` images of `dimension` floats when searching may hold `max_memory`
    bytes.

    Returns it with a line that says which and why. The order is from exact to compressed; the first whose image count
    fits, and whose codes fit half of the memory, is taken; where none does, that of the smallest codes. Recipes with
    parts of images are taken by name only: when this is asked, the images are described.
    """
    shipped = [recipe for recipe in map(load_recipe, recipe_names()) if recipe.reference_views == "whole"]
    recipes = sorted(shipped, key=lambda recipe: recipe.auto_images or math.inf)
    meant = [recipe for recipe in recipes if not recipe.auto_images or images <= recipe.auto_images]
    fitting = [recipe for recipe in meant if images * recipe.memory_bytes(dimension) <= max_memory // 2]
    recipe = fitting[0] if fitting else min(meant, key=lambda recipe: recipe.memory_bytes(dimension))
    codes = images * recipe.memory_bytes(dimension)
    return (
        recipe,
        f"recipe {recipe.name} for {images:,} images: {recipe.description}; codes take {codes / 2**20:,.0f} MiB",
    )
