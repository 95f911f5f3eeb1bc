"""Options that several commands share, so that they read the same everywhere."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from copydet.engines.engine import Engine
    from copydet.images.decode import Limits

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}

Command = Callable[..., Any]


class ByteSize(click.ParamType[int]):
    """`4GB`, `512MiB`, `1.5g` or a number of bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", str(value).lower())
        if match is None or match[2] == "i":
            self.fail(f"{value!r} is not a size; write 4GB, 512MB or a number of bytes", param, ctx)
        amount = int(float(match[1]) * _UNITS[match[2]])
        if amount == 0:
            self.fail("must be more than 0", param, ctx)
        return amount


BYTE_SIZE = ByteSize()


def index_option(must_exist: bool) -> Callable[[Command], Command]:
    """`--index DIR`: where the index is, or will be."""
    text = "Folder that holds the index." if must_exist else "Folder that will hold the index."
    return click.option(
        "--index", "index_path", metavar="DIR", type=click.Path(path_type=Path), required=True, help=text
    )


device_option = click.option(
    "--device",
    metavar="NAME",
    default="auto",
    show_default=True,
    help="Where the network runs: auto, cpu, cuda, cuda:N, openvino or torch.",
)
moved_descriptor_option = click.option(
    "--descriptor", metavar="NAME|FILE", help="Where the index's descriptor is, when it has moved."
)
embeddings_option = click.option(
    "--embeddings", is_flag=True, help="What is named are files of embeddings made elsewhere: .npy, or Parquet."
)
strict_option = click.option("--strict", is_flag=True, help="Exit with 3 when an image had to be skipped.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON to stdout.")
workers_option = click.option(
    "--workers",
    metavar="N",
    type=click.IntRange(min=1),
    default=None,
    help="Decoding threads. [default: one for each core] With --engine ray: CPUs of a task. [default: 4 at most]",
)


def limit_options(command: Command) -> Command:
    """`--max-bytes` and `--max-pixels`: what is refused as too large."""
    for name, what in (("--max-pixels", "pixels"), ("--max-bytes", "bytes")):
        text = f"Skip images of more {what}, as too_large. [default: {'250M' if what == 'pixels' else '256MiB'}]"
        command = click.option(name, metavar="SIZE", type=BYTE_SIZE, help=text)(command)
    return command


def engine_options(command: Command) -> Command:
    """`--engine` and `--ray-address`: where the work is done."""
    command = click.option(
        "--ray-address",
        metavar="HOST:PORT",
        help="Of the cluster. [default: $RAY_ADDRESS, or the one that runs on this machine]",
    )(command)
    return click.option(
        "--engine",
        type=click.Choice(("local", "ray")),
        default="local",
        show_default=True,
        help="Where the work is done: in this process, or on a Ray cluster whose nodes share all paths.",
    )(command)


@contextmanager
def open_engine(name: str, ray_address: str | None, workers: int | None, device: str) -> "Iterator[Engine]":
    """The engine that the options ask for. Raises UsageError, MissingPackage."""
    if name == "local":
        if ray_address is not None:
            raise click.UsageError("--ray-address needs --engine ray")
        from copydet.engines.engine import HERE

        yield HERE
        return
    from copydet.engines.ray import open_ray
    from copydet.process import MALLOC

    environment = {variable: str(amount) for variable, (_, amount) in MALLOC.items()}
    with open_ray(ray_address, workers=workers, device=device, environment=environment) as engine:
        yield engine


def count_listed(specs: Sequence[str], embeddings: bool) -> int | None:
    """How many images or embeddings `specs` list, where that is cheap to know."""
    from copydet.descriptors.embeddings import count_embeddings
    from copydet.images.sources import count_images

    return count_embeddings(specs) if embeddings else count_images(specs)


def limits(max_bytes: int | None, max_pixels: int | None) -> "Limits":
    """The limits that the options ask for; what was not given is as decoding has it."""
    from copydet.images.decode import DEFAULT_LIMITS, Limits

    return Limits(max_bytes or DEFAULT_LIMITS.max_bytes, max_pixels or DEFAULT_LIMITS.max_pixels)
