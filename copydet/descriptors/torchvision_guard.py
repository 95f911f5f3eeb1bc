"""The one place that makes `import torchvision` work beside a CPU build of torch.

torchvision wheels from the package index are built for CUDA: beside a CPU torch their compiled extension cannot load,
so its operators are unknown, and `import torchvision` stops with "operator torchvision::nms does not exist" because a
module of it registers a shape function for `nms`. Declaring the two schemas that are registered that way is enough:
networks and transforms are plain Python on torch. Lost beside such a torch: torchvision's own JPEG decoder, `nms` and
`deform_conv2d`, none of which copydet uses.
"""

import importlib.util
from types import ModuleType

_declared: list[object] = []  # keeps the schemas registered for the life of the process


def import_torchvision() -> ModuleType:
    """Return the module torchvision; raises MissingPackage when torch or torchvision is not installed."""
    from copydet.errors import MissingPackage

    for package in ("torch", "torchvision"):
        if importlib.util.find_spec(package) is None:
            raise MissingPackage(package, "gpu")
    if not _declared and not _extension_loads():
        _declare_operators()
    import torchvision

    # Annotated because torchvision carries no types.
    module: ModuleType = torchvision
    return module


def _extension_loads() -> bool:
    """Try to load torchvision's compiled operators by themselves, without running torchvision's own imports."""
    import torch

    if hasattr(torch.ops.torchvision, "nms"):
        return True
    spec = importlib.util.find_spec("torchvision")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    from pathlib import Path

    for library in (path for folder in folders for path in sorted(Path(folder).glob("_C*.*"))):
        try:
            torch.ops.load_library(library)
        except OSError:
            return False
        return True
    return False


def _declare_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
