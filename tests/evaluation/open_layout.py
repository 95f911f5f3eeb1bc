"""An open descriptor that needs no network."""

from dataclasses import dataclass
from functools import cached_property

from copydet.decisions.calibration import neutral
from copydet.descriptors.background import Bank
from copydet.descriptors.runtimes import Runtime
from copydet.matching import OpenDescriptor


@dataclass(frozen=True)
class OpenLayout(OpenDescriptor):
    layout: Runtime

    @cached_property
    def runtime(self) -> Runtime:
        return self.layout


def open_layout(runtime: Runtime, bank: Bank | None = None) -> OpenLayout:
    return OpenLayout(runtime.descriptor, "cpu", bank, neutral(bank is not None), runtime)
