"""Measure `copydet dedup` on collections with planted duplicates against fastdup and the hashes of imagededup.

    .venv/bin/python scripts/benchmark_dedup.py --sizes 5400 10800 21600 86400 --output build/benchmark-dedup.json

Each collection is made of the images of --tars (from the fourth part of what they hold on, of quarters of them), with
copies of a twentieth of them, light to hard, chains A~B~C whose ends share nothing, files of equal bytes, and files of
equal pixels (scripts/benchmark_dedup_stages.py, plant). Look-alikes are bursts, second photographs of some scenes
(copydet/evaluation/other_view.py), and those of the images themselves: frames of videos, products, rooms.

Counted are pairs. A planted copy and its original are to be found. Neither right nor wrong are two copies of one
original, copies that were pasted onto the same picture, images that nobody edited but whose thumbnails are the same,
and what shows two pictures that scripts/same_pictures.csv lists: training images that were the same picture, cropped,
mirrored, recoloured or captioned, before anybody collected them. (The list is of all pairs of pictures that copydet
called in the collection of 21,600 without being planted, 430, those that are unmistakably the same to the eye, 139. No
list was made of what the peers called.) Every other pair is wrong; two photographs of one burst are, however alike.
copydet counts at its default precision, and at its best threshold beside it; each peer at its best threshold on this
very collection. Purity: the share of images in clusters that are of their cluster's most frequent family.

Every finished step is kept in --work, and is not done again: an interrupted run goes on with the same command. --output
is written after each size. Memory is told beside that of `copydet index` on one image, which is the model's. Only the
standard library is imported here: a child starts with its parent's peak of memory.
"""

import argparse
import csv
import json
import math
import os
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from benchmark_index import DATA, ROOT, describe_machine, make_environment, run_child

STAGES = str(ROOT / "scripts/benchmark_dedup_stages.py")
HASHES = ("phash", "dhash", "ahash", "whash")
IMAGEDEDUP = ("imagededup==0.3.3", "PyWavelets", "tqdm")

Pair = tuple[str, str]


@dataclass(frozen=True)
class Truth:
    """`copies`: (image, original) -> level; `families`: image -> the originals that it shows."""

    copies: dict[Pair, str]
    families: dict[str, frozenset[str]]
    bursts: frozenset[Pair]  # two photographs of one scene: no duplicates

    def related(self, pair: Pair) -> bool:
        return bool(self.families[pair[0]] & self.families[pair[1]])


def main() -> int:
    arguments = parse_arguments()
    arguments.work.mkdir(parents=True, exist_ok=True)
    peers = {
        name: environment(arguments.work, name) for name in ("fastdup", "imagededup") if name not in arguments.without
    }
    model = step(arguments.work / "model.json", lambda: run_on_one_image(arguments.work, arguments.tars))
    rows: list[dict[str, Any]] = []
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    for size in sorted(arguments.sizes):
        rows += measure(arguments, size, peers)
        result = {
            "command": " ".join(["scripts/benchmark_dedup.py", *sys.argv[1:]]),
            "machine": describe_machine(),
            "model": model,
            "rows": rows,
            "growth": growth(rows),
        }
        partial = arguments.output.with_suffix(".tmp")
        partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        partial.replace(arguments.output)
    print(markdown(result))
    print(f"\nWritten to {arguments.output}", file=sys.stderr)
    return 0


def parse_arguments() -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tars", type=Path, default=DATA / "train", help="folder of tar shards with photos")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5400, 10800, 21600], help="images before planting")
    parser.add_argument("--hashes", nargs="+", choices=HASHES, default=["phash", "dhash"], help="of imagededup")
    parser.add_argument("--without", choices=("fastdup", "imagededup"), action="append", default=[])
    parser.add_argument("--work", type=Path, default=ROOT / "build/benchmark-dedup", help="kept between runs")
    parser.add_argument("--output", type=Path, default=ROOT / "build/benchmark-dedup.json")
    arguments = parser.parse_args()
    if not arguments.tars.is_dir():
        parser.error(f"{arguments.tars} is not a folder; name one with --tars")
    return arguments


def environment(work: Path, name: str) -> str:
    """The Python of a peer's own virtual environment. imagededup imports torch, which it may borrow from this one."""
    if name == "fastdup":
        return make_environment(work, name)
    python, done = work / "venv-imagededup/bin/python", work / "venv-imagededup/installed"
    if not done.exists():
        print(f"Installing {' '.join(IMAGEDEDUP)} into {done.parent}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(done.parent)], check=True)
        (folder,) = done.parent.glob("lib/python*/site-packages")
        (folder / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", *IMAGEDEDUP], check=True)
        done.touch()
    return str(python)


def measure(arguments: argparse.Namespace, size: int, peers: dict[str, str]) -> list[dict[str, Any]]:
    """A row for each contender on the collection of `size` images."""
    work = arguments.work / f"of-{size}"
    work.mkdir(exist_ok=True)
    photos = work / "photos"
    step(
        work / "plant.json",
        lambda: run_child([sys.executable, STAGES, "plant", str(arguments.tars), str(size), str(photos)]),
    )
    truth = read_truth(work / "photos.csv")
    contenders: dict[str, Callable[[], dict[str, float]]] = {"copydet": lambda: run_copydet(work, photos)}
    if "fastdup" in peers:
        contenders["fastdup"] = lambda: run_peer(work, photos, peers["fastdup"], "fastdup", "fastdup")
    for kind in arguments.hashes if "imagededup" in peers else ():
        contenders[kind] = lambda kind=kind: run_peer(work, photos, peers["imagededup"], "imagededup", kind)  # type: ignore[misc]
    rows = []
    for name, run in contenders.items():
        timing = step(work / f"{name}.json", run)
        scored = step(work / f"{name}.scored.json", lambda name=name: score(work, photos, truth, name))  # type: ignore[misc]
        rows.append({"images": len(truth.families), "contender": name, **timing, **scored})
        print(f"{size:,}: {name}: {timing['wall']:.0f} s, F1 {scored['f1']:.3f}", file=sys.stderr)
    return rows


def step(note: Path, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `run` returns; what it returned before, where that was noted."""
    if not note.exists():
        partial = note.with_suffix(".tmp")
        partial.write_text(json.dumps(run()), encoding="utf-8")
        partial.rename(note)
    result: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
    return result


def run_copydet(work: Path, photos: Path) -> dict[str, float]:
    """Time and peak of the whole command at its defaults; then its pairs at a low precision, which is a few seconds."""
    output = work / "dedup"
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "copydet", "dedup", str(photos), "--output", str(output)]
    timing = run_child(command)
    run_child(
        [
            sys.executable,
            STAGES,
            "copydet_pairs",
            str(output),
            str(work / "copydet.csv"),
            str(work / "copydet.clusters.csv"),
        ]
    )
    indexing = run_child(
        [sys.executable, "-m", "copydet", "index", str(photos), "--index", str(fresh(work / "alone.index"))]
    )
    return {**timing, "indexing alone": indexing["wall"]}


def run_on_one_image(work: Path, tars: Path) -> dict[str, float]:
    """Peak of `copydet index` on one image: what the program and the model take."""
    photos = fresh(work / "one")
    run_child([sys.executable, STAGES, "plant", str(tars), "1", str(photos)])
    return run_child([sys.executable, "-m", "copydet", "index", str(photos), "--index", str(fresh(work / "one.index"))])


def run_peer(work: Path, photos: Path, python: str, stage: str, kind: str) -> dict[str, float]:
    return run_child(
        [python, STAGES, stage, str(photos), str(fresh(work / f"{kind}.work")), str(work / f"{kind}.csv"), kind]
    )


def fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    return path


def read_truth(file: Path) -> Truth:
    copies: dict[Pair, str] = {}
    families: defaultdict[str, set[str]] = defaultdict(set)
    bursts: defaultdict[str, list[str]] = defaultdict(list)
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            families[row["image"]].add(row["family"])
            if row["level"]:
                copies[ordered(row["image"], row["original"])] = row["level"]
            if row["burst"]:
                bursts[row["burst"]].append(row["image"])
    alike = frozenset(ordered(*pair) for images in bursts.values() for pair in combinations(images, 2))
    return Truth(copies, {image: frozenset(shown) for image, shown in families.items()}, alike)


def ordered(one: str, other: str) -> Pair:
    return (one, other) if one < other else (other, one)


def score(work: Path, photos: Path, truth: Truth, name: str) -> dict[str, Any]:
    """Precision, recall and F1 of a contender's pairs, in all and by level, and the purity of its clusters."""
    scores: dict[Pair, float] = {}
    default: set[Pair] = set()
    with (work / f"{name}.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            pair = ordered(row["one"], row["other"])
            scores[pair] = max(float(row["score"]), scores.get(pair, -math.inf))
            if row.get("default") == "1":
                default.add(pair)
    same = same_thumbnails(work, photos, truth, name, scores)
    best = best_threshold(truth, scores, same)
    found = {pair for pair, value in scores.items() if value >= best}
    result: dict[str, Any] = {"best threshold": best, **counts(truth, found, same)}
    if name == "copydet":
        result = {**counts(truth, default, same), "at best": result}
    clusters = read_clusters(work / f"{name}.clusters.csv") if name == "copydet" else components(found)
    return {**result, "purity": purity(truth, clusters), "clusters": len(clusters)}


def same_thumbnails(work: Path, photos: Path, truth: Truth, name: str, scores: dict[Pair, float]) -> set[Pair]:
    """Of the pairs that nobody planted, also not as a burst, those whose thumbnails are the same."""
    file = work / f"{name}.unplanted.csv"
    with file.open("w", newline="") as lines:
        csv.writer(lines).writerows(
            pair for pair in sorted(scores) if not truth.related(pair) and pair not in truth.bursts
        )
    run_child([sys.executable, STAGES, "same_thumbnails", str(photos), str(file), str(file.with_suffix(".same.csv"))])
    with file.with_suffix(".same.csv").open(newline="") as lines:
        return {(one, other) for one, other in csv.reader(lines)}


def best_threshold(truth: Truth, scores: dict[Pair, float], same: set[Pair]) -> float:
    """The score from which on pairs give the best F1 on this collection."""
    right = wrong = 0
    best, threshold = 0.0, math.inf
    by_score = sorted(scores, key=lambda pair: -scores[pair])
    for place, pair in enumerate(by_score):
        right += pair in truth.copies
        wrong += not truth.related(pair) and pair not in same
        is_last = place + 1 == len(by_score) or scores[by_score[place + 1]] != scores[pair]
        f1 = 2 * right / (right + wrong + len(truth.copies))
        if is_last and f1 > best:
            best, threshold = f1, scores[pair]
    return threshold


def counts(truth: Truth, found: set[Pair], same: set[Pair]) -> dict[str, Any]:
    wrong = sum(not truth.related(pair) and pair not in same for pair in found)
    of_level = Counter(truth.copies.values())
    right = Counter(truth.copies[pair] for pair in found if pair in truth.copies)
    precision = right.total() / max(right.total() + wrong, 1)
    recall = {level: right[level] / count for level, count in sorted(of_level.items())}
    light = [level for level in of_level if level in ("easy", "identical", "lossless")]
    share_of_light = sum(right[level] for level in light) / max(sum(of_level[level] for level in light), 1)
    return {
        "precision": precision,
        "recall": right.total() / max(len(truth.copies), 1),
        "f1": harmonic(precision, right.total() / max(len(truth.copies), 1)),
        "f1 light": harmonic(precision, share_of_light),
        "recall by level": recall,
        "f1 by level": {level: harmonic(precision, value) for level, value in recall.items()},
        "wrong": wrong,
        "bursts": len(found & truth.bursts) / max(len(truth.bursts), 1),
    }


def harmonic(precision: float, recall: float) -> float:
    return 2 * precision * recall / max(precision + recall, 1e-9)


def read_clusters(file: Path) -> list[list[str]]:
    clusters: defaultdict[str, list[str]] = defaultdict(list)
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            clusters[row["cluster"]].append(row["image"])
    return list(clusters.values())


def components(pairs: Iterable[Pair]) -> list[list[str]]:
    leader: dict[str, str] = {}

    def lead(image: str) -> str:
        while leader.setdefault(image, image) != image:
            leader[image] = leader[leader[image]]
            image = leader[image]
        return image

    for one, other in pairs:
        leader[lead(one)] = lead(other)
    clusters: defaultdict[str, list[str]] = defaultdict(list)
    for image in list(leader):
        clusters[lead(image)].append(image)
    return list(clusters.values())


def purity(truth: Truth, clusters: list[list[str]]) -> float:
    inside = sum(map(len, clusters))
    most = sum(max(Counter(family for image in each for family in truth.families[image]).values()) for each in clusters)
    return most / max(inside, 1)


def growth(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, float]]]:
    """Of each contender, how wall time and peak memory grow from each size to the next, and from the first to the last:
    exponent of the time in the number of images, and the larger peak as a multiple of the smaller.
    """
    grown: dict[str, list[dict[str, float]]] = {}
    for name in dict.fromkeys(row["contender"] for row in rows):
        own = sorted((row for row in rows if row["contender"] == name), key=lambda row: row["images"])
        steps = [*pairwise(own), *([(own[0], own[-1])] if len(own) > 2 else [])]
        grown[name] = [
            {
                "from": one["images"],
                "to": other["images"],
                "exponent": math.log(other["wall"] / one["wall"]) / math.log(other["images"] / one["images"]),
                "memory": other["peak"] / one["peak"],
            }
            for one, other in steps
        ]
    return grown


def cells(counted: dict[str, Any], levels: list[str]) -> str:
    numbers = [counted[name] for name in ("precision", "recall", "f1", "f1 light", "bursts")]
    return " | ".join(
        f"{number:.3f}" for number in [*numbers, *(counted["recall by level"][level] for level in levels)]
    )


def markdown(result: dict[str, Any]) -> str:
    """The tables for the documentation; a column named by a level is the recall of it, `bursts` the share of pairs of
    one burst that were called.
    """
    machine = result["machine"]
    levels = sorted({level for row in result["rows"] for level in row["recall by level"]})
    lines = [
        f"`{result['command']}` on {machine['cores']} cores of {machine['processor']}",
        "",
        f"| images | | precision | recall | F1 | F1 light | bursts | {' | '.join(levels)} | purity | s | MiB "
        "| above the model |",
        "| ---: | --- |" + " ---: |" * (len(levels) + 9),
    ]
    for row in result["rows"]:
        above = f"{(row['peak'] - result['model']['peak']) / 2**20:,.0f}" if row["contender"] == "copydet" else ""
        took = f"{row['purity']:.3f} | {row['wall']:.0f} | {row['peak'] / 2**20:,.0f} | {above}"
        lines.append(f"| {row['images']:,} | {row['contender']} | {cells(row, levels)} | {took} |")
        if "at best" in row:
            lines.append(f"| | the same, at its best threshold | {cells(row['at best'], levels)} | | | | |")
    lines += [
        "",
        "| | from | to | exponent of the time | memory, times |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(
            f"| {name} | {each['from']:,} | {each['to']:,} | {each['exponent']:.2f} | {each['memory']:.2f} |"
            for name, steps in result["growth"].items()
            for each in steps
        ),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(ROOT))
    sys.exit(main())
