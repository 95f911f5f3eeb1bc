"""The training loop: SSCD's objective over light and hard views, with a bank of all training images as negatives.

Everything random in a step is drawn from a seed made of the run's seed and the step's number, so a run resumed from a
checkpoint continues exactly as if it had not stopped.
"""

import copy
import csv
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from copydet.descriptors.network import CopyNetwork, NetworkSpec, build_network, load_trunk
from copydet.errors import UsageError
from copydet.progress import Progress, Silent
from copydet.records import Pixels, Vectors
from copydet.training import losses
from copydet.training.augment import Augmenter
from copydet.training.checkpoint import State, load_checkpoint, save_checkpoint
from copydet.training.config import TrainConfig
from copydet.training.data import near_identical_groups, read_images
from copydet.training.folding import FoldedNetwork
from copydet.training.glyphs import draw_glyphs
from copydet.training.objective import view_losses
from copydet.training.pixels import normalise
from copydet.training.projection import solve_projection
from copydet.training.warp import make_sources

PATCH_CHANNELS = 64

Measure = Callable[[CopyNetwork], dict[str, float]]


@torch.no_grad()
def describe_pixels(network: CopyNetwork, pixels: Sequence[Pixels], block: int = 64) -> Vectors:
    """Describe uint8 images [size, size, 3], all of one size, where the network is: float32 [n, dimension]."""
    device = network.projection.weight.device
    parts = [np.zeros((0, network.projection.out_features), np.float32)]
    for start in range(0, len(pixels), block):
        images = torch.from_numpy(np.stack(pixels[start : start + block])).to(device).permute(0, 3, 1, 2)
        parts.append(network(normalise(images.float() / 255)).cpu().numpy())
    return np.concatenate(parts)


def choose_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def train(
    config: TrainConfig,
    measure: Measure | None = None,
    progress: Progress | None = None,
    *,
    describe_at: int | None = None,
) -> CopyNetwork:
    """Train as `config` says and return the averaged network; resumes from `output`/checkpoint.pt if there is one.

    Its projection is the best for images of `describe_at` pixels (default: those it was trained at).

    `measure` is called with the averaged network every `measure_every` steps; what it returns goes to curves.csv
    beside the losses.
    """
    progress = progress or Silent()
    device = choose_device(config.device)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    pixels, aspects = read_images(config.images, config.source_size, progress)
    sources = make_sources(pixels.to(device), aspects.to(device))
    groups = near_identical_groups(sources.levels[0])
    augmenter = Augmenter(sources, draw_glyphs(600, config.seed).to(device), config.size, config.held_out)
    state = _start(config, augmenter, device, progress)
    teacher = Teacher(config.teacher, augmenter) if config.teacher else None
    folded = FoldedNetwork(state.network)
    step_network = torch.compile(folded) if config.compiled else folded
    curves = Curves(output / "curves.csv", state.step)
    while state.step < config.steps:
        began = time.monotonic()
        row = train_step(config, state, augmenter, groups, step_network, teacher)
        if state.step % 50 == 0 or state.step == config.steps:
            curves.add(
                state.step, {**{k: float(v) for k, v in row.items()}, "seconds_a_step": time.monotonic() - began}
            )
        if measure and (state.step % config.measure_every == 0 or state.step == config.steps):
            found = measure(state.average)
            curves.add(state.step, found)
            progress.note(f"step {state.step}: " + ", ".join(f"{k} {v:.3f}" for k, v in found.items()))
        if state.step % config.save_every == 0 or state.step == config.steps:
            save_checkpoint(output / "checkpoint.pt", state)
        progress.advance(config.batch)
    finished = copy.deepcopy(state.average)
    torch.manual_seed(config.seed)  # the same after a resumed run
    views = Augmenter(sources, augmenter.glyphs, describe_at or config.size, config.held_out)
    solve_projection(finished, views)
    return finished


def _start(config: TrainConfig, augmenter: Augmenter, device: torch.device, progress: Progress) -> State:
    torch.manual_seed(config.seed)
    network = build_network(NetworkSpec(config.trunk, config.dimension))
    whole = bool(config.start) and _load_start(network, config)
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.stride_16[: config.frozen].requires_grad_(False)
    patch_head = nn.Conv2d(network.map_channels, PATCH_CHANNELS, 1).to(device)
    checkpoint = Path(config.output) / "checkpoint.pt"
    resumed = checkpoint.exists()
    if not config.start and not resumed:
        measure_batch_norm(network, augmenter)
    if not whole and not resumed:
        solve_projection(network, augmenter)
    head = [*network.projection.parameters(), *patch_head.parameters()]
    trunk = [*network.stride_16.parameters(), *network.rest.parameters()]
    optimiser = torch.optim.AdamW(
        [{"params": trunk, "peak": config.trunk_rate}, {"params": head, "peak": config.head_rate}],
        lr=config.trunk_rate,
        weight_decay=config.weight_decay,
    )
    average = copy.deepcopy(network).requires_grad_(False)
    bank = torch.zeros(augmenter.sources.count, config.dimension, device=device)
    state = State(network, patch_head, average, optimiser, bank)
    if resumed:
        load_checkpoint(checkpoint, state)
        progress.note(f"resuming at step {state.step} from {checkpoint}")
    else:
        fill_bank(state, augmenter)
    return state


def _load_start(network: CopyNetwork, config: TrainConfig) -> bool:
    """Load `config.start`; true if it held a whole network of this form, projection included."""
    from safetensors import safe_open
    from safetensors.torch import load_model

    path = Path(config.start)
    if not path.exists():
        raise UsageError(f"{path}: no such file; `start` names pretrained weights (safetensors)")
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        whole = "projection.weight" in names
        whole = whole and file.get_slice("projection.weight").get_shape() == list(network.projection.weight.shape)
    if whole:
        load_model(network, path)
    else:
        load_trunk(network, config.trunk, path)
    return whole


@torch.no_grad()
def measure_batch_norm(network: CopyNetwork, augmenter: Augmenter, batches: int = 8, block: int = 64) -> None:
    """Set the statistics of a random trunk from light views; they stay frozen in training, as those of pretrained
    trunks do.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over the batches seen
    network.train()
    for index in torch.randint(0, augmenter.sources.count, (batches, block), device=augmenter.sources.aspects.device):
        network(normalise(augmenter.light(index).float()))
    network.eval()


@torch.no_grad()
def fill_bank(state: State, augmenter: Augmenter, block: int = 512) -> None:
    """Describe the light view of every training image."""
    for index in torch.arange(augmenter.sources.count, device=state.bank.device).split(block):
        state.bank[index] = state.network(normalise(augmenter.light(index).float()))


def schedule(config: TrainConfig, step: int) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then cosine to zero."""
    if step < config.warm_up:
        return (step + 1) / config.warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - config.warm_up) / max(config.steps - config.warm_up, 1)))


def draw_batch(config: TrainConfig, bank: Tensor, step: int) -> Tensor:
    """int64 [batch]: the next images of this epoch's order, then look-alikes of the first of them."""
    count = bank.shape[0]
    batch = min(config.batch, count)
    alike = int(batch * config.look_alikes)
    fresh = batch - alike
    positions = torch.arange(step * fresh, (step + 1) * fresh)
    chosen = []
    for epoch in torch.unique(positions // count):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(config.seed * 7919 + int(epoch)))
        chosen.append(order[positions[positions // count == epoch] % count])
    index = torch.cat(chosen).to(bank.device)
    if alike == 0:
        return index
    near = (bank[index[:alike]] @ bank.T).topk(min(9, count), dim=1).indices
    pick = torch.randint(1, near.shape[1], (near.shape[0], 1), device=bank.device)
    return torch.cat((index, near.gather(1, pick).squeeze(1)))


def train_step(
    config: TrainConfig,
    state: State,
    augmenter: Augmenter,
    groups: Tensor,
    pooled: Callable[[Tensor], tuple[Tensor, Tensor]],
    teacher: "Teacher | None",
) -> dict[str, Tensor]:
    """Make views, take one optimiser step, update the average and the bank; returns the parts of the loss."""
    torch.manual_seed((config.seed << 32) + state.step)
    device = state.bank.device
    index = draw_batch(config, state.bank, state.step)
    ramp = min(1.0, 0.4 + 0.6 * state.step / max(config.ramp * config.steps, 1))
    with torch.no_grad():
        light = augmenter.light(index)
        hard = augmenter.hard(index.repeat(2), ramp)
        views = normalise(torch.cat((light, hard.pixels.to(light.dtype))).float())
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        features, middle = pooled(views)
        patches = state.patch_head(middle) if config.patch_weight else None
    raw = state.network.projection(features)
    parts = view_losses(config, F.normalize(raw, dim=1), index, hard, groups, state.bank)
    if patches is not None:
        n = len(index)
        parts["patch"] = config.patch_weight * losses.patch_contrast(
            patches[n:], patches[:n].repeat(2, 1, 1, 1), hard.traced
        )
    if config.norm_ratio_weight:
        n = len(index)
        parts["norm_ratio"] = config.norm_ratio_weight * losses.norm_ratio(raw[:n].repeat(2, 1), raw[n:])
    if teacher is not None:
        parts["teacher"] = config.teacher_weight * teacher.loss(views, F.normalize(raw, dim=1), state.bank)
    loss = torch.stack([v for k, v in parts.items() if not k.endswith("_similarity")]).sum()
    for group in state.optimiser.param_groups:
        group["lr"] = group["peak"] * schedule(config, state.step)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), 5.0)
    state.optimiser.step()
    _update_average(state, config.average)
    state.bank[index] = F.normalize(raw[: len(index)].detach(), dim=1)
    state.step += 1
    return {"loss": loss.detach(), **{k: v.detach() for k, v in parts.items()}}


class Teacher:
    """A finished, larger network whose similarities the student learns to repeat."""

    def __init__(self, path: str, augmenter: Augmenter) -> None:
        self.network = load_finished(Path(path)).to(augmenter.sources.aspects.device).requires_grad_(False)
        count = augmenter.sources.count
        with torch.no_grad():
            index = torch.arange(count, device=augmenter.sources.aspects.device).split(512)
            self.bank = torch.cat([self.network(normalise(augmenter.light(i).float())) for i in index])

    def loss(self, views: Tensor, z: Tensor, bank: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(views.device.type, torch.bfloat16, enabled=views.is_cuda):
            mine = self.network(views).float()
        return losses.relational_distillation(z @ bank.T, mine @ self.bank.T, 0.05, 0.05)


@torch.no_grad()
def _update_average(state: State, decay: float) -> None:
    # The average starts where training starts and would drag that along: a short memory first, the full one later.
    decay = min(decay, (1 + state.step) / (10 + state.step))
    for mine, theirs in zip(state.average.parameters(), state.network.parameters(), strict=True):
        mine.lerp_(theirs, 1 - decay)


def load_finished(folder: Path) -> CopyNetwork:
    """The network of a finished descriptor folder."""
    import tomllib

    from safetensors.torch import load_file

    description = tomllib.loads((folder / "descriptor.toml").read_text(encoding="utf-8"))
    network = build_network(NetworkSpec(description["network"], int(description["dimension"])))
    network.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()}, strict=False)
    return network


class Curves:
    """Losses and measures as CSV rows (step, name, value): rows past the step of a resumed checkpoint are dropped
    first.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept: list[list[str]] = []
        if path.exists() and step:
            with path.open(newline="") as file:
                kept = [row for row in csv.reader(file) if row and row[0] != "step" and int(row[0]) <= step]
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["step", "name", "value"], *kept])

    def add(self, step: int, values: dict[str, float]) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows([[step, name, f"{value:.6g}"] for name, value in values.items()])
