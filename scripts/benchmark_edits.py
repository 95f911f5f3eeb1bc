"""Measure which single edits `copydet match` sees through: every edit that copydet can make, strongly, by itself.

    .venv/bin/python scripts/benchmark_edits.py --output build/benchmark-edits.json

Each of the edits is made of --copies images of --references at --strength, with pictures of --others to paste and blend
with, and searched among all references. A row an edit, the worst first: how many originals were among the candidates
and how many came first, how many were called at the default precision, the median score of the originals, and how many
wrong references were called. Chains of edits are what the development benchmark has (scripts/benchmark_match.py); this
tells which links break.
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared/data"
sys.path.insert(0, str(ROOT))

EDGE, QUALITY, SEED, OTHERS = 640, 85, 5, 40


@dataclass(frozen=True)
class Row:
    """Shares of the copies, and the median score of their originals (0 for one that is no candidate)."""

    edit: str
    family: str
    proposed: float
    first: float
    called: float
    score: float
    wrong: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=Path, default=DATA / "dev/references", help="folder of images")
    parser.add_argument("--others", default=str(DATA / "train/shard-003.tar"), help="source of pictures to paste")
    parser.add_argument("--copies", type=int, default=16, help="of each edit")
    parser.add_argument("--strength", type=float, default=0.85, help="0 to 1")
    parser.add_argument("--output", type=Path, default=ROOT / "build/benchmark-edits.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="copydet-edits-") as work:
        originals = make_copies(arguments, Path(work) / "copies")
        rows = ask(arguments.references, Path(work), originals)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    print("| edit | family | proposed | first | called | median score | wrong |\n" + "| --- " * 7 + "|")
    for row in rows:
        shares = " | ".join(f"{share:.2f}" for share in (row.proposed, row.first, row.called, row.score))
        print(f"| {row.edit} | {row.family} | {shares} | {row.wrong} |")
    means = [statistics.mean(getattr(row, name) for row in rows) for name in ("proposed", "first", "called")]
    print(f"| all {len(rows)} | | " + " | ".join(f"{mean:.3f}" for mean in means) + " | | |")


def make_copies(arguments: argparse.Namespace, folder: Path) -> dict[str, tuple[str, str]]:
    """Write the copies into `folder`: file name -> edit and id of the original."""
    import cv2
    import numpy as np

    from copydet.images.edits import EDITS
    from copydet.images.loader import load
    from copydet.images.resize import Resize
    from copydet.images.sources import list_images

    def pictures(source: str, few: slice) -> dict[str, np.ndarray]:
        images = islice(list_images([source]), few.start, few.stop, few.step)
        batches = load(images, Resize("long_edge", EDGE), batch_size=16, workers=1)
        return {batch.rows[row].image_id: batch.pixels[n] for batch in batches for n, row in enumerate(batch.ok)}

    every = max(1, sum(1 for _ in list_images([str(arguments.references)])) // (4 * arguments.copies))
    chosen = list(pictures(str(arguments.references), slice(0, None, every)).items())
    others = list(pictures(arguments.others, slice(0, 50 * OTHERS, 50)).values())
    folder.mkdir()
    originals = {}
    for number, (name, edit) in enumerate(EDITS.items()):
        for copy in range(arguments.copies):
            rng = np.random.default_rng([SEED, number, copy])
            image_id, pixels = chosen[(5 * number + 4 * copy) % len(chosen)]
            beside = [others[place] for place in rng.choice(len(others), 2, replace=False).tolist()]
            edited = edit(pixels.copy(), arguments.strength, rng, beside).pixels
            file = f"{name}-{copy:03d}.jpg"
            cv2.imwrite(str(folder / file), edited[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            originals[file] = name, image_id
    return originals


def ask(references: Path, work: Path, originals: dict[str, tuple[str, str]]) -> list[Row]:
    import copydet
    from copydet.images.edits import EDITS

    index = copydet.Index.build(references, work / "index")
    found = {result.query_id: result.matches for result in index.match(work / "copies")}
    rows = []
    for name, edit in EDITS.items():
        asked = [(original, found[file]) for file, (of, original) in originals.items() if of == name]
        right = [[match for match in matches if match.reference_id == original] for original, matches in asked]
        wrong = sum(
            match.verdict != "no_match" and match.reference_id != original
            for original, matches in asked
            for match in matches
        )
        shares = [
            statistics.mean(map(bool, right)),
            statistics.mean(bool(matches) and matches[0].rank == 1 for matches in right),
            statistics.mean(bool(matches) and matches[0].verdict != "no_match" for matches in right),
        ]
        score = statistics.median(matches[0].score if matches else 0.0 for matches in right)
        rows.append(Row(name, edit.family, *shares, score, wrong))
    return sorted(rows, key=lambda row: (row.called, row.first, row.score))


if __name__ == "__main__":
    main()
