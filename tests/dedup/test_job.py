"""Whole jobs on real photos: what they write, that they resume, and what they say to bad input."""

import csv
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted import drawn, groups, index_vectors, photo

from copydet.decisions.ignore import Ignored, read_ignored
from copydet.dedup import near, pairs
from copydet.dedup.job import deduplicate
from copydet.descriptors.registry import SHIPPED
from copydet.errors import IndexLocked, UsageError
from copydet.index import Index
from copydet.store.locks import write_lock

CHILD = Path(__file__).with_name("job_child.py")
FILES = ("pairs.parquet", "clusters.parquet", "keep.txt", "drop.txt", "summary.json")
CAT = {f"chelsea{end}" for end in (".png", "-again.png", "-pixels.bmp", "-jpeg.jpg", "-small.jpg", "-mirrored.jpg")}


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def near_scores(output: Path) -> dict[tuple[str, str], float]:
    found = rows(output / "pairs.parquet")
    return {(row["query_id"], row["reference_id"]): row["score"] for row in found if not row["exact"]}


def contents(output: Path) -> dict[str, bytes]:
    return {name: (output / name).read_bytes() for name in FILES}


def run(source: Path, output: Path, kill_after: float | None = None) -> float | None:
    """Run a job in a child; kill it so many seconds after its imports. Seconds that it took, None if killed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, str(CHILD), str(source), str(output)]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    assert child.stdout.readline() == "started\n"
    start = time.monotonic()
    try:
        _, problem = child.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        return None
    assert child.returncode == 0, problem
    return time.monotonic() - start


def test_copies_of_one_photo_are_one_cluster_and_the_largest_is_kept(tmp_path: Path, indexed: Index) -> None:
    output = tmp_path / "out"
    done = deduplicate(indexed.path, output, precision=0.9)
    found = rows(output / "clusters.parquet")
    assert {row["image_id"] for row in found} == CAT
    (kept,) = (row for row in found if row["keep"])
    assert kept["representative"] == kept["image_id"]
    assert kept["score"] == 1
    assert set(lines(output / "drop.txt")) == CAT - {kept["image_id"]}
    assert lines(output / "keep.txt") == sorted(
        {"astronaut.png", "brick.png", "camera.png", "coffee.png", "rocket.jpg", kept["image_id"]}
    )
    summary = json.loads((output / "summary.json").read_text())
    assert summary == done.summary
    assert summary["images"] == {
        **{"listed": 12, "described": 11, "skipped": {"unreadable": 1}, "against": 0, "in_clusters": 6},
        **{"kept": 6, "dropped": 5, "dropped_exact": 2, "dropped_near": 3, "dropped_for_against": 0},
    }
    assert summary["clusters"] == {"count": 1, "largest": 6, "sizes": {"6": 1}}
    assert summary["pairs"]["exact"] == 2


def test_pairs_are_disc_rows_by_id_each_once_exact_ones_first(tmp_path: Path, indexed: Index) -> None:
    deduplicate(indexed.path, tmp_path / "out", precision=0.9)
    table = pq.read_table(tmp_path / "out" / "pairs.parquet")
    assert table.column_names[:3] == ["query_id", "reference_id", "score"]
    found = table.to_pylist()
    ids = [(row["query_id"], row["reference_id"]) for row in found]
    assert len({frozenset(pair) for pair in ids}) == len(ids)
    assert all(query < reference for query, reference in ids)
    assert [row["exact"] for row in found if row["exact"]] == ["pixels", "bytes"]
    near_ones = found[2:]
    assert ids[2:] == sorted(ids[2:])
    assert all(row["verdict"] in ("copy", "partial_copy") and row["inliers"] is not None for row in near_ones)
    mirrored = next(row for row in near_ones if "chelsea-mirrored.jpg" in (row["query_id"], row["reference_id"]))
    assert np.array(json.loads(mirrored["transform"])).reshape(3, 3)[0, 0] < 0


def test_sources_are_indexed_below_the_output_and_the_result_is_that_of_an_index(
    tmp_path: Path, photos: Path, indexed: Index
) -> None:
    deduplicate(photos, tmp_path / "from-folder", precision=0.9)
    deduplicate(indexed.path, tmp_path / "from-index", precision=0.9)
    assert contents(tmp_path / "from-folder") == contents(tmp_path / "from-index")
    before = (tmp_path / "from-folder" / "index" / "CURRENT").stat().st_mtime_ns
    deduplicate(photos, tmp_path / "from-folder", precision=0.5)
    assert (tmp_path / "from-folder" / "index" / "CURRENT").stat().st_mtime_ns == before


def test_the_order_of_listing_and_the_size_of_blocks_change_nothing(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = sorted(path.name for path in photos.iterdir())
    for number, order in enumerate((names, names[::-1])):
        (photos.parent / f"order{number}.txt").write_text("".join(f"photos/{name}\n" for name in order))
    deduplicate(photos.parent / "order0.txt", tmp_path / "one", precision=0.9)
    monkeypatch.setattr(near, "BLOCK", 3)
    monkeypatch.setattr(pairs, "BLOCK", 4)
    deduplicate(photos.parent / "order1.txt", tmp_path / "other", precision=0.9, workers=1)
    for name in ("pairs.parquet", "clusters.parquet"):
        assert rows(tmp_path / "one" / name) == rows(tmp_path / "other" / name)
    for name in ("keep.txt", "drop.txt", "summary.json"):
        assert lines(tmp_path / "one" / name) == lines(tmp_path / "other" / name)


def test_another_precision_or_rule_judges_nothing_again(tmp_path: Path, indexed: Index) -> None:
    deduplicate(indexed.path, tmp_path / "out", precision=0.9)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "work").iterdir()}
    deduplicate(indexed.path, tmp_path / "out", precision=0.5, keep="first")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "work").iterdir()} == stamps
    assert "chelsea-again.png" in lines(tmp_path / "out" / "keep.txt")
    deduplicate(indexed.path, tmp_path / "out", precision=0.5, keep="first", verify=False)
    assert all(row["inliers"] is None for row in rows(tmp_path / "out" / "pairs.parquet"))


def test_a_descriptor_that_was_calibrated_anew_judges_anew(tmp_path: Path, photos: Path) -> None:
    folder = shutil.copytree(SHIPPED / "small", tmp_path / "mine")
    index = Index.build(photos, tmp_path / "photos.index", descriptor=str(folder), device="cpu")
    deduplicate(index.path, tmp_path / "out")
    before = near_scores(tmp_path / "out")
    fitted = json.loads((folder / "calibration.json").read_text())
    for model in ("sighted", "blind"):
        fitted["stored"][model]["intercept"] += 1
    (folder / "calibration.json").write_text(json.dumps(fitted))
    deduplicate(index.path, tmp_path / "out")
    after = near_scores(tmp_path / "out")
    assert before
    assert all(after[pair] > score for pair, score in before.items())


def test_an_image_of_the_other_collection_is_never_dropped_and_its_copies_are(tmp_path: Path, indexed: Index) -> None:
    (tmp_path / "test").mkdir()
    photo("coffee.png").resize((150, 100)).save(tmp_path / "test" / "a.jpg", quality=80)
    photo("coffee.png").resize((180, 120)).save(tmp_path / "test" / "b.jpg", quality=80)
    output = tmp_path / "out"
    done = deduplicate(indexed.path, output, against=[tmp_path / "test"], precision=0.9)
    assert {"coffee.png"} < set(lines(output / "drop.txt")) < {"coffee.png", *CAT}
    assert not {"a.jpg", "b.jpg"} & {*lines(output / "keep.txt"), *lines(output / "drop.txt")}
    found = [row for row in rows(output / "pairs.parquet") if row["against"]]
    assert {(row["query_id"], row["reference_id"]) for row in found} == {
        ("coffee.png", "a.jpg"),
        ("coffee.png", "b.jpg"),
    }
    assert done.summary["images"]["dropped_for_against"] == 1
    assert done.summary["images"]["against"] == 2


def test_what_is_ignored_is_no_pair_and_an_ignored_image_is_kept(tmp_path: Path, indexed: Index) -> None:
    listed = tmp_path / "ignored.csv"
    with listed.open("w", newline="") as file:
        csv.writer(file).writerows([["chelsea-small.jpg", "chelsea-jpeg.jpg"], ["chelsea-mirrored.jpg"]])
    output = tmp_path / "out"
    deduplicate(indexed.path, output, precision=0.9, ignored=read_ignored(listed))
    found = [{row["query_id"], row["reference_id"]} for row in rows(output / "pairs.parquet")]
    assert {"chelsea-small.jpg", "chelsea-jpeg.jpg"} not in found
    assert not any("chelsea-mirrored.jpg" in pair for pair in found)
    assert "chelsea-mirrored.jpg" in lines(output / "keep.txt")


def test_keep_takes_sql_over_the_columns_of_the_source(tmp_path: Path) -> None:
    images = [photo("coffee.png").resize((240 - 20 * number, 160)) for number in range(3)]
    files = []
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
        files.append((tmp_path / f"{number}.png").read_bytes())
    uids = [f"{number:032x}" for number in (2**70 + 5, 7, 2**64)]
    table = pa.table({"key": ["a", "b", "c"], "jpg": files, "aesthetic": [1.0, 9.0, 5.0], "uid": uids})
    pq.write_table(table, tmp_path / "photos.parquet")
    output = tmp_path / "out"
    deduplicate(tmp_path / "photos.parquet", output, precision=0.5, keep="aesthetic DESC")
    assert lines(output / "keep.txt") == ["b"]
    assert np.load(output / "keep.uids.npy").tolist() == [(0, 7)]
    assert np.load(output / "keep.uids.npy").dtype == np.dtype("u8,u8")
    with pytest.raises(UsageError, match=r"cannot order by 'beauty': .*the columns are .*aesthetic"):
        deduplicate(tmp_path / "photos.parquet", output, keep="beauty")


def test_an_index_of_vectors_has_clusters_by_similarity_alone(tmp_path: Path) -> None:
    vectors = groups([4, 1, 3, 1], spread=0.02)
    index = index_vectors(tmp_path / "v", vectors, [f"{number}" for number in range(9)])
    done = deduplicate(index.path, tmp_path / "out", keep="first")
    assert lines(tmp_path / "out" / "keep.txt") == ["0", "4", "5", "8"]
    assert not done.summary["verified"]
    assert not done.summary["calibrated"]


def test_an_empty_collection_is_a_result(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    done = deduplicate(tmp_path / "nothing", tmp_path / "out")
    assert done.summary["images"]["listed"] == 0
    assert lines(tmp_path / "out" / "keep.txt") == []
    assert rows(tmp_path / "out" / "clusters.parquet") == []


def test_where_no_image_can_be_read_nothing_is_kept_or_dropped(tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(b"\xff\xd8\xff" + bytes([number]) * number)
    done = deduplicate(folder, tmp_path / "out")
    assert done.summary["images"]["described"] == 0
    assert sum(done.summary["images"]["skipped"].values()) == 5
    assert lines(tmp_path / "out" / "keep.txt") == lines(tmp_path / "out" / "drop.txt") == []


def test_thousands_of_copies_of_one_image_are_one_cluster(tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    photo("coffee.png").resize((150, 100)).save(folder / "00000.jpg")
    for number in range(1, 3000):
        os.link(folder / "00000.jpg", folder / f"{number:05}.jpg")
    done = deduplicate(folder, tmp_path / "out")
    assert done.summary["clusters"] == {"count": 1, "largest": 3000, "sizes": {"3000": 1}}
    assert lines(tmp_path / "out" / "keep.txt") == ["00000.jpg"]
    assert done.summary["pairs"] == {"exact": 2999, "near": 0, "judged": 0}


def test_a_second_job_in_the_same_folder_is_refused(tmp_path: Path, indexed: Index) -> None:
    output = tmp_path / "out"
    deduplicate(indexed.path, output)
    before = contents(output)
    with write_lock(output), pytest.raises(IndexLocked, match="another process"):
        deduplicate(indexed.path, output, precision=0.5)
    assert contents(output) == before


def test_folders_that_hold_something_else_are_left_alone(tmp_path: Path, indexed: Index, photos: Path) -> None:
    with pytest.raises(UsageError, match="holds other files"):
        deduplicate(indexed.path, photos)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        deduplicate(indexed.path, tmp_path / "file")
    shutil.copytree(photos, tmp_path / "more")
    deduplicate(photos, tmp_path / "out")
    with pytest.raises(UsageError, match="made from other sources"):
        deduplicate(tmp_path / "more", tmp_path / "out")


def test_one_id_in_two_indexes_is_refused(tmp_path: Path, indexed: Index) -> None:
    shutil.copytree(indexed.path, tmp_path / "again.index")
    with pytest.raises(UsageError, match=r"the id astronaut\.png is in two of the indexes"):
        deduplicate([indexed.path, tmp_path / "again.index"], tmp_path / "out")


def test_a_collection_against_itself_is_refused(tmp_path: Path, indexed: Index) -> None:
    with pytest.raises(UsageError, match="on both sides"):
        deduplicate(indexed.path, tmp_path / "out", against=[indexed.path])


def test_ignoring_everything_is_no_error(tmp_path: Path, indexed: Index) -> None:
    everything = Ignored(references=frozenset(lines_of(indexed)))
    done = deduplicate(indexed.path, tmp_path / "out", ignored=everything)
    assert done.summary["images"]["kept"] == 11
    assert done.summary["clusters"]["count"] == 0


def lines_of(index: Index) -> list[str]:
    (shard,) = index.references().shards
    return shard.image_ids(list(range(shard.described)))


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_a_job_killed_at_random_instants_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    source = drawn(tmp_path / "photos", 40)
    seconds = run(source, tmp_path / "whole")
    assert seconds
    wanted = contents(tmp_path / "whole")
    assert len(lines(tmp_path / "whole" / "drop.txt")) >= 8
    rng, kills = random.Random(7), 0
    for number in itertools.count():
        output = tmp_path / f"killed{number}"
        while run(source, output, rng.uniform(0.2, 0.9) * seconds if kills < 3 else None) is None:
            kills += 1
        assert contents(output) == wanted
        if kills >= 3:
            break
