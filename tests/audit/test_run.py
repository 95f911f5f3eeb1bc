"""The audit from end to end on real photos: what is replicated is found, and files say the same as the numbers."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from copydet.audit import generations
from copydet.audit.baseline import compare, read_baseline
from copydet.audit.generations import remove_parts
from copydet.audit.run import Audit, AuditSettings, audit
from copydet.audit.summary import NAMES
from copydet.audit.training_set import TrainingSet
from copydet.errors import UsageError
from copydet.index import Index

SETTINGS = AuditSettings(precision=0.9)
REPLICATED = {"again.png", "brighter.png", "cat.png", "turned.png"}
NEAR = {"again.png", "brighter.png", "cat.png"}


def rows_of(done: Audit) -> dict[str, dict[str, object]]:
    return {row["generation_id"]: row for row in done.found.rows.to_pylist()}


def test_what_is_replicated_is_found_and_the_rest_is_not(audited: tuple[Path, Audit]) -> None:
    rows = rows_of(audited[1])
    assert {name for name, row in rows.items() if row["verdict"] in ("copy", "partial_copy")} == REPLICATED
    assert {name for name, row in rows.items() if row["near_pixel"]} == NEAR
    assert all(str(rows[name]["reference_id"]).startswith("coffee") for name in ("again.png", "brighter.png"))
    assert {rows[name]["reference_id"] for name in ("cat.png", "turned.png")} == {"chelsea.png"}


def test_files_hold_what_was_returned(audited: tuple[Path, Audit]) -> None:
    folder, done = audited
    assert pq.read_table(folder / "audit.parquet").equals(done.found.rows)
    assert json.loads((folder / "audit.json").read_text()) == json.loads(json.dumps(done.numbers))
    assert set(done.numbers) <= NAMES
    assert NAMES - set(done.numbers) == {"baseline", "dcr"}


def test_shares_agree_with_the_rows(audited: tuple[Path, Audit]) -> None:
    numbers, rows = audited[1].numbers, rows_of(audited[1])
    assert numbers["share_copy"]["value"] == len(REPLICATED) / len(rows)
    assert numbers["share_near_pixel"]["value"] == len(NEAR) / len(rows)
    similarity = np.array([row["nearest_similarity"] for row in rows.values()], float)
    assert numbers["share_above"]["0.5"]["value"] == np.mean(similarity > 0.5)
    assert numbers["similarity"]["mean"]["value"] == pytest.approx(similarity.mean())
    assert numbers["share_at_precision"]["0.9"]["value"] == numbers["share_copy"]["value"]


def test_chance_leaves_repeats_of_one_file_out(audited: tuple[Path, Audit], index: Index) -> None:
    found = audited[1].found
    assert found.training_images == len(found.chance.similarity) == len(found.chance.second)
    assert found.chance.similarity.max() < 0.999
    assert np.sum(found.chance.second > 0.999) == 3  # coffee.png and its repeats
    assert audited[1].numbers["chance"]["share_copy"]["value"] < 0.2
    assert audited[1].numbers["above_chance"]["share_copy"]["value"] > 0.2


def test_repeated_training_images_are_told_from_others(audited: tuple[Path, Audit]) -> None:
    found, numbers = audited[1].found, audited[1].numbers["duplication"]
    assert sorted(found.matched.counts.tolist()) == [1, 3]
    assert numbers["random"]["share_repeated"]["value"] == 1 / numbers["random"]["images"]
    assert numbers["random"]["images"] == found.training_images - 2
    assert numbers["odds_ratio"]["value"] > 1


def test_generations_that_are_one_picture_are_grouped(audited: tuple[Path, Audit]) -> None:
    rows = rows_of(audited[1])
    assert [row["clique"] for row in rows.values() if str(row["generation_id"]).startswith("new")] == [1, 1, 1]
    assert audited[1].numbers["cliques"] == {
        "cliques": 1,
        "generations": 3,
        "largest": 3,
        "share": audited[1].numbers["cliques"]["share"],
    }


def test_columns_of_the_source_make_groups(audited: tuple[Path, Audit]) -> None:
    groups = {group["value"]: group for group in audited[1].numbers["groups"]["prompt"]}
    shares = {value: group["share_copy"]["value"] for value, group in groups.items()}
    assert shares == {"repeated": 1, "once": 1, "new": 0}
    assert groups["new"]["generations"] == 4


def test_the_same_audit_gives_the_same_bytes_however_it_is_cut(
    audited: tuple[Path, Audit], index: Index, generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "CHUNK", 3)
    audit(generated, index, tmp_path, AuditSettings(precision=0.9, workers=1))
    for name in ("audit.json", "audit.parquet"):
        assert (tmp_path / name).read_bytes() == (audited[0] / name).read_bytes()


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on_with_the_rows_it_has(
    index: Index, generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generations, "CHUNK", 3)
    looked: list[int] = []
    look = generations.Looker.look

    def until_the_second(self: generations.Looker, images: list[object], progress: object) -> object:
        looked.append(len(images))
        if len(looked) == 2:
            raise KeyboardInterrupt
        return look(self, images, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(generations.Looker, "look", until_the_second)
    with pytest.raises(KeyboardInterrupt):
        audit(generated, index, tmp_path, SETTINGS)
    assert not (tmp_path / "audit.json").exists()
    looked.append(0)
    done = audit(generated, index, tmp_path, SETTINGS)
    assert looked == [3, 3, 0, 3, 2]  # the first three were not looked at again
    assert len(done.found.rows) == 8
    # Another precision is another audit: nothing of the old one is taken over.
    looked.clear()
    looked += [0, 0]
    audit(generated, index, tmp_path, AuditSettings(precision=0.95))
    assert looked == [0, 0, 3, 3, 2]
    remove_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.json", "audit.parquet"]


def test_generations_that_are_training_files_are_told(index: Index, training: Path, tmp_path: Path) -> None:
    done = audit([training / "chelsea.png", training / "coffee.png"], index, tmp_path, SETTINGS)
    assert done.numbers["share_identical_file"]["value"] == 1
    assert any("byte for byte" in line for line in done.numbers["warnings"])
    assert all(row["tile_distance"] == 0 for row in done.found.rows.to_pylist())


def test_one_generation_is_an_audit_with_wide_intervals(index: Index, generated: Path, tmp_path: Path) -> None:
    numbers = audit(generated.parent / "rocket.png", index, tmp_path, SETTINGS).numbers
    assert (numbers["read"], numbers["share_copy"]["value"]) == (1, 0)
    assert numbers["share_copy"]["high"] > 0.9
    assert numbers["groups"] == {}
    assert any("few" in line for line in numbers["warnings"])


def test_no_generation_or_none_that_can_be_read_is_an_error(index: Index, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    with pytest.raises(UsageError, match="list no images"):
        audit(nothing, index, tmp_path / "out", SETTINGS)
    (nothing / "text.png").write_text("not a picture")
    with pytest.raises(UsageError, match=r"none of the 1 generations can be read; .*text\.png"):
        audit(nothing, index, tmp_path / "out", SETTINGS)


def test_generations_that_cannot_be_read_are_counted_and_kept(index: Index, generated: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes((generated.parent / "cat.png").read_bytes()[:500])
    done = audit([generated.parent / "cat.png", broken], index, tmp_path / "out", SETTINGS)
    assert (done.numbers["generations"], done.numbers["read"]) == (2, 1)
    assert sum(done.numbers["skipped"].values()) == 1
    assert done.found.rows.to_pylist()[1]["verdict"] is None


def test_sources_whose_columns_do_not_meet_are_audited_with_a_warning(index: Index, few: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(f"path,strength\n{few.parent / 'rocket.png'},0.3\n{few.parent / 'cat.png'},0.6\n")
    done = audit([few, other], index, tmp_path / "out", SETTINGS)
    assert done.found.metadata == ("prompt", "strength")
    assert any("Known of some generations only" in line and "strength" in line for line in done.numbers["warnings"])
    with pytest.raises(UsageError, match="no such column; their columns are prompt"):
        audit(few, index, tmp_path / "again", AuditSettings(groups=("strength",)))


def test_an_index_without_local_features_is_audited_with_a_warning(training: Path, few: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "plain.toml"
    flat = (Path(__file__).parents[2] / "indexes" / "flat.toml").read_text()
    recipe.write_text(
        "\n".join(line for line in flat.splitlines() if "local_features" not in line) + "\nlocal_features = 0\n"
    )
    plain = Index.build(training, tmp_path / "plain.index", descriptor="small", recipe=str(recipe), device="cpu")
    done = audit(few, plain, tmp_path / "out", SETTINGS)
    assert not done.numbers["local_features"]
    assert any("no local features" in line for line in done.numbers["warnings"])
    assert done.numbers["share_copy"]["value"] >= 0.25


def test_where_the_originals_are_gone_there_is_similarity_but_no_pixels(
    training: Path, few: Path, tmp_path: Path
) -> None:
    import shutil

    moved = Path(shutil.copytree(training, tmp_path / "training"))
    gone = Index.build(moved, tmp_path / "gone.index", descriptor="small", device="cpu")
    shutil.rmtree(moved)
    numbers = audit(few, gone, tmp_path / "out", SETTINGS).numbers
    assert numbers["share_near_pixel"] is None
    assert numbers["chance"]["share_copy"] is None
    assert numbers["chance"]["similarity"]["mean"]["value"] > 0
    assert numbers["share_copy"]["value"] > 0
    assert any("out of reach" in line for line in numbers["warnings"])


def test_an_index_of_embeddings_cannot_be_audited(tmp_path: Path, few: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 16)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    external = Index.build(tmp_path / "vectors.npy", tmp_path / "v.index", embeddings=True)
    with pytest.raises(UsageError, match="external-16"):
        audit(few, external, tmp_path / "out", SETTINGS)


def test_a_condition_that_no_training_image_satisfies_is_an_error(index: Index, few: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no training images that satisfy --where"):
        audit(few, index, tmp_path, AuditSettings(where="width > 100000"))


def test_a_baseline_tells_a_change_from_none(
    audited: tuple[Path, Audit], index: Index, generated: Path, tmp_path: Path
) -> None:
    baseline = read_baseline(audited[0])
    same = audit(generated, index, tmp_path / "same", SETTINGS, baseline=baseline).numbers["baseline"]
    assert same["difference"]["value"] == 0
    assert same["difference"]["p_value"] == 1
    assert "no significant change" in same["statement"]
    assert {group["value"] for group in same["groups"]["prompt"]} == {"repeated", "once", "new"}
    fewer = audited[1].found.rows.slice(4, 4)
    import pyarrow as pa

    many = pa.concat_tables([fewer] * 10)
    numbers = audited[1].numbers | {"share_copy": {"value": 0.0, "low": 0.0, "high": 0.1}, "groups": {}}
    changed = compare(many, numbers, read_baseline(audited[0]))
    assert changed["difference"]["value"] == -0.5
    assert changed["difference"]["p_value"] < 0.01
    assert "fell significantly, from 50.00 % to 0.00 %" in changed["statement"]
    assert changed["groups"] == {}


def test_a_baseline_that_measures_differently_is_refused(
    audited: tuple[Path, Audit], index: Index, generated: Path, tmp_path: Path
) -> None:
    baseline = read_baseline(audited[0])
    with pytest.raises(UsageError, match=r"precision 0\.9, this audit with 0\.99"):
        audit(generated, index, tmp_path, AuditSettings(), baseline=baseline)
    with pytest.raises(UsageError, match="holds no audit"):
        read_baseline(tmp_path / "nothing")


def test_distinct_neighbours_count_repeats_once(index: Index) -> None:
    references = index.references()
    training = TrainingSet(references)
    (place,) = training.places({"coffee.png"})
    near = training.distinct(training.vectors([place]), 5)[0]
    assert len(near) == 5
    assert len({similarity for _, similarity in near}) == 5
    assert near[0][1] == pytest.approx(1, abs=2e-3)
    assert training.places({"nowhere.png"}) == []
    assert len(training.sample(4, 0)) == 4
    assert training.sample(10**6, 0) == [(0, row) for row in range(len(training))]


def test_images_that_are_left_out_are_no_training_images(index: Index) -> None:
    references = index.references("image_id <> 'chelsea.png'")
    training = TrainingSet(references)
    assert training.places({"chelsea.png", "coins.png"}) == TrainingSet(index.references()).places({"coins.png"})
    places = {place for line in training.distinct(training.vectors(training.sample(3, 0)), 20) for place, _ in line}
    assert TrainingSet(index.references()).places({"chelsea.png"})[0] not in places
