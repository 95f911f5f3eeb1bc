"""Train a small diffusion model on photos of which some are repeated, and make pictures with it for `copydet audit`.

    .venv/bin/python scripts/make_generated --config scripts/make_generated/case.toml

Writes into the configuration's `output`: training.csv (what the model saw), generated.csv (samples, by prompt),
translated.csv (photos translated at several strengths), held-out.csv and others.csv (photos that it never saw),
sheet.jpg (a contact sheet). A run that was cut off goes on at the last checkpoint; every step draws from a seed of its
own, so it
goes on as if it had not stopped. On a processor it uses one thread: set --threads for more.
"""

import argparse
import copy
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import torch
from diffusion import Denoiser, loss, sample, translate
from photos import TrainingPhotos, choose_training, read_squares, save, write_table, write_training

_BLOCK = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--output", type=Path, metavar="DIR", help="instead of the configuration's")
    parser.add_argument("--images", type=int, help="instead of the configuration's")
    parser.add_argument("--minutes", type=float, help="of training; instead of the configuration's")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    config = tomllib.loads(arguments.config.read_text(encoding="utf-8"))
    given = {name: getattr(arguments, name) for name in ("output", "images", "minutes")}
    config |= {name: value for name, value in given.items() if value is not None}
    torch.set_num_threads(arguments.threads)
    output = Path(config["output"])
    output.mkdir(parents=True, exist_ok=True)
    photos = choose_training(config)
    if not (output / "training.csv").exists():
        write_training(photos, output)
    names = sorted(set(photos.prompts))
    model = train(photos, names, config, output)
    make_samples(model, photos, names, config, output)
    make_translations(model, photos, names, config, output)
    write_unseen(config, output)
    print(f"{output}: {sum(photos.repeats):,} training pictures, {len(photos.ids):,} of them distinct")


def train(photos: TrainingPhotos, names: list[str], config: dict, output: Path) -> Denoiser:
    """The averaged model, trained until the steps or the minutes are used up; goes on at OUTPUT/checkpoint.pt."""
    torch.manual_seed(config["seed"])
    model = Denoiser(config["size"], len(names), config["width"], config["depth"])
    average = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config["rate"], betas=(0.9, 0.99), weight_decay=0.0)
    pictures = to_tensor(photos.pixels)
    prompts = torch.tensor([names.index(prompt) for prompt in photos.prompts])
    shares = torch.tensor(photos.repeats, dtype=torch.float32)
    step, spent, path = 0, 0.0, output / "checkpoint.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        step, spent = saved["step"], saved["spent"]
    began, losses = time.monotonic(), []
    while step < config["steps"] and spent + time.monotonic() - began < 60 * config["minutes"]:
        generator = torch.Generator().manual_seed(config["seed"] * 1_000_003 + step)
        drawn = torch.multinomial(shares, config["batch"], replacement=True, generator=generator)
        for group in optimiser.param_groups:
            group["lr"] = config["rate"] * min(1.0, (step + 1) / config["warm_up"])
        value = loss(model, pictures[drawn], prompts[drawn], generator)
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        keep = min(config["average"], step / (step + 10))
        with torch.no_grad():
            for mean, new in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(new, 1 - keep)
        losses.append(value.item())
        if step % config["save_every"] == 0:
            seconds = spent + time.monotonic() - began
            state = {"model": model.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save({**state, "step": step, "spent": seconds}, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
            print(f"step {step:,}: loss {np.mean(losses):.4f}, {seconds / 60:.1f} minutes", file=sys.stderr, flush=True)
            losses.clear()
    return average.eval()


def make_samples(model: Denoiser, photos: TrainingPhotos, names: list[str], config: dict, output: Path) -> None:
    """Samples of each repeated photo's prompt, and of the shared prompts as often as the photos have them."""
    own = [photos.prompts[i] for i in photos.repeated]
    shared = [prompt for prompt, repeats in zip(photos.prompts, photos.repeats, strict=True) if repeats == 1]
    drawn = np.random.default_rng(config["seed"] + 1).choice(shared, config["samples_of_groups"]).tolist()
    wanted = [prompt for prompt in own for _ in range(config["samples_a_prompt"])] + drawn
    rows = []
    for start in range(0, len(wanted), _BLOCK):
        block = wanted[start : start + _BLOCK]
        numbers = [names.index(prompt) for prompt in block]
        made = sample(model, config["size"], numbers, config["sampling_steps"], config["seed"] + start)
        for place, (prompt, pixels) in enumerate(zip(block, to_pixels(made), strict=True), start):
            save(pixels, output / "generated" / f"G{place:04}.png")
            kind = "repeated" if prompt in own else "shared"
            rows.append({"path": f"generated/G{place:04}.png", "prompt": prompt, "kind": kind})
    write_table(output / "generated.csv", rows)
    write_sheet(output)


def make_translations(model: Denoiser, photos: TrainingPhotos, names: list[str], config: dict, output: Path) -> None:
    """Photos that occur once, translated under their own prompt at each strength."""
    once = [i for i, repeats in enumerate(photos.repeats) if repeats == 1]
    chosen = np.random.default_rng(config["seed"] + 2).choice(once, config["translated"], replace=False)
    pictures, prompts = to_tensor(photos.pixels[chosen]), [names.index(photos.prompts[i]) for i in chosen]
    rows = []
    for strength in config["strengths"]:
        made = translate(model, pictures, prompts, strength, config["sampling_steps"], config["seed"])
        for i, pixels in zip(chosen, to_pixels(made), strict=True):
            name = f"translated/{photos.ids[i]}-{strength:.2f}.png"
            save(pixels, output / name)
            rows.append({"path": name, "strength": strength, "origin": f"training/{photos.ids[i]}.png"})
    write_table(output / "translated.csv", rows)


def write_unseen(config: dict, output: Path) -> None:
    ids, pixels = read_squares(config["others"], config["size"], config["held_out"] + config["images"])
    parts = {"held-out": slice(0, config["held_out"]), "others": slice(config["held_out"], None)}
    for name, part in parts.items():
        for image_id, square in zip(ids[part], pixels[part], strict=True):
            save(square, output / name / f"{image_id}.png")
        write_table(output / f"{name}.csv", [{"path": f"{name}/{image_id}.png"} for image_id in ids[part]])


def write_sheet(output: Path) -> None:
    """The first sample of each prompt of a repeated photo, then samples of shared prompts: 12 a row."""
    from PIL import Image

    files = sorted((output / "generated").glob("*.png"))
    shown = [Image.open(path) for path in files[:192:8] + files[-24:]]
    edge = shown[0].width
    sheet = Image.new("RGB", (12 * edge, -(-len(shown) // 12) * edge))
    for place, picture in enumerate(shown):
        sheet.paste(picture, (place % 12 * edge, place // 12 * edge))
    sheet.save(output / "sheet.jpg", quality=80)


def to_tensor(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [n, h, w, 3] -> float [n, 3, h, w] in [-1, 1]."""
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).float() / 127.5 - 1


def to_pixels(pictures: torch.Tensor) -> np.ndarray:
    return ((pictures + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


if __name__ == "__main__":
    main()
