"""What a training run is told: one frozen record, read from a TOML file."""

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path

from copydet.errors import UsageError
from copydet.training.augment import GEOMETRY, LAYOUT
from copydet.training.photometric import EDITS


@dataclass(frozen=True)
class TrainConfig:
    """Field by field; the defaults suit a GPU (scripts/train_small/ has runs on two CPU cores)."""

    images: tuple[str, ...]  # sources of training images: folders, tars, Parquet, lists
    output: str  # folder for checkpoints, curves and the finished network
    trunk: str = "mobilenet_v2"
    frozen: int = 0  # first blocks of the trunk that stay as they start: 4 of MobileNetV2 save a quarter of a step
    start: str = ""  # safetensors: a pretrained trunk, or a network of an earlier run (its trunk, if the rest differs)
    dimension: int = 256
    size: int = 160  # pixels: views are size x size
    source_size: int = 192  # pixels: training images are kept at source_size x source_size on the device
    batch: int = 384  # images a step; each gives one light and two hard views
    steps: int = 3000
    warm_up: int = 150  # steps
    ramp: float = 0.3  # share of the steps over which the edits grow to full strength
    trunk_rate: float = 4e-4  # AdamW learning rates at the top of the schedule
    head_rate: float = 1e-3
    weight_decay: float = 0.02
    temperature: float = 0.05
    entropy_weight: float = 10.0
    patch_weight: float = 0.0
    norm_ratio_weight: float = 0.0
    teacher: str = ""  # a folder of a finished descriptor to distil from (relational KL over the bank)
    teacher_weight: float = 1.0
    look_alikes: float = 0.25  # share of each batch drawn from the nearest neighbours of the rest
    average: float = 0.998  # decay of the weight average (EMA) that is shipped
    held_out: frozenset[str] = field(default_factory=frozenset)  # edit families left out of training
    seed: int = 1
    save_every: int = 500  # steps
    measure_every: int = 1000  # steps
    device: str = "auto"
    compiled: bool = False  # torch.compile: a minute at the start, pays on long GPU runs


def read_config(path: Path) -> TrainConfig:
    """Read a TOML file of TrainConfig's fields; raises UsageError for unknown or missing fields and for wrong types."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    known = {f.name: f for f in fields(TrainConfig)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UsageError(f"{path}: unknown field '{unknown[0]}'; there are: {', '.join(known)}")
    for name in ("images", "output"):
        if name not in values:
            raise UsageError(f"{path}: field '{name}' is missing")
    images = values["images"]
    values["images"] = (images,) if isinstance(images, str) else tuple(images)
    values["held_out"] = frozenset(values.get("held_out", ()))
    for name, value in values.items():
        # bool is an int to Python; a wrong word in a config must not become a number.
        kinds = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
        wanted = kinds.get(getattr(known[name].type, "__name__", str(known[name].type)))
        if wanted and (not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)):
            raise UsageError(f"{path}: field '{name}' is {value!r}; expected {wanted[0].__name__}")
    families = {*EDITS, *GEOMETRY, *LAYOUT}
    strange = sorted(values["held_out"] - families)
    if strange:
        raise UsageError(f"{path}: held_out names '{strange[0]}'; edit families are: {', '.join(sorted(families))}")
    config = TrainConfig(**values)
    if config.size % 16 or config.source_size % 8 or min(config.size, config.source_size) < 32:
        raise UsageError(f"{path}: size must be a multiple of 16 and source_size of 8, both at least 32")
    if min(config.batch, config.steps, config.save_every, config.measure_every) < 1 or config.dimension < 8:
        raise UsageError(f"{path}: batch, steps, save_every and measure_every must be at least 1, dimension at least 8")
    if config.frozen < 0:
        raise UsageError(f"{path}: frozen is {config.frozen}; it counts blocks, 0 for none")
    return config
