#!/usr/bin/env python
"""Train the codec of local features that copydet ships (copydet/local_features/weights/codec.safetensors).

    .venv/bin/python scripts/train_local_codec.py "../shared/data/train/shard-{000..010}.tar" --output codec.safetensors

Edits each image once, learns what stays alike, and prints how alike the codec finds pairs of features that show the
same place, and features of different images, among a tenth of the images that it did not learn from.
"""

import argparse
import sys
from pathlib import Path

from copydet.errors import CopydetError
from copydet.local_features.codes import save_codec
from copydet.progress import show
from copydet.training.local_codec import OTHER_PERCENTILES, PAIR_PERCENTILES, train_local_codec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="folders, tars, lists of training images")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the codec, as .safetensors")
    parser.add_argument("--images", type=int, default=2500, help="how many images to draw (default: 2500)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives another codec (default: 0)")
    arguments = parser.parse_args()
    if not arguments.output.parent.is_dir():
        sys.exit(f"train_local_codec: {arguments.output.parent}: no such folder; make it first")
    try:
        with show("images", arguments.images) as progress:
            codec, found = train_local_codec(arguments.sources, arguments.images, arguments.seed, progress=progress)
    except CopydetError as error:
        sys.exit(f"train_local_codec: {error}")
    save_codec(arguments.output, codec)
    print(f"{arguments.output}: {arguments.output.stat().st_size:,} bytes")
    rows = (("pairs", PAIR_PERCENTILES, found.pairs), ("others", OTHER_PERCENTILES, found.others))
    for name, percentiles, cosines in rows:
        cells = (f"{percentile:g} % {cosine:.3f}" for percentile, cosine in zip(percentiles, cosines, strict=True))
        print(f"cosine of {name}: {', '.join(cells)}")


if __name__ == "__main__":
    main()
