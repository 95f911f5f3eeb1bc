#!/usr/bin/env python
"""Train what whitens the gists that copydet ships (copydet/local_features/weights/gist.safetensors).

.venv/bin/python scripts/train_gist.py "../shared/data/train/shard-{000..010}.tar" --output gist.safetensors
"""

import argparse
import sys
from pathlib import Path

from copydet.errors import CopydetError
from copydet.images.sources import list_images
from copydet.local_features.gist import save_gist
from copydet.progress import show
from copydet.training.gist import train_gist


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="folders, tars, lists of training images")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="as .safetensors")
    arguments = parser.parse_args()
    if not arguments.output.parent.is_dir():
        sys.exit(f"train_gist: {arguments.output.parent}: no such folder; make it first")
    try:
        with show("images", sum(1 for _ in list_images(arguments.sources))) as progress:
            mean, projection = train_gist(arguments.sources, progress)
    except CopydetError as error:
        sys.exit(f"train_gist: {error}")
    save_gist(arguments.output, mean, projection)
    print(f"{arguments.output}: {arguments.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
