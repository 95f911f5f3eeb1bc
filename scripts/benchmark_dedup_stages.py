"""What scripts/benchmark_dedup.py runs, each stage in a process of its own: prints one JSON line.

The peers run in virtual environments of their own, where copydet is not installed: imports stay inside the functions.
"""

import csv
import json
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

LEVELS = ("easy", "medium", "hard")
PLANTED_SHARE = 0.05  # of the images get copies
MOST_COPIES = 8
OTHERS = 400  # images, the tars' last, that copies are pasted onto and beside; none of them is in the collection
CHAIN_SHARE, IDENTICAL_SHARE, LOSSLESS_SHARE = 0.005, 0.005, 0.005
BURST_SHARE, MOST_OF_A_BURST = 0.005, 4  # of the images are photographed again, so many times at most
QUALITIES = (95, 85, 70)
SAME_PICTURES = Path(__file__).with_name("same_pictures.csv")


def plant(tars: str, count: str, folder: str) -> dict[str, object]:
    """`count` images of the tars as files in `folder`, with duplicates planted among them; truth.csv beside the folder.

    truth.csv: image, family (images of one family show the same), original, level (empty where it is a copy of none),
    burst. An image of a chain shows two originals and has a line for each, a copy that was pasted onto another picture
    one for that, too. Images of one burst are photographs of one scene, each a family of its own: nearly identical, and
    no duplicates. Pictures that the tars hold twice are of one family.
    """
    import numpy as np

    from copydet.evaluation.other_view import photograph_again
    from copydet.images.edits import edit_image

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    pictures = list(_pictures(Path(tars), int(count)))
    families = _families(Path(tars), int(count))
    aside = [_decode(data) for _, data in list(_members(Path(tars)))[-OTHERS:]]
    lines: list[tuple[str, str, str, str]] = []
    for number, encoded in enumerate(pictures):
        name = f"{number:06}.{'jpg' if number % 2 else 'webp'}"
        _write(target / name, encoded if number % 2 == 0 else _jpeg(_decode(encoded), QUALITIES[0]))
        lines.append((name, families[number], name, ""))
    names = [line[0] for line in lines]
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(pictures))
    shares = [int(len(pictures) * share) for share in (PLANTED_SHARE, CHAIN_SHARE, CHAIN_SHARE, IDENTICAL_SHARE)]
    edited, first, second, identical = np.split(chosen, np.cumsum(shares))[:4]
    rest = chosen[sum(shares) :]
    lossless, rest = np.split(rest, [int(len(pictures) * LOSSLESS_SHARE)])
    bursts: dict[str, str] = {}
    for number in edited.tolist():
        for copy in range(int(rng.integers(1, MOST_COPIES + 1))):
            level = LEVELS[copy % len(LEVELS)]
            draw = np.random.default_rng([number, copy])
            drawn = draw.integers(0, OTHERS, 3).tolist()
            others = _Noting(aside[other] for other in drawn)
            pixels = edit_image(_decode(pictures[number]), level, draw, others).pixels
            name = f"c{draw.integers(16**8):08x}.jpg"  # names tell nothing of the original
            _write(target / name, _jpeg(pixels, QUALITIES[copy % len(QUALITIES)]))
            lines.append((name, families[number], names[number], level))
            lines += [(name, f"aside {drawn[taken]:03}", "", "") for taken in sorted(others.taken)]
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        name = f"b{one:06}.jpg"
        _write(target / name, _jpeg(_side_by_side(_decode(pictures[one]), _decode(pictures[other])), 90))
        lines += [(name, families[each], names[each], "chain") for each in (one, other)]
    for number in identical.tolist():
        name = f"i{number:06}{Path(names[number]).suffix}"
        _write(target / name, (target / names[number]).read_bytes())
        lines.append((name, families[number], names[number], "identical"))
    for number in lossless.tolist():
        name = f"l{number:06}.png"
        _write(target / name, _png(_decode((target / names[number]).read_bytes())))
        lines.append((name, families[number], names[number], "lossless"))
    for number in rest[: int(len(pictures) * BURST_SHARE)].tolist():
        bursts[names[number]] = f"{number:06}"
        draw = np.random.default_rng([number, MOST_COPIES])
        for again in range(int(draw.integers(1, MOST_OF_A_BURST + 1))):
            name = f"f{draw.integers(16**8):08x}.jpg"
            _write(target / name, _jpeg(photograph_again(_decode(pictures[number]), draw), QUALITIES[0]))
            lines.append((name, f"{number:06}-{again + 1}", name, ""))
            bursts[name] = f"{number:06}"
    with target.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "family", "original", "level", "burst"))
        writer.writerows((*line, bursts.get(line[0], "")) for line in lines)
    return {"images": len(list(target.iterdir()))}


class _Noting(list[Any]):
    """A list that knows which places were looked at: what an edit showed of other pictures."""

    def __init__(self, items: Iterable[Any]) -> None:
        super().__init__(items)
        self.taken: set[int] = set()

    def __getitem__(self, place: Any) -> Any:
        self.taken.add(place)
        return super().__getitem__(place)


def _pictures(tars: Path, count: int) -> Iterator[bytes]:
    """`count` images of the tars; where they hold fewer, quarters of them in place of whole images."""
    import cv2

    images = [data for _, data in _members(tars)][:-OTHERS]
    if count <= len(images):
        yield from images[:count]
        return
    if count > 4 * len(images):
        sys.exit(
            f"{tars} holds {len(images) + OTHERS:,} images, which make {4 * len(images):,}; {count:,} were asked for"
        )
    for number in range(count):
        pixels = _quarter(_decode(images[number // 4]), number % 4)
        yield cv2.imencode(".webp", pixels[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, 90])[1].tobytes()


def _families(tars: Path, count: int) -> list[str]:
    """A name for what each of the `_pictures` shows. Pictures that SAME_PICTURES lists together share one, and so do
    all their quarters: two crops of one picture have others.
    """
    ids = [Path(name).stem for name, _ in _members(tars)][:-OTHERS]
    numbers = {each: number for number, each in enumerate(ids)}
    first = list(range(len(ids)))
    with SAME_PICTURES.open(newline="") as file:
        listed = [(row["one"], row["other"]) for row in csv.DictReader(file)]
    for one, other in ((numbers[a], numbers[b]) for a, b in listed if a in numbers and b in numbers):
        merged = sorted((first[one], first[other]))
        first = [merged[0] if each == merged[1] else each for each in first]
    shared = {each for number, each in enumerate(first) if each != number}
    if count <= len(ids):
        return [f"{each:06}" for each in first[:count]]
    wholes = [first[number // 4] for number in range(count)]
    return [f"all of {whole:06}" if whole in shared else f"{number:06}" for number, whole in enumerate(wholes)]


def _members(tars: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(tars.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None:
                    yield member.name, file.read()


def _quarter(pixels: Any, number: int) -> Any:
    """One of the quarters of a picture, enlarged: an image of its own, which shares nothing with the other quarters."""
    import cv2

    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    top, left = divmod(number, 2)
    part = pixels[top * height : (top + 1) * height, left * width : (left + 1) * width]
    return cv2.resize(part, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)


def _side_by_side(one: Any, other: Any) -> Any:
    import cv2
    import numpy as np

    height = max(one.shape[0], other.shape[0])
    sized = [cv2.resize(each, (each.shape[1] * height // each.shape[0], height)) for each in (one, other)]
    return np.hstack(sized)


def _decode(data: bytes) -> Any:
    import cv2
    import numpy as np

    return np.ascontiguousarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1])


def _jpeg(pixels: Any, quality: int) -> bytes:
    import cv2

    return cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _png(pixels: Any) -> bytes:
    import cv2

    return cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes()


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def copydet_pairs(output: str, pairs: str, clusters: str) -> dict[str, object]:
    """All pairs that a finished job has judged, and those that it reports; its clusters."""
    import pyarrow.parquet as pq

    from copydet.dedup.job import deduplicate

    def listed() -> set[tuple[str, str]]:
        table = pq.read_table(Path(output) / "pairs.parquet", columns=["query_id", "reference_id"])
        return set(zip(*(table[name].to_pylist() for name in ("query_id", "reference_id")), strict=True))

    reported = listed()
    members = pq.read_table(Path(output) / "clusters.parquet", columns=["cluster_id", "image_id"]).to_pylist()
    with open(clusters, "w", newline="") as file:
        csv.writer(file).writerows([("cluster", "image"), *((row["cluster_id"], row["image_id"]) for row in members)])
    deduplicate(Path(output) / "index", Path(output), precision=0.0001)
    table = pq.read_table(Path(output) / "pairs.parquet", columns=["query_id", "reference_id", "score"]).to_pylist()
    with open(pairs, "w", newline="") as file:
        lines = [(row["query_id"], row["reference_id"], row["score"]) for row in table]
        writer = csv.writer(file)
        writer.writerow(("one", "other", "score", "default"))
        writer.writerows((*line, int(line[:2] in reported)) for line in lines)
    return {"pairs": len(table), "reported": len(reported)}


def fastdup(photos: str, work: str, pairs: str, kind: str) -> dict[str, object]:
    """fastdup's own run over the folder (in its own environment); ten neighbours, so that groups are found whole."""
    import fastdup as peer

    job = peer.create(work_dir=work, input_dir=photos)
    job.run(threshold=0.7, ccthreshold=0.9, nearest_neighbors_k=10, num_threads=2, overwrite=True)
    found = job.similarity()
    with open(pairs, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("one", "other", "score"))
        for one, other, score in zip(found["filename_from"], found["filename_to"], found["distance"], strict=True):
            writer.writerow((Path(one).name, Path(other).name, score))
    return {"pairs": len(found)}


def imagededup(photos: str, work: str, pairs: str, kind: str) -> dict[str, object]:
    """One of imagededup's hashes over the folder (in an environment of its own)."""
    from types import ModuleType

    from copydet.descriptors.torchvision_guard import import_torchvision

    import_torchvision()
    # Its network is made, and its weights are fetched, when the module is imported; the hashes don't need it.
    network: Any = ModuleType("imagededup.methods.cnn")
    network.CNN = None
    sys.modules[network.__name__] = network
    from imagededup.methods import AHash, DHash, PHash, WHash

    method = {"ahash": AHash, "dhash": DHash, "phash": PHash, "whash": WHash}[kind](verbose=False)
    found = method.find_duplicates(image_dir=photos, max_distance_threshold=16, scores=True)
    with open(pairs, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("one", "other", "score"))
        writer.writerows((one, other, -distance) for one, near in found.items() for other, distance in near)
    return {"pairs": sum(map(len, found.values()))}


def same_thumbnails(photos: str, pairs: str, target: str) -> dict[str, object]:
    """The pairs of images that are nearly the same pixel by pixel at 24 x 24."""
    import cv2
    import numpy as np

    from copydet.evaluation.population import same_picture

    known: dict[str, Any] = {}

    def seen(name: str) -> Any:
        if name not in known:
            pixels = _decode((Path(photos) / name).read_bytes())
            known[name] = cv2.resize(pixels, (24, 24), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
        return known[name]

    cv2.setNumThreads(1)
    with open(pairs, newline="") as file, open(target, "w", newline="") as out:
        writer, count = csv.writer(out), 0
        for one, other in csv.reader(file):
            if same_picture(np.stack([seen(one)]), np.stack([seen(other)]))[0, 0]:
                writer.writerow((one, other))
                count += 1
    return {"same": count}


STAGES = {stage.__name__: stage for stage in (plant, copydet_pairs, fastdup, imagededup, same_thumbnails)}

if __name__ == "__main__":
    started = time.perf_counter()
    result = STAGES[sys.argv[1]](*sys.argv[2:])
    print("\n" + json.dumps({"seconds": time.perf_counter() - started} | result))
