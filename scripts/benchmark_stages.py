"""What scripts/benchmark_index.py times, each in a process of its own: prints one JSON line with what it measured.

The peers run in virtual environments of their own, where copydet is not installed: imports stay inside the functions.
"""

import json
import random
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path


def prepare(tars: str, count: str, folder: str) -> dict[str, object]:
    """The first `count` images of the tars as JPEG files of quality 90, which every contender then reads."""
    import cv2
    import numpy as np

    target = Path(folder)
    for name, data in _members(Path(tars), int(count)):
        file = target / f"{Path(name).stem}.jpg"
        if not file.exists():
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            file.write_bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return {"images": len(list(target.iterdir()))}


def cut_tar(tars: str, count: str, target: str) -> dict[str, object]:
    """A tar of the first `count` images of the tars, for the peak of memory."""
    import io

    written = 0
    with tarfile.open(target, "w") as out:
        for name, data in _members(Path(tars), int(count)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
            written += 1
    return {"images": written}


def _members(tars: Path, count: int) -> Iterator[tuple[str, bytes]]:
    left = count
    for path in sorted(tars.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if left == 0:
                    return
                if file is not None:
                    left -= 1
                    yield member.name, file.read()
    if left:
        sys.exit(f"{tars} holds {count - left} images, {count} were asked for")


def decode(photos: str, descriptor: str) -> dict[str, object]:
    """The loader alone, as the pipeline runs it: files to resized pixels."""
    from copydet.process import prepare_process

    prepare_process()
    from copydet.descriptors.registry import load_descriptor
    from copydet.images.loader import load
    from copydet.images.sources import list_images
    from copydet.process import usable_cpus

    resize = load_descriptor(descriptor).resize
    images = sum(1 for _ in list_images([photos]))
    started = time.perf_counter()
    batches = load(list_images([photos]), resize, batch_size=64, workers=usable_cpus())
    done = sum(len(batch.ok) for batch in batches)
    return {"images": images, "decoded": done, "seconds": time.perf_counter() - started}


def forward(photos: str, descriptor: str, seconds: str) -> dict[str, object]:
    """The network alone, on pixels that are already in memory, for at least `seconds`."""
    from copydet.process import prepare_process

    prepare_process()
    from copydet.descriptors.registry import load_descriptor
    from copydet.descriptors.runtimes import open_runtime
    from copydet.images.loader import load
    from copydet.images.sources import list_images

    runtime = open_runtime(load_descriptor(descriptor))
    pixels = []
    for batch in load(list_images([photos]), runtime.descriptor.resize, batch_size=64, workers=2):
        pixels += batch.pixels
        if len(pixels) >= 256:
            break
    runtime.describe(pixels)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < float(seconds):
        runtime.describe(pixels)
        done += len(pixels)
    return {"images": done, "seconds": time.perf_counter() - started, "runtime": runtime.name}


def fastdup(photos: str, work: str) -> dict[str, object]:
    """fastdup's own run over the folder (in its own environment)."""
    import fastdup as peer

    images = len(list(Path(photos).iterdir()))
    started = time.perf_counter()
    job = peer.create(work_dir=work, input_dir=photos)
    job.run(ccthreshold=0.9, threshold=0.9, num_threads=2, overwrite=True)
    return {"images": images, "seconds": time.perf_counter() - started}


def pdq(photos: str, processes: str) -> dict[str, object]:
    """PDQ hashes of every file (in an environment with pdqhash and OpenCV)."""
    from multiprocessing import Pool

    files = [str(file) for file in sorted(Path(photos).iterdir())]
    random.Random(0).shuffle(files)  # both kinds of photo in both halves
    started = time.perf_counter()
    if processes == "1":
        done = _hash_files(files)
    else:
        with Pool(int(processes)) as pool:
            done = sum(pool.imap_unordered(_hash_files, [files[i : i + 64] for i in range(0, len(files), 64)]))
    return {"images": done, "seconds": time.perf_counter() - started}


def _hash_files(files: list[str]) -> int:
    import cv2
    import pdqhash

    cv2.setNumThreads(1)
    for file in files:
        pdqhash.compute(cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB))
    return len(files)


STAGES = {stage.__name__: stage for stage in (prepare, cut_tar, decode, forward, fastdup, pdq)}

if __name__ == "__main__":
    print("\n" + json.dumps(STAGES[sys.argv[1]](*sys.argv[2:])))
