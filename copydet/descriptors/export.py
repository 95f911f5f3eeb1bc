"""A torch network -> a descriptor folder that both runtimes read.

Matrices are rounded to float16 once, and both files hold the same rounded numbers, so torch and OpenVINO compute the
same function; vectors (batch norm statistics, biases) stay float32, for variances leave float16's range.
"""

import json
import warnings
from pathlib import Path

import torch
from torch import nn

from copydet.descriptors.registry import FILES, Descriptor, read_folder
from copydet.errors import MissingPackage
from copydet.images.resize import Resize

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def export_descriptor(
    folder: Path,
    network: nn.Module,
    *,
    name: str,
    trunk: str,
    dimension: int,
    resize: Resize,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Descriptor:
    """Write descriptor.toml, model.safetensors and model.onnx to `folder` and return the descriptor read back.

    `network`: float32 [n, 3, h, w] (normalised) -> float32 [n, dimension], rows of length 1, as `build_network` builds
    it for `trunk`, on any device; it is left as it was. Raises MissingPackage without onnx.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    stored = {key: _stored(value) for key, value in network.state_dict().items()}
    save_file(stored, folder / FILES["torch"])
    _write_onnx(folder / FILES["onnx"], network, stored, resize)
    (folder / "descriptor.toml").write_text(_config(name, trunk, dimension, resize, mean, std), encoding="utf-8")
    return read_folder(folder, str(folder.resolve()))


def _stored(value: torch.Tensor) -> torch.Tensor:
    rounded = value.half() if value.is_floating_point() and value.ndim > 1 else value
    return rounded.detach().cpu().contiguous().clone()


def _config(
    name: str,
    trunk: str,
    dimension: int,
    resize: Resize,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> str:
    lines = [f"name = {json.dumps(name)}", f"network = {json.dumps(trunk)}", f"dimension = {dimension}"]
    lines += [f"mean = {list(mean)}", f"std = {list(std)}", "", "[resize]"]
    return "\n".join([*lines, f'kind = "{resize.kind}"', f"size = {resize.size}", ""])


def _write_onnx(file: Path, network: nn.Module, stored: dict[str, torch.Tensor], resize: Resize) -> None:
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ModuleNotFoundError:
        raise MissingPackage("onnx", "train") from None
    _trace(file, network, stored, resize)
    model = onnx.load(file)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            name, values = tensor.name, numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(values.astype("float16"), f"{name}.float16"))
            casts.append(helper.make_node("Cast", [f"{name}.float16"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, file)


def _trace(file: Path, network: nn.Module, stored: dict[str, torch.Tensor], resize: Resize) -> None:
    """Write float32 ONNX of `network` with the weights `stored`.

    The older exporter is used (`dynamo=False`): it needs no package but onnx and writes a plain graph. `PRESERVE`
    keeps it from folding batch norm into convolutions, whose weights would then no longer be float16 numbers.
    """
    import copy

    traced = copy.deepcopy(network).cpu().float().eval()
    traced.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in stored.items()})
    axes = {"pixels": {0: "images", 2: "height", 3: "width"}, "vectors": {0: "images"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            traced,
            (torch.zeros(2, 3, resize.size, resize.size),),
            str(file),
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            input_names=["pixels"],
            output_names=["vectors"],
            dynamic_axes=axes,
        )
