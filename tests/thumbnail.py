"""A descriptor that needs no training: a projection of the 8 x 8 thumbnail, as an ONNX graph for OpenVINO."""

from pathlib import Path

import numpy as np
import onnx
import skimage
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from copydet.descriptors.background import save_bank

DIMENSION = 32
SIZE = 32


def make_thumbnail_descriptor(folder: Path, seed: int = 7, bank: int = 50) -> Path:
    """Write the folder; another `seed` is another descriptor. `bank` entries of noise, 0 for none."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((3 * 8 * 8, DIMENSION)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["pixels"], ["small"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["small"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["projected"]),
        helper.make_node("LpNormalization", ["projected"], ["vectors"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "thumbnail",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["images", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["images", DIMENSION])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), folder / "model.onnx")
    save_file({"weights": weights}, folder / "model.safetensors")
    (folder / "descriptor.toml").write_text(
        f'name = "thumbnail"\nnetwork = "thumbnail"\ndimension = {DIMENSION}\n'
        f'mean = [0.5, 0.5, 0.5]\nstd = [0.25, 0.25, 0.25]\n\n[resize]\nkind = "square"\nsize = {SIZE}\n'
    )
    if bank:
        vectors = rng.standard_normal((bank, DIMENSION))
        save_bank(folder / "background.safetensors", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return folder


def installed_photos() -> list[Path]:
    """Photos that scikit-image carries."""
    names = (
        "astronaut.png",
        "coffee.png",
        "chelsea.png",
        "rocket.jpg",
        "camera.png",
        "coins.png",
        "page.png",
        "text.png",
    )
    return [path for name in names if (path := Path(skimage.data_dir) / name).is_file()]
