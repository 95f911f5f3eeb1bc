"""Audit what `scripts/make_generated` made, and say how well the audit did: the numbers and plots of docs/audit.md.

    .venv/bin/python scripts/make_generated/measure.py --config scripts/make_generated/case.toml

A generation is a replica where its tile distance to some training picture is at most .15: all are compared with all, at
the size that the model has. Recall and precision are those of the audit's verdicts against that. Writes results.json,
audits with their pages, and plots (*.svg) into the configuration's `output`.
"""

import argparse
import csv
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.stats import spearmanr

from copydet.audit.chance import SAMPLE, nearest_others
from copydet.audit.near_pixel import NEAR
from copydet.audit.run import AuditSettings, audit
from copydet.audit.summary import are_copies, floats
from copydet.audit.training_set import TrainingSet
from copydet.images.originals import Originals
from copydet.index import Index
from copydet.progress import Silent, show
from copydet.reports.audit_page import write_page
from copydet.reports.plots import Bar, bars, curve, histogram, standalone


@dataclass(frozen=True)
class Done:
    """An audit as its files have it."""

    rows: pa.Table
    numbers: dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--output", type=Path, metavar="DIR", help="instead of the configuration's")
    parser.add_argument("--precision", type=float, default=0.9, help="of the verdicts (default: 0.9)")
    arguments = parser.parse_args()
    config = tomllib.loads(arguments.config.read_text(encoding="utf-8"))
    output = arguments.output or Path(config["output"])
    seen, unseen = build(output / "training.csv"), build(output / "others.csv")
    done = {
        "generated": run(output, "generated", seen, arguments.precision),
        "translated": run(output, "translated", seen, arguments.precision),
        "held-out": run(output, "held-out", seen, arguments.precision),
        "unseen": run(output, "generated", unseen, arguments.precision, "unseen"),
    }
    results = {
        "precision": arguments.precision,
        "replicas": replicas(output, done["generated"]),
        "repeats": by_repeats(done["generated"]),
        "translation": translation(done["translated"]),
        **{name: against_chance(done[name]) for name in ("generated", "held-out", "unseen")},
    }
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    chance, _ = nearest_others(TrainingSet(seen.references()), SAMPLE, 0, Silent())
    plot(output, done, results, chance)
    print(json.dumps(results, indent=1))


def build(listed: Path) -> Index:
    path = listed.with_suffix(".index")
    if (path / "CURRENT").exists():
        return Index.open(path)
    with show(f"indexing {listed.name}", None) as progress:
        return Index.build(listed, path, progress=progress)


def run(output: Path, name: str, index: Index, precision: float, folder: str = "") -> Done:
    """The audit of OUTPUT/name.csv, made unless it is there."""
    where = output / f"audit-{folder or name}"
    if not (where / "report.html").exists():
        with show(f"auditing {where.name}", None) as progress:
            made = audit(output / f"{name}.csv", index, where, AuditSettings(precision=precision), progress=progress)
        write_page(where / "report.html", made.found, made.numbers, Originals().read)
    return Done(pq.read_table(where / "audit.parquet"), json.loads((where / "audit.json").read_text()))


def replicas(output: Path, done: Done) -> dict[str, Any]:
    """How well verdicts and near-pixel flags find the generations that are near any training picture."""
    rows, numbers = done.rows, done.numbers
    pictures = training(output)
    truth = np.array([nearest(read(Path(uri)), pictures) <= NEAR for uri in rows["uri"].to_pylist()])
    scores = floats(rows, "score")
    said = {f"verdict at {precision}": scores >= at["score"] for precision, at in numbers["share_at_precision"].items()}
    said["near_pixel"] = np.array(rows["near_pixel"].to_pylist(), bool)
    measures: dict[str, Any] = {"generations": len(truth), "replicas": int(truth.sum())}
    for name, flags in said.items():
        right = int((flags & truth).sum())
        measures[name] = {
            "said": int(flags.sum()),
            "recall": right / max(1, int(truth.sum())),
            "precision": right / max(1, int(flags.sum())),
        }
    return measures


def training(output: Path) -> np.ndarray:
    """Distinct training pictures as `nearest` wants them."""
    with (output / "training.csv").open(newline="") as file:
        names = [row["path"] for row in csv.DictReader(file) if "-again-" not in row["path"]]
    pictures = np.stack([read(output / name) for name in names]).astype(np.float32) / 255
    side = pictures.shape[1] // 4
    return pictures.reshape(len(pictures), 4, side, 4, side, 3)


def nearest(picture: np.ndarray, others: np.ndarray) -> float:
    """The least tile distance to any of `others`, float32 [n, 4, side, 4, side, 3] of values from 0 to 1."""
    difference = others - (picture.astype(np.float32) / 255).reshape(others.shape[1:])
    tiles = np.einsum("natbuc,natbuc->nab", difference, difference) / (others[0].size / 16)
    return float(np.sqrt(tiles.max(axis=(1, 2)).min()))


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def by_repeats(done: Done) -> dict[str, Any]:
    """The share of copies among generations of repeated photos' prompts and of shared ones, and who was copied."""
    copies, kinds = are_copies(done.rows), np.array(done.rows["kind"].to_pylist())
    shares = {str(kind): float(copies[kinds == kind].mean()) for kind in np.unique(kinds)}
    return {"share_by_kind": shares, "duplication": done.numbers["duplication"]}


def translation(done: Done) -> dict[str, Any]:
    """Whether the audit puts strengths in their order: medians over all photos, and photo by photo."""
    rows = done.rows
    strengths, copies = floats(rows, "strength"), are_copies(rows)
    steps, origins = np.unique(strengths), np.array(rows["origin"].to_pylist())
    found: dict[str, Any] = {
        "strengths": steps.tolist(),
        "share_copy": [float(copies[strengths == step].mean()) for step in steps],
    }
    for name, sign in (("score", 1), ("nearest_similarity", 1), ("tile_distance", -1)):
        values = floats(rows, name)
        medians = [float(np.median(values[strengths == step])) for step in steps]
        one = [spearmanr(-strengths[origins == each], sign * values[origins == each])[0] for each in np.unique(origins)]
        found[name] = {
            "medians": medians,
            "spearman": float(spearmanr(-strengths, sign * values)[0]),
            "spearman_of_medians": float(spearmanr(-steps, sign * np.array(medians))[0]),
            "spearman_photo_by_photo_mean": float(np.mean(one)),
        }
    return found


def against_chance(done: Done) -> dict[str, Any]:
    numbers = done.numbers
    return {
        "share_copy": numbers["share_copy"],
        "chance": numbers["chance"]["share_copy"],
        "difference": numbers["above_chance"]["share_copy"],
        "similarity": numbers["above_chance"]["similarity"],
        "share_above": {level: numbers["share_above"][level]["value"] for level in numbers["share_above"]},
    }


def plot(output: Path, done: dict[str, Done], results: dict[str, Any], chance: np.ndarray) -> None:
    generated = done["generated"]
    drawn = {
        "similarity": histogram(
            "Similarity to the nearest training picture",
            [
                ("generations", floats(generated.rows, "nearest_similarity")),
                ("training pictures among themselves", chance),
            ],
            (0, 1),
            "similarity of whole pictures",
        ),
        "translation": curve(
            "Translations by strength",
            [
                (group["value"], *(group["share_copy"][key] for key in ("value", "low", "high")))
                for group in sorted(done["translated"].numbers["groups"]["strength"], key=lambda each: each["value"])
            ],
            "strength",
            "share called copies",
        ),
        "shares": bars(
            "Share of copies and its chance level",
            [
                Bar(name, *(results[key]["share_copy"][each] for each in ("value", "low", "high")))
                for key, name in (
                    ("generated", "against what it saw"),
                    ("unseen", "against what it never saw"),
                    ("held-out", "real photos it never saw"),
                )
            ],
            [("chance, at most", results["generated"]["chance"]["high"])],
        ),
    }
    for name, picture in drawn.items():
        (output / f"audit-{name}.svg").write_text(standalone(picture), encoding="utf-8")


if __name__ == "__main__":
    main()
