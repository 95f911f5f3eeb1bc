import math
from dataclasses import asdict
from pathlib import Path

import pytest

from copydet.errors import UsageError
from copydet.shards.quantiser import check_factory
from copydet.shards.recipe import (
    TRAIN_PER_LIST,
    Recipe,
    auto_local_features,
    choose_recipe,
    load_recipe,
    parse_recipe,
    recipe_folder,
    recipe_names,
)

GIB = 2**30


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("dimension", [8, 50, 128, 256, 512])
def test_each_shipped_recipe_makes_an_index_for_any_dimension(name: str, dimension: int) -> None:
    check_factory(load_recipe(name), dimension)


def test_the_shipped_recipes_explain_each_field_by_a_comment() -> None:
    for name in recipe_names():
        lines = (recipe_folder() / f"{name}.toml").read_text().splitlines()
        values = [place for place, line in enumerate(lines) if "=" in line and not line.startswith("#")]
        assert len(values) == len(asdict(load_recipe(name)))
        uncommented = {lines[place] for place in values if not lines[place - 1].startswith("#")}
        assert {line.split(" = ")[0] for line in uncommented} <= {"description", "train_images_min"}


def test_the_recipes_that_auto_chooses_from_store_equally_many_local_features() -> None:
    assert {load_recipe(name).local_features for name in recipe_names()} == {auto_local_features()}


def test_the_readme_of_the_recipes_explains_each_field_and_each_recipe() -> None:
    text = (Path(__file__).parents[2] / "indexes" / "README.md").read_text()
    assert all(f"`{field}`" in text for field in asdict(load_recipe("flat")))
    assert all(f"`{name}`" in text for name in recipe_names())


def test_lists_follow_the_images_and_what_training_can_fill() -> None:
    recipe = load_recipe("ivf-pq")
    assert recipe.codes(256, 1_000_000, 200_000) == "OPQ48_240,IVF4000,PQ48x8"
    assert recipe.codes(256, 1_000_000, TRAIN_PER_LIST * 100) == "OPQ48_240,IVF100,PQ48x8"
    assert recipe.codes(32, 100, 10) == "OPQ32_32,IVF1,PQ32x8"


@pytest.mark.parametrize("images", [0, 9_999, 200_000, 1_000_000, 10_000_000])
def test_the_sample_fills_the_lists_of_a_collection_of_any_size(images: int) -> None:
    recipe = load_recipe("ivf-pq")
    sampled = recipe.sample_images(images)
    assert sampled <= images
    lists = max(1, min(int(4 * math.sqrt(images)), images // TRAIN_PER_LIST))
    assert recipe.codes(256, images, sampled) == f"OPQ48_240,IVF{lists},PQ48x8"


def test_a_larger_sample_is_taken_only_for_more_lists() -> None:
    recipe = load_recipe("ivf-pq")
    assert recipe.sample_images(500_000) == recipe.sample_images(1_000_000) == 200_000
    assert recipe.sample_images(10_000_000) == TRAIN_PER_LIST * 12_649
    assert recipe.sample_images(1_000_000_000) == recipe.train_images


@pytest.mark.parametrize(
    ("images", "memory", "name"),
    [
        (0, 4 * GIB, "flat"),
        (50, 4 * GIB, "flat"),
        (100_000, 4 * GIB, "flat"),
        (100_000, GIB // 10, "sq8"),
        (100_001, 4 * GIB, "sq8"),
        (1_000_001, 4 * GIB, "ivf-pq"),
        (1_000_000, GIB // 8, "ivf-pq"),
        (1_000_000, GIB // 10, "ivf-hnsw-pq"),
        (20_000_000, 4 * GIB, "ivf-pq"),
        (20_000_000, GIB, "ivf-hnsw-pq"),
        (10**8, 16 * GIB, "ivf-hnsw-pq"),
        (10**9, 4 * GIB, "ivf-hnsw-rabitq"),
    ],
)
def test_auto_goes_by_count_and_memory_and_says_which_and_why(images: int, memory: int, name: str) -> None:
    recipe, why = choose_recipe(images, 256, memory)
    assert recipe.name == name
    assert f"recipe {name} for {images:,} images" in why


def test_a_recipe_of_the_users_own_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((recipe_folder() / "sq8.toml").read_text().replace('"sq8"', '"mine"').replace("400_000", "10"))
    recipe = load_recipe(str(path))
    assert (recipe.name, recipe.shard_images) == ("mine", 10)
    assert parse_recipe(asdict(recipe)) == recipe


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("shard_images = 400_000", "shard_images = 0"), "shard_images must be at least 1"),
        (("shard_images = 400_000", "shard_images = 'many'"), "shard_images must be a whole number"),
        (("candidates = 50", ""), "candidates is missing"),
        (("candidates = 50", "candidates = 50\ncolour = 1"), "unknown field 'colour'"),
        (('"SQ8"', '"SQ{bits}"'), "unknown placeholder"),
        (("train_images = 50_000", "train_images = 5"), "train_images_min"),
        (('name = "sq8"', "name = "), "mine.toml"),
    ],
)
def test_a_wrong_recipe_is_one_line_that_names_file_and_field(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text((recipe_folder() / "sq8.toml").read_text().replace(*change))
    with pytest.raises(UsageError, match=words) as caught:
        load_recipe(str(path))
    assert "mine.toml" in str(caught.value)


def test_an_unknown_recipe_lists_what_there_is() -> None:
    with pytest.raises(UsageError, match="flat, ivf-hnsw-pq, ivf-hnsw-rabitq, ivf-pq, ivf-pq-quarters, sq8"):
        load_recipe("fast")


@pytest.mark.parametrize(
    ("factory", "train", "words"), [("Nonsense7", 0, "does not make"), ("SQ8", 0, "needs training")]
)
def test_a_factory_string_is_tried_before_anything_is_described(factory: str, train: int, words: str) -> None:
    recipe = Recipe("mine", "x", factory, 0, train, train, 10, 0, 0, 0, 0)
    with pytest.raises(UsageError, match=words):
        check_factory(recipe, 16)
