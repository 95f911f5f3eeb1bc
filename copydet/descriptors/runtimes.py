"""Opening the runtime that describes: CUDA where a kernel really runs, else OpenVINO, else torch on the CPU."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from copydet.descriptors.devices import cuda_problem, has_nvidia_driver
from copydet.descriptors.registry import Descriptor, is_external, load_descriptor
from copydet.errors import MissingPackage, UsageError
from copydet.records import Pixels, Vectors


class Runtime(Protocol):
    """What describes images.

    `name` says where and how exactly (`openvino-cpu-f32`, `torch-cuda-f16`); `batch_size` is how many images a call
    should bring to keep the device busy.
    """

    @property
    def descriptor(self) -> Descriptor: ...

    @property
    def name(self) -> str: ...

    @property
    def batch_size(self) -> int: ...

    def describe(self, pixels: Sequence[Pixels]) -> Vectors:
        """uint8 images [height, width, 3], resized as `descriptor.resize` says, any count -> float32 [n, dimension].

        Rows have length 1 and do not depend on how images are batched. Raises ValueError for pixels of another size or
        type.
        """
        ...


def open_runtime(descriptor: Descriptor, device: str = "auto", *, threads: int | None = None) -> Runtime:
    """Open `device`: auto | cpu (OpenVINO, else torch) | openvino | torch (on the CPU) | cuda | cuda:N.

    `threads` is the number of CPU threads (default: the CPUs this process may use). Raises UsageError when the device
    does not work or the descriptor is external, MissingPackage when its package is not installed.
    """
    if is_external(descriptor.name):
        raise UsageError(
            f"{descriptor.name} stands for what made embeddings elsewhere and can't describe images: give embeddings "
            "(--embeddings), or index them again with the --descriptor that made them"
        )
    if device == "auto":
        device = "cuda" if _has("torch") and has_nvidia_driver() and cuda_problem("cuda") is None else "cpu"
    if device == "cpu":
        device = _cpu_runtime(descriptor)
    if device == "openvino":
        from copydet.descriptors.openvino_runtime import OpenVinoRuntime

        return OpenVinoRuntime(descriptor, threads)
    if device != "torch" and device.partition(":")[0] != "cuda":
        raise UsageError(f"unknown device '{device}'; use auto, cpu, openvino, torch, cuda or cuda:N")
    if not _has("torch"):
        raise MissingPackage("torch", "gpu")
    if device != "torch" and (problem := cuda_problem(device)) is not None:
        raise UsageError(f"{device} does not work here: {problem}; use --device cpu, and see copydet doctor")
    return _open_torch(descriptor, device, threads)


@dataclass(frozen=True)
class SentRuntime:
    """A runtime that is opened, once in each process, where it first describes: what is sent to other machines."""

    descriptor: Descriptor
    device: str
    threads: int

    @property
    def name(self) -> str:
        return self._opened.name

    @property
    def batch_size(self) -> int:
        return self._opened.batch_size

    def describe(self, pixels: Sequence[Pixels]) -> Vectors:
        """As Runtime. Raises UsageError where the descriptor of that name is another one than here."""
        return self._opened.describe(pixels)

    @property
    def _opened(self) -> Runtime:
        return _open_once(self.descriptor.name, self.descriptor.hash, self.device, self.threads)


@lru_cache(maxsize=1)
def _open_once(name: str, content: str, device: str, threads: int) -> Runtime:
    descriptor = load_descriptor(name)  # its files may lie elsewhere here
    if descriptor.hash != content:
        raise UsageError(f"descriptor {name} has hash {descriptor.hash[:12]} here, not {content[:12]}")
    return open_runtime(descriptor, device, threads=threads)


def _open_torch(descriptor: Descriptor, device: str, threads: int | None) -> Runtime:
    import torch

    from copydet.descriptors.torch_runtime import TorchRuntime

    return TorchRuntime(descriptor, torch.device("cpu" if device == "torch" else device), threads)


def _cpu_runtime(descriptor: Descriptor) -> str:
    """`openvino` where the descriptor has a file for it and the package is there, else `torch`."""
    if "onnx" in descriptor.files and _has("openvino"):
        return "openvino"
    if _has("torch"):
        return "torch"
    # A checkpoint of others has no ONNX form: only torch reads it.
    raise MissingPackage("openvino", "cpu") if "onnx" in descriptor.files else MissingPackage("torch", "gpu")


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
