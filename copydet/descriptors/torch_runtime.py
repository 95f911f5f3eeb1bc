"""torch: CUDA in float16, or the CPU in float32.

Batches have a fixed shape, so a vector does not depend on its neighbours. On the CPU its last bits depend on the
number of threads (torch cuts sums among them), by less than float16 holds.
"""

import threading
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copydet.descriptors.batching import PixelBatch, fill, make_batches
from copydet.descriptors.registry import Descriptor
from copydet.errors import UsageError
from copydet.records import Pixels, Vectors

# Images a batch: a GPU wants many, a CPU's caches few. Where shapes differ, batches are small since most are not full.
_SQUARE = {"cuda": 256, "cpu": 8}
_SHORT_EDGE = {"cuda": 8, "cpu": 1}


class TorchRuntime:
    """Describes with torch on `device`; safe to call from several threads (one call at a time computes)."""

    def __init__(self, descriptor: Descriptor, device: torch.device, threads: int | None = None) -> None:
        if threads is not None and device.type == "cpu":
            torch.set_num_threads(threads)
        self.descriptor = descriptor
        self._device = device
        # A TorchScript file holds somebody's traced graph: autocast would change it in ways nobody tested.
        self._half = device.type == "cuda" and descriptor.network != "torchscript"
        self.name = f"torch-{device.type}-{'f16' if self._half else 'f32'}"
        square = descriptor.resize.kind == "square"
        self._images = (_SQUARE if square else _SHORT_EDGE)[device.type]
        self.batch_size = (1024 if square else 256) if device.type == "cuda" else 32
        self._network = load_network(descriptor).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean = (255 * torch.tensor(descriptor.mean, device=device)).view(1, 3, 1, 1)
        self._std = (255 * torch.tensor(descriptor.std, device=device)).view(1, 3, 1, 1)
        self._lock = threading.Lock()

    def describe(self, pixels: Sequence[Pixels]) -> Vectors:
        """uint8 images [height, width, 3] of the size that the descriptor wants -> float32 [n, dimension], rows of
        length 1.
        """
        vectors = np.empty((len(pixels), self.descriptor.dimension), np.float32)
        with self._lock, torch.inference_mode():
            self._compute(pixels, make_batches(pixels, self.descriptor.resize, self._images), vectors, half=self._half)
            if self._half and not np.isfinite(vectors).all():
                # An activation left float16's range, which no photo was seen to do: those images in float32.
                for position in np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist():
                    height, width, _ = pixels[position].shape
                    self._compute(pixels, [PixelBatch((height, width), (position,))], vectors, half=False)
        return vectors

    def _compute(self, pixels: Sequence[Pixels], work: list[PixelBatch], vectors: Vectors, *, half: bool) -> None:
        with torch.autocast("cuda", torch.float16) if half else nullcontext():
            # All batches start before the first is waited for: filling the next overlaps with computing this one.
            started = [(batch, self._network(self._input(pixels, batch))) for batch in work]
        for batch, rows in started:
            unit = F.normalize(rows[: len(batch.positions)].float(), dim=1)
            vectors[list(batch.positions)] = unit.cpu().numpy()

    def _input(self, pixels: Sequence[Pixels], batch: PixelBatch) -> Tensor:
        """Normalised float32 [images, 3, height, width]: NHWC in memory, which is what torch calls channels_last."""
        shape = (self._images, *batch.shape, 3)
        encoded = torch.empty(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        fill(encoded.numpy(), pixels, batch)
        on_device = encoded.to(self._device, non_blocking=True).permute(0, 3, 1, 2).float()
        return on_device.sub_(self._mean).div_(self._std)


def load_network(descriptor: Descriptor) -> nn.Module:
    """The descriptor's network in float32, eval mode: float [n, 3, h, w] (normalised) -> float [n, dimension]."""
    if descriptor.network == "torchscript" or descriptor.network.startswith("sscd_"):
        from copydet.descriptors.sscd import load_checkpoint

        return load_checkpoint(descriptor)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from copydet.descriptors.network import NetworkSpec, build_network

    network = build_network(NetworkSpec(descriptor.network, descriptor.dimension))
    file = descriptor.files["torch"]
    try:
        network.load_state_dict({key: _to_float32(value) for key, value in load_file(file).items()})
    except (SafetensorError, RuntimeError) as error:
        detail = str(error).strip().rpartition("\n")[2].strip()
        raise UsageError(f"{file} does not hold the weights of a {descriptor.network}: {detail}") from None
    return network.eval()


def _to_float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value
