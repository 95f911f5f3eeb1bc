"""The networks that copydet can train and ship: a trunk, GeM pooling, a projection, L2 normalisation.

A descriptor's projection already holds the whitening (a linear map after a linear map is one linear map), so nothing
but the network stands between pixels and vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from copydet.errors import UsageError


@dataclass(frozen=True)
class NetworkSpec:
    """Which trunk, and the length of the vector that comes out."""

    trunk: str
    dimension: int


class GeM(nn.Module):
    """Generalised mean pooling, y_c = mean(max(x_c, 1e-6)^p)^(1/p) (SSCD, section 4.1; p is a constant there and
    here).
    """

    def __init__(self, p: float = 3.0) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """float [n, c, h, w] -> float [n, c]."""
        return x.clamp(min=1e-6).pow(self.p).mean(dim=(2, 3)).pow(1.0 / self.p)


class CopyNetwork(nn.Module):
    """Trunk -> GeM -> projection -> L2 norm. `stride_16` yields the mid-level map that the patch loss reads."""

    def __init__(
        self, stride_16: nn.Sequential, rest: nn.Module, channels: int, map_channels: int, dimension: int
    ) -> None:
        super().__init__()
        self.stride_16 = stride_16
        self.rest = rest
        self.pool = GeM()
        self.projection = nn.Linear(channels, dimension)
        self.map_channels = map_channels

    def pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """float [n, 3, h, w] (normalised) -> (pooled [n, channels], stride-16 map [n, map_channels, h/16, w/16])."""
        middle = self.stride_16(x)
        # GeM cubes its input: half precision would overflow from 40 on.
        return self.pool(self.rest(middle).float()), middle

    def forward(self, x: Tensor) -> Tensor:
        """float [n, 3, h, w] (normalised) -> float [n, dimension], rows of length 1."""
        return F.normalize(self.projection(self.pooled(x)[0]), dim=1)


def _mobilenet_v2() -> tuple[nn.Sequential, nn.Module, int, int]:
    from copydet.descriptors.torchvision_guard import import_torchvision

    features = import_torchvision().models.mobilenet_v2(weights=None).features
    return features[:14], features[14:], 1280, 96


def _mobilenet_v2_s16() -> tuple[nn.Sequential, nn.Module, int, int]:
    """MobileNetV2 up to where it would halve the map to stride 32: what copies share is finer than that."""
    from copydet.descriptors.torchvision_guard import import_torchvision

    features = import_torchvision().models.mobilenet_v2(weights=None).features
    return features[:14], features[14].conv[0], 576, 96


class _BottleneckV2(nn.Module):
    """Pre-activation bottleneck (He et al. 2016, Identity Mappings in Deep Residual Networks, figure 4e)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        middle = outputs // 4
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, middle, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
        changes = stride != 1 or inputs != outputs
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(activated)
        y = self.conv1(activated)
        y = self.conv2(F.relu(self.bn2(y)))
        y = self.conv3(F.relu(self.bn3(y)))
        total: Tensor = shortcut + y
        return total


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = _BottleneckV2(inputs, outputs, stride)
    return nn.Sequential(first, *(_BottleneckV2(outputs, outputs, 1) for _ in range(blocks - 1)))


def _resnet50v2_s3() -> tuple[nn.Sequential, nn.Module, int, int]:
    """ResNet-50 v2 up to its third stage: stride 16, 1024 channels, 8.5 M parameters."""
    stem = [
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    stages = [_stage(64, 256, 3, 1), _stage(256, 512, 4, 2), _stage(512, 1024, 6, 2)]
    return nn.Sequential(*stem, *stages), nn.Sequential(nn.BatchNorm2d(1024), nn.ReLU()), 1024, 1024


TRUNKS: dict[str, Callable[[], tuple[nn.Sequential, nn.Module, int, int]]] = {
    "mobilenet_v2": _mobilenet_v2,
    "mobilenet_v2_s16": _mobilenet_v2_s16,
    "resnet50v2_s3": _resnet50v2_s3,
}


def build_network(spec: NetworkSpec) -> CopyNetwork:
    """Return the untrained network of `spec`, in eval mode; raises UsageError for an unknown trunk."""
    if spec.trunk not in TRUNKS:
        raise UsageError(f"unknown network '{spec.trunk}'; there are: {', '.join(TRUNKS)}")
    stride_16, rest, channels, map_channels = TRUNKS[spec.trunk]()
    return CopyNetwork(stride_16, rest, channels, map_channels, spec.dimension).eval()


def load_trunk(network: CopyNetwork, trunk: str, path: Path) -> None:
    """Load pretrained trunk weights (safetensors) into `network`.

    MobileNetV2's files carry torchvision's keys (`features.N...`) or those of a finished network; other files carry
    the keys of this module. A projection in the file is left there.
    """
    from safetensors.torch import load_file

    weights = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    weights = {k: v for k, v in weights.items() if not k.startswith("projection.")}
    if trunk.startswith("mobilenet_v2"):
        weights = _rename_mobilenet_keys(weights, whole=trunk == "mobilenet_v2")
    shapes = {k: v.shape for k, v in network.state_dict().items()}
    fitting = {k: v for k, v in weights.items() if shapes.get(k, v.shape) == v.shape}
    missing, unexpected = network.load_state_dict(fitting, strict=False)
    optional = ("projection.", "num_batches_tracked")
    unknown = [k for k in missing if not any(name in k for name in optional)] + list(unexpected)
    if unknown:
        raise UsageError(f"{path}: not a {trunk} trunk: {len(unknown)} keys differ, the first is '{unknown[0]}'")


def _rename_mobilenet_keys(weights: dict[str, Tensor], *, whole: bool) -> dict[str, Tensor]:
    """torchvision's `features.N.*` -> `stride_16.N.*` for N < 14, `rest.N.*` above (slices of a Sequential keep its
    numbers); of these, a trunk that is not `whole` has the expansion of block 14 alone, whose own layers are 0 and 1.
    """
    renamed = {}
    for key, value in weights.items():
        part, _, tail = key.partition(".")
        number = tail.partition(".")[0]
        if part == "features" and number.isdecimal():
            part = "stride_16" if int(number) < 14 else "rest"
        name = f"{part}.{tail}"
        if part == "rest" and not whole and not (number.isdecimal() and int(number) < 14):
            expansion = name.partition("rest.14.conv.0.")[2]
            if not expansion:
                continue
            name = f"rest.{expansion}"
        renamed[name] = value
    return renamed
