"""A trained network -> a descriptor that can be used: weights in both forms, background bank, calibration."""

import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from copydet.descriptors.background import save_bank
from copydet.descriptors.registry import FILES, Descriptor, load_descriptor
from copydet.descriptors.runtimes import open_runtime
from copydet.evaluation.calibrate import calibrate_descriptor
from copydet.evaluation.vectors import describe_images, share_of
from copydet.images.resize import Resize
from copydet.images.sources import list_images
from copydet.progress import show

if TYPE_CHECKING:
    from copydet.descriptors.network import CopyNetwork

BANK_IMAGES = 20_000
_BANK_SHARE = 0.9  # of a small collection; the rest is for calibration, which must not use images of the bank


def finish_descriptor(
    network: "CopyNetwork",
    folder: Path,
    *,
    name: str,
    trunk: str,
    size: int,
    images: Sequence[str],
    calibration_images: int = 2000,
    device: str = "auto",
) -> Descriptor:
    """Write the descriptor folder of `network`, with a bank and a calibration made from `images` (training images).

    The network sees `size` x `size` pixels. Raises UsageError when there are too few images to calibrate on.
    """
    from copydet.descriptors.export import export_descriptor

    dimension = network.projection.out_features
    for stale in ("background", "calibration"):
        (folder / FILES[stale]).unlink(missing_ok=True)
    export_descriptor(folder, network, name=name, trunk=trunk, dimension=dimension, resize=Resize("square", size))
    write_bank(folder, images, device=device)
    calibrate_descriptor(folder, images, images=calibration_images, device=device)
    return load_descriptor(str(folder))


def write_bank(folder: Path, images: Sequence[str], *, device: str = "auto") -> None:
    """Describe the bank's images with the descriptor in `folder` and store them beside it.

    Taken are the images with the lowest `share_of`, at most BANK_IMAGES and never more than nine tenths: calibration
    and distractors take theirs from the other end.
    """
    total = sum(1 for _ in list_images(images))
    count = min(BANK_IMAGES, int(total * _BANK_SHARE))
    numbered = ((share_of(image.image_id), place, image) for place, image in enumerate(list_images(images)))
    chosen = sorted(heapq.nsmallest(count, numbered, key=lambda entry: entry[:2]), key=lambda entry: entry[1])
    runtime = open_runtime(load_descriptor(str(folder)), device)
    with show("describing the background bank", count) as progress:
        bank, failed = describe_images(runtime, (image for _, _, image in chosen), progress=progress)
        if failed:
            progress.note(f"{len(failed):,} images could not be described and are not in the bank")
    save_bank(folder / FILES["background"], bank.vectors)
