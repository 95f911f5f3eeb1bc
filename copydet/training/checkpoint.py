"""The state of a training run, and keeping it over a stop."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from copydet.descriptors.network import CopyNetwork
from copydet.errors import UsageError


@dataclass
class State:
    """All that a checkpoint holds and a step changes."""

    network: CopyNetwork
    patch_head: nn.Conv2d
    average: CopyNetwork
    optimiser: torch.optim.Optimizer
    bank: Tensor  # float32 [images, dimension]: the light view of each training image as last seen
    step: int = 0


def save_checkpoint(path: Path, state: State) -> None:
    """Write all of `state` beside `path` and rename, so that a kill leaves the last whole checkpoint."""
    content = {
        "network": state.network.state_dict(),
        "patch_head": state.patch_head.state_dict(),
        "average": state.average.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "bank": state.bank,
        "step": state.step,
    }
    unfinished = path.with_suffix(".tmp")
    torch.save(content, unfinished)
    unfinished.replace(path)


def load_checkpoint(path: Path, state: State) -> None:
    """Restore `state` in place; raises UsageError if the checkpoint is of another network or another set of images."""
    content = torch.load(path, map_location=state.bank.device, weights_only=True)
    if content["bank"].shape != state.bank.shape:
        raise UsageError(
            f"{path}: made with {content['bank'].shape[0]} images and dimension {content['bank'].shape[1]}, "
            f"this run has {state.bank.shape[0]} and {state.bank.shape[1]}; name another output folder or remove it"
        )
    try:
        state.network.load_state_dict(content["network"])
        state.patch_head.load_state_dict(content["patch_head"])
        state.average.load_state_dict(content["average"])
    except RuntimeError:  # names or shapes of torch's
        raise UsageError(f"{path}: made with another network; name another output folder or remove it") from None
    state.optimiser.load_state_dict(content["optimiser"])
    state.bank.copy_(content["bank"])
    state.step = int(content["step"])
