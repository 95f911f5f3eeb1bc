"""OpenVINO on the CPU: reads model.onnx, no torch.

Each stream computes with one thread, so a vector does not depend on how many threads there are, and streams never wait
for each other. uint8 pixels go in as they are: conversion and normalisation are the model's first operations.

Precision is float32 also where the CPU has bfloat16, which OpenVINO would take by itself: on photos, weights rounded to
bfloat16 alone move a vector of MobileNetV2 to a cosine of .986 (tests/descriptors/test_precision.py).
"""

import importlib.util
import sys
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from copydet.descriptors.batching import PixelBatch, fill, make_batches
from copydet.descriptors.registry import Descriptor
from copydet.errors import MissingPackage, UsageError
from copydet.process import usable_cpus
from copydet.records import Pixels, Vectors

# Fixed shape of one request: larger gained nothing with one thread a stream, and a single query pays for the padding.
REQUEST_IMAGES = 4


def import_openvino() -> ModuleType:
    """Return the module openvino without its telemetry; raises MissingPackage.

    `import openvino` reports itself to a web service through the package openvino_telemetry unless that is missing, in
    which case OpenVINO falls back to a stub of its own. copydet opens no connection, so it is made to look missing for
    the import.
    """
    if importlib.util.find_spec("openvino") is None:
        raise MissingPackage("openvino", "cpu")
    hidden = "openvino_telemetry" not in sys.modules
    if hidden:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if hidden:
            del sys.modules["openvino_telemetry"]
    module: ModuleType = openvino
    return module


class OpenVinoRuntime:
    """Describes on the CPU with OpenVINO; safe to call from several threads (one call at a time computes)."""

    def __init__(self, descriptor: Descriptor, threads: int | None = None) -> None:
        if "onnx" not in descriptor.files:
            raise UsageError(f"descriptor {descriptor.name} has no model.onnx for OpenVINO; use --device torch")
        self.descriptor, self.name = descriptor, "openvino-cpu-f32"
        streams = threads or usable_cpus()
        self.batch_size = 8 * REQUEST_IMAGES * streams
        self._images = REQUEST_IMAGES if descriptor.resize.kind == "square" else 1
        core = import_openvino().Core()
        model = _read_model(core, descriptor, self._images)
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            "INFERENCE_PRECISION_HINT": "f32",
            # A stream pinned to a core that another process keeps busy waits for it while another core idles: seven
            # times slower beside one busy process, no faster on an idle machine.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(model, "CPU", settings)
        self._requests = [compiled.create_infer_request() for _ in range(streams)]
        self._lock = threading.Lock()

    def describe(self, pixels: Sequence[Pixels]) -> Vectors:
        """uint8 images [height, width, 3] of the size that the descriptor wants -> float32 [n, dimension], rows of
        length 1.
        """
        vectors = np.empty((len(pixels), self.descriptor.dimension), np.float32)
        work = make_batches(pixels, self.descriptor.resize, self._images)
        slots = len(self._requests)
        with self._lock:
            try:
                for number, batch in enumerate(work):
                    if number >= slots:
                        self._collect(number % slots, work[number - slots], vectors)
                    self._start(number % slots, pixels, batch)
                for number in range(max(0, len(work) - slots), len(work)):
                    self._collect(number % slots, work[number], vectors)
            finally:
                for request in self._requests:  # an interrupted call must leave no request running
                    request.wait()
        return vectors

    def _collect(self, slot: int, batch: PixelBatch, vectors: Vectors) -> None:
        self._requests[slot].wait()
        rows = self._requests[slot].get_output_tensor().data
        vectors[list(batch.positions)] = rows[: len(batch.positions)]

    def _start(self, slot: int, pixels: Sequence[Pixels], batch: PixelBatch) -> None:
        request, shape = self._requests[slot], (self._images, *batch.shape, 3)
        if tuple(request.get_input_tensor().shape) != shape:
            request.get_input_tensor().shape = shape
        fill(request.get_input_tensor().data, pixels, batch)
        request.start_async()


def _read_model(core: Any, descriptor: Descriptor, images: int) -> Any:
    """The network with uint8 [images, height, width, 3] input; height and width stay open for `short_edge`."""
    from openvino import Layout, Type
    from openvino.preprocess import PrePostProcessor

    try:
        model = core.read_model(descriptor.files["onnx"])
    except RuntimeError as error:
        detail = str(error).strip().rpartition("\n")[2]
        raise UsageError(f"OpenVINO cannot read {descriptor.files['onnx']}: {detail}") from None
    side = descriptor.resize.size if descriptor.resize.kind == "square" else -1
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(Type.u8).set_layout(Layout("NHWC")).set_shape([images, side, side, 3])
    steps.input().model().set_layout(Layout("NCHW"))
    to_float = steps.input().preprocess().convert_element_type(Type.f32)
    to_float.mean([255 * v for v in descriptor.mean]).scale([255 * v for v in descriptor.std])
    model = steps.build()
    model.reshape([images, side, side, 3])
    return model
