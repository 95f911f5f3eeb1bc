"""The commands on a real index: what they write, what they print, what they say next."""

import csv
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

Run = Callable[..., object]

HOSTILE = "<b>'coffee'&.png"


def test_index_says_what_it_does_and_what_to_do_next(run: Run, descriptor: Path, photos: Path, tmp_path: Path) -> None:
    done = run("index", photos, "--index", tmp_path / "i", "--descriptor", descriptor, "--max-memory", "8GB")
    assert done.code == 0
    assert not done.out
    assert "memory: 7,629 MiB at most" in done.err
    assert "recipe flat for 5 images" in done.err
    assert "5 images described" in done.err
    assert (
        f"2 images skipped (1 unreadable, 1 unsupported); list them with: copydet inspect --index {tmp_path / 'i'}"
        in (done.err)
    )
    assert done.err.splitlines()[-1].startswith("Next: copydet match QUERIES --index ")


def test_index_prints_its_summary_as_json(run: Run, descriptor: Path, photos: Path, tmp_path: Path) -> None:
    done = run("index", photos, "--index", tmp_path / "i", "--descriptor", descriptor, "--json", "--recipe", "sq8")
    summary = json.loads(done.out)
    assert summary["images"] == 7
    assert summary["described"] == 5
    assert summary["skipped"] == {"unreadable": 1, "unsupported": 1}
    assert summary["recipe"] == "sq8"
    assert "Next:" not in done.err


def test_strict_exits_with_3_when_images_were_skipped(
    run: Run, descriptor: Path, photos: Path, tmp_path: Path, queries: Path
) -> None:
    strict = ("--descriptor", descriptor, "--strict")
    assert run("index", photos, "--index", tmp_path / "i", *strict).code == 3
    assert run("match", queries, "--index", tmp_path / "i", *strict).code == 3
    assert run("match", photos / "coffee.png", "--index", tmp_path / "i", *strict).code == 0


def test_limits_make_images_too_large(run: Run, descriptor: Path, photos: Path, tmp_path: Path) -> None:
    limits = ("--max-pixels", "100k")
    done = run("index", photos, "--index", tmp_path / "i", "--descriptor", descriptor, "--json", *limits)
    assert json.loads(done.out)["skipped"]["too_large"] >= 4


def test_match_prints_a_table_of_matches(run: Run, built: Path, queries: Path) -> None:
    done = run("match", queries, "--index", built, "--top-k", 1)
    assert done.code == 0
    head, row = done.out.splitlines()
    assert head.split() == ["query", "reference", "score", "verdict", "similarity"]
    assert row.split()[:2] == [HOSTILE, "coffee.png"]
    assert row.split()[3] == "copy"
    assert "2 queries: 1 with a match, 0 without, 1 skipped (1 unreadable)" in done.err
    assert "skipped zero.jpg: unreadable" in done.err
    assert "Next:" in done.err


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_match_writes_a_table(run: Run, built: Path, queries: Path, tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"m.{ending}"
    done = run("match", queries, "--index", built, "--output", output, "--json")
    assert done.code == 0
    assert json.loads(done.out) == {
        "queries": 2,
        "with_match": 1,
        "without_match": 0,
        "matches": json.loads(done.out)["matches"],
        "skipped": {"unreadable": 1},
        "output": str(output),
        "report": None,
    }
    rows = read(output)
    assert len(rows) == 5
    assert (rows[0]["query_id"], rows[0]["reference_id"]) == (HOSTILE, "coffee.png")
    with (tmp_path / f"m.{ending}.failed.csv").open(newline="") as file:
        assert [row["query_id"] for row in csv.DictReader(file)] == ["zero.jpg"]


def read(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))  # type: ignore[arg-type]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.open(encoding="utf-8")]
    rows: list[dict[str, object]] = pq.read_table(path).to_pylist()
    return rows


def test_match_writes_a_page_with_both_pictures(run: Run, built: Path, queries: Path, tmp_path: Path) -> None:
    page = tmp_path / "m.html"
    done = run("match", queries, "--index", built, "--report", page)
    assert f"Next: open {page} in a browser" in done.err
    assert page.read_text().count("data:image/webp;base64,") >= 5


def test_where_and_top_k_restrict_what_is_found(run: Run, built: Path, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.csv"
    where = "image_id LIKE 'c%' AND width > 100"
    run("match", photos / "coffee.png", "--index", built, "--output", output, "--where", where, "--top-k", 2)
    assert {row["reference_id"][0] for row in read(output)} == {"c"}  # type: ignore[index]
    assert len(read(output)) == 2


def test_a_condition_that_cannot_be_read_is_one_line_and_leaves_no_file(
    run: Run, built: Path, photos: Path, tmp_path: Path
) -> None:
    done = run("match", photos, "--index", built, "--where", "widht > 3", "--output", tmp_path / "m.csv")
    assert done.code == 2
    assert "widht" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_could_not_be_written_is_refused_before_the_work(
    run: Run, built: Path, photos: Path, tmp_path: Path
) -> None:
    for wrong in (["--output", tmp_path / "m.xls"], ["--report", tmp_path / "no/m.html"]):
        done = run("match", photos, "--index", built, *wrong)
        assert done.code == 2
    assert list(tmp_path.iterdir()) == []


def test_add_and_remove_change_the_index(run: Run, index: Path, another_photo: Path, photos: Path) -> None:
    added = run("add", another_photo, photos, "--index", index)
    assert added.code == 0
    assert "1 image described, 15 in the index" in added.err
    assert "duplicate_id" in added.err
    removed = run("remove", "--where", "status <> 'ok'", "--index", index, "--json")
    assert json.loads(removed.out)["removed"] >= 2
    removed = run("remove", "coffee.png", "--index", index)
    assert "1 image removed" in removed.err
    run("match", photos / "coffee.png", "--index", index, "--output", index.parent / "m.csv")
    assert "coffee.png" not in {row["reference_id"] for row in read(index.parent / "m.csv")}
    again = run("remove", "coffee.png", "--index", index)
    assert again.code == 2
    assert "nothing was removed" in again.err


def test_inspect_prints_what_is_in_an_index(run: Run, index: Path) -> None:
    run("remove", "coffee.png", "--index", index)
    done = run("inspect", "--index", index)
    assert "6: 4 described, 1 unreadable, 1 unsupported; 1 removed" in done.out
    assert "recipe      flat" in done.out
    assert "000001  " in done.out
    assert "000002  " in done.out
    assert "inspect --index" in done.err
    facts = json.loads(run("inspect", "--index", index, "--json").out)
    assert facts["statuses"] == {"ok": 4, "unreadable": 1, "unsupported": 1}
    assert [shard["described"] for shard in facts["shards"]] == [5]
    assert len(facts["history"]) == 2


def test_inspect_lists_the_images_that_failed(run: Run, index: Path) -> None:
    done = run("inspect", "--index", index, "--failed")
    assert [line.split("\t")[:2] for line in done.out.splitlines()] == [
        ["unreadable", "empty.png"],
        ["unsupported", "text.jpg"],
    ]
    run("remove", "text.jpg", "--index", index)
    failed = json.loads(run("inspect", "--index", index, "--failed", "--json").out)["failed"]
    assert [image["image_id"] for image in failed] == ["empty.png"]


def test_the_advice_for_failed_images_works(run: Run, index: Path, photos: Path, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    mended.mkdir()
    shutil.copyfile(photos / "coffee.png", mended / "empty.png")
    assert run("remove", "--where", "status <> 'ok'", "--index", index).code == 0
    assert run("add", mended, "--index", index, "--strict").code == 0
    assert "no images" not in run("inspect", "--index", index, "--failed").err


def test_compare_prints_every_score_and_what_it_takes(run: Run, descriptor: Path, photos: Path) -> None:
    pair = (photos / "coffee.png", photos / "coffee.png")
    done = run("compare", *pair, "--descriptor", descriptor)
    assert done.code == 0
    assert "similarity   " in done.out
    assert "They match" in done.out
    values = json.loads(run("compare", *pair, "--descriptor", descriptor, "--json").out)
    assert values["match"]["verdict"] == "copy"
    assert values["similarity"] == pytest.approx(1, abs=1e-3)


def test_compare_draws_the_evidence(run: Run, descriptor: Path, photos: Path, tmp_path: Path) -> None:
    picture = tmp_path / "evidence.png"
    done = run("compare", photos / "coffee.png", photos / "coffee.png", "--descriptor", descriptor, "--output", picture)
    assert done.code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    done = run("compare", photos / "coffee.png", photos / "coffee.png", "--output", tmp_path / "evidence.gif")
    assert (done.code, ".png" in done.err) == (2, True)


def test_compare_of_something_that_is_no_image_is_one_line(run: Run, descriptor: Path, photos: Path) -> None:
    done = run("compare", photos / "coffee.png", photos / "text.jpg", "--descriptor", descriptor)
    assert done.code == 2
    assert "text.jpg" in done.err
    assert done.err.count("\n") == 1


def test_evaluate_scores_predictions(run: Run, tmp_path: Path) -> None:
    truth, predictions = tmp_path / "truth.csv", tmp_path / "m.csv"
    truth.write_text("query_id,reference_id\nq1,r1\nq2,r2\nq3,\n")
    predictions.write_text("query_id,reference_id,score\nq1.jpg,r1.jpg,.9\nq3,r1,.8\nq2,r2,.7\n")
    values = json.loads(run("evaluate", predictions, "--ground-truth", truth, "--json").out)
    assert values["micro_ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert values["recall_at_p90"] == 0.5
    assert values["threshold_at_p90"] == 0.9
    assert values["recall_at_1"] == 1
    done = run("evaluate", predictions, "--ground-truth", truth)
    assert "micro_ap" in done.out
    assert "0.83333" in done.out


def test_evaluate_scores_a_descriptor_on_a_benchmark_folder(
    run: Run, descriptor: Path, photos: Path, tmp_path: Path
) -> None:
    folder, results = tmp_path / "bench", tmp_path / "results"
    for name in ("queries", "references"):
        (folder / name).mkdir(parents=True)
    for name in ("coffee.png", "camera.png", "rocket.jpg"):
        shutil.copyfile(photos / name, folder / "references" / name)
    shutil.copyfile(photos / "coffee.png", folder / "queries" / "q.png")
    (folder / "queries.csv").write_text("query_id,kind,level,edits,reference_id\nq,copy,easy,none,coffee\n")
    done = run("evaluate", "--benchmark", folder, "--descriptor", descriptor, "--output", results)
    assert done.code == 0, done.err
    assert "recall@1" in done.out
    assert (results / "rows.csv").exists()
    rows = json.loads(run("evaluate", "--benchmark", folder, "--descriptor", descriptor, "--json").out)["rows"]
    assert rows[0]["recall_at_1"] == 1


def test_evaluate_calibrates_a_descriptor_of_ones_own(run: Run, descriptor: Path, tmp_path: Path) -> None:
    own, pool = tmp_path / "own", tmp_path / "pool"
    shutil.copytree(descriptor, own)
    (own / "calibration.json").write_text("{")  # what a new one is asked for
    pool.mkdir()
    for number in range(24):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
        coarse.resize((160, 120)).save(pool / f"{number}.png")
    done = run("evaluate", "--calibrate", pool, "--descriptor", own, "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["pairs"] > facts["copies"] > 0
    assert "verified" in json.loads((own / "calibration.json").read_text())


def test_doctor_tells_what_is_there(run: Run) -> None:
    done = run("doctor", "--json")
    report = json.loads(done.out)
    assert done.code == (4 if report["problems"] else 0)
    found = {(finding["area"], finding["name"]): finding["value"] for finding in report["findings"]}
    assert "faiss" in found["faiss", "version"]
    assert found["faiss", "compiled with"]
    assert found["versions", "numpy"]
    assert found["settings", "OMP_WAIT_POLICY"]


def test_doctor_finds_rivals_and_says_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from copydet.cli import checks

    known = checks._version
    monkeypatch.setattr(checks, "_version", lambda name: "1.14.3" if name == "faiss-gpu" else known(name))
    done = run("doctor")
    assert done.code == 4
    assert "PROBLEM: faiss-cpu faiss-gpu overwrite each other; run: pip uninstall -y faiss-cpu faiss-gpu" in done.out


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    from copydet.cli import checks

    monkeypatch.setattr(checks, "_version", lambda name: sqlite3.connect("/nowhere/at/all"))
    broken = [finding for finding in checks.look_around() if finding.value == "failed"]
    assert broken
    assert all(finding.problem and "OperationalError" in finding.problem for finding in broken)


def test_a_gpu_library_that_ends_its_process_is_reported_not_fatal() -> None:
    from copydet.cli.checks import _run_apart

    assert _run_apart("import os; os.abort()") == "the process ended with -6"
    assert _run_apart("raise RuntimeError('no driver')") == "RuntimeError: no driver"
    assert _run_apart("pass") is None


def test_an_index_and_a_query_set_of_nothing_are_no_error(
    run: Run, descriptor: Path, photos: Path, built: Path, tmp_path: Path
) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    empty = tmp_path / "empty.index"
    done = run("index", nothing, "--index", empty, "--descriptor", descriptor)
    assert done.code == 0
    assert "0 images described" in done.err
    assert "Next: the index holds nothing to search yet: copydet add SOURCE" in done.err
    assert run("inspect", "--index", empty).code == 0
    output, page = tmp_path / "m.csv", tmp_path / "m.html"
    for queries, index in ((photos / "coffee.png", empty), (nothing, built)):
        done = run("match", queries, "--index", index, "--output", output, "--report", page)
        assert done.code == 0, done.err
        assert len(output.read_text().splitlines()) == 1
        assert run("match", queries, "--index", index).out == ""


def test_what_was_reviewed_does_not_come_back(run: Run, descriptor: Path, photos: Path, tmp_path: Path) -> None:
    index, output, ignore = tmp_path / "p.index", tmp_path / "m.csv", tmp_path / "ignore.csv"
    assert run("index", photos, "--index", index, "--descriptor", descriptor).code == 0

    def proposed() -> set[str]:
        done = run("match", photos / "coffee.png", "--index", index, "--output", output, "--ignore", ignore)
        assert done.code == 0, done.err
        return {line.split(",")[1] for line in output.read_text().splitlines()[1:]}

    ignore.write_text("other.png,coffee.png\n")
    assert "coffee.png" in proposed()
    ignore.write_text(f"{photos / 'coffee.png'},coffee.png\n")
    assert "coffee.png" not in proposed()
    ignore.write_text("coins.png\n")
    assert "coins.png" not in proposed()
    done = run("match", photos / "coffee.png", "--index", index, "--ignore", tmp_path / "missing.csv")
    assert (done.code, "missing.csv" in done.err) == (2, True)
