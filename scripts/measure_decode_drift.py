"""Measure how far a descriptor moves when a JPEG is scaled down inside its decoder instead of decoded whole.

    .venv/bin/python scripts/measure_decode_drift.py --descriptor small --images ../shared/data/dev/references

Each JPEG is decoded whole and resized, and decoded at 1/2, 1/4 and 1/8 and resized; the cosine between the two
descriptors is the drift. Rows are grouped by how large the reduced image is, in units of what the descriptor wants
(1.0: just as large, the least that decode() accepts). Re-encoding the whole image at quality 90 is the yardstick: a
change that no one sees. The last row is what decode() itself does, over all images.
"""

import argparse
import sys
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from copydet.descriptors.registry import load_descriptor
from copydet.descriptors.runtimes import open_runtime
from copydet.errors import CopydetError, ImageProblem
from copydet.images.decode import decode
from copydet.images.resize import Resize, resize_pixels
from copydet.images.sources import list_images
from copydet.records import Pixels, Vectors

_EDGES = (0.5, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0, 4.0)
_FLAGS = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--descriptor", default="small", help="name or folder (default: small)")
    parser.add_argument("--images", nargs="+", required=True, help="sources with JPEG files")
    parser.add_argument("--limit", type=int, default=300, help="how many JPEGs, spread over the sources (default: 300)")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    try:
        runtime = open_runtime(load_descriptor(arguments.descriptor), arguments.device)
        resize = runtime.descriptor.resize
        jpegs = list(_jpegs(arguments.images, arguments.limit))
    except CopydetError as error:
        sys.exit(f"measure_decode_drift: {error}")

    def describe(pixels: list[Pixels]) -> Vectors:
        return runtime.describe(pixels)

    _report(jpegs, resize, describe)


def _report(jpegs: list[bytes], resize: Resize, describe: Callable[[list[Pixels]], Vectors]) -> None:
    wholes = [_opencv(data, cv2.IMREAD_COLOR) for data in jpegs]
    reference = describe([resize_pixels(whole, resize) for whole in wholes])
    print(f"{len(jpegs)} JPEGs, resize {resize.kind} {resize.size}")
    print(f"{'road':24} {'images':>6} {'mean':>8} {'1 %':>8} {'least':>8}")
    again = [_opencv(cv2.imencode(".jpg", w[:, :, ::-1], [1, 90])[1].tobytes(), cv2.IMREAD_COLOR) for w in wholes]
    _print("quality 90", np.einsum("nd,nd->n", describe([resize_pixels(a, resize) for a in again]), reference))
    shares, cosines = [], []
    for factor, flag in _FLAGS.items():
        reduced = [_opencv(data, flag) for data in jpegs]
        cosines.append(np.einsum("nd,nd->n", describe([resize_pixels(each, resize) for each in reduced]), reference))
        shares.append([_share(whole, resize) / factor for whole in wholes])
    share, cosine = np.ravel(shares), np.ravel(cosines)
    for low, high in zip(_EDGES, (*_EDGES[1:], np.inf), strict=True):
        _print(f"reduced to {low:g}-{high:g}", cosine[(share >= low) & (share < high)])
    _print("decode()", np.einsum("nd,nd->n", describe([decode(data, resize).pixels for data in jpegs]), reference))


def _jpegs(sources: list[str], limit: int) -> Iterator[bytes]:
    """Upright JPEGs, evenly spread."""
    images = list(list_images(sources))
    found = 0
    for image in images[:: max(len(images) // (limit * 2), 1)]:
        try:
            data = image.read()
            decoded = decode(data, Resize("none"))
        except ImageProblem:
            continue
        upright = decoded.format == "jpeg" and decoded.pixels.shape[:2] == _opencv(data, cv2.IMREAD_COLOR).shape[:2]
        if upright:
            yield data
            found += 1
        if found == limit:
            return


def _opencv(data: bytes, flag: int) -> Pixels:
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.ascontiguousarray(decoded[:, :, ::-1])


def _share(whole: Pixels, resize: Resize) -> float:
    """How many times the whole image is as large as what the descriptor wants, in the tighter direction."""
    width, height = resize.target(whole.shape[1], whole.shape[0])
    return min(whole.shape[1] / width, whole.shape[0] / height)


def _print(road: str, cosines: np.ndarray) -> None:
    if len(cosines):
        least, low, mean = cosines.min(), np.percentile(cosines, 1), cosines.mean()
        print(f"{road:24} {len(cosines):6} {mean:8.4f} {low:8.4f} {least:8.4f}")


if __name__ == "__main__":
    main()
