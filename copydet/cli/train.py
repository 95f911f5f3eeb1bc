"""`copydet train`: train a descriptor on your own images."""

from pathlib import Path

import click

from copydet.cli.console import if_interrupted, quote, say, say_next
from copydet.cli.options import device_option


@click.command()
@click.option(
    "--config", metavar="FILE", type=click.Path(path_type=Path), required=True, help="TOML file that describes the run."
)
@click.option(
    "--describe-at", metavar="PIXELS", type=click.IntRange(min=32), help="Side of the squares that the finished "
    "descriptor sees. [default: the size it was trained at]",
)  # fmt: skip
@click.option(
    "--benchmark", metavar="DIR", type=click.Path(path_type=Path),
    help="Benchmark folder to measure on from time to time (never trained on).",
)  # fmt: skip
@device_option
def command(config: Path, describe_at: int | None, benchmark: Path | None, device: str) -> None:
    """Train a descriptor: network, background bank and calibration, ready for `copydet index --descriptor`.

    A run that was stopped goes on from its last checkpoint when the same command is given again.

    \b
    Example:
      copydet train --config scripts/train_small/first.toml
    """
    import dataclasses

    from copydet.progress import show
    from copydet.training.config import read_config

    run = read_config(config)
    if device != "auto":
        run = dataclasses.replace(run, device=device)
    from copydet.evaluation.during_training import measure_on
    from copydet.evaluation.finish import finish_descriptor
    from copydet.training.trainer import train

    output = Path(run.output)
    size = describe_at or run.size
    measure = measure_on(benchmark, size) if benchmark else None
    with if_interrupted(f"the last checkpoint is in {quote(output)}; the same command goes on from there"):
        with show("training", run.steps * run.batch) as progress:
            network = train(run, measure, progress, describe_at=size)
        folder = output / "descriptor"
        finished = finish_descriptor(
            network.cpu().float(), folder, name=output.name, trunk=run.trunk, size=size, images=run.images
        )
    say(f"descriptor {finished.hash} with bank and calibration in {quote(folder)}")
    say_next(f"copydet index PHOTOS --index DIR --descriptor {quote(folder)}")
