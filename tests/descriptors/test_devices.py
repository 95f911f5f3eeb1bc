"""What doctor is told, and the guard around torchvision."""

import subprocess
import sys
from pathlib import Path

import torch

from copydet.descriptors.devices import cuda_problem, has_nvidia_driver, installed, runtime_facts

ROOT = Path(__file__).parents[2]


def test_the_facts_name_what_is_installed() -> None:
    facts = runtime_facts()
    assert facts.torch == torch.__version__
    assert facts.openvino is not None
    assert "FP32" in facts.cpu_precisions
    assert facts.torch_cuda == torch.version.cuda
    assert len(facts.devices) == torch.cuda.device_count()


def test_a_package_that_is_not_there_has_no_version() -> None:
    assert installed("no_such_package") is None
    assert installed("numpy") is not None


def test_a_gpu_counts_only_when_a_kernel_ran_on_it() -> None:
    if torch.cuda.is_available() and has_nvidia_driver():
        assert cuda_problem("cuda:0") is None
    else:
        assert "\n" not in (cuda_problem() or "\n")
    assert cuda_problem("cuda:99") is not None


def test_torchvision_imports_beside_a_cpu_torch_in_a_fresh_process() -> None:
    program = """
from copydet.descriptors.torchvision_guard import import_torchvision
import torch
torchvision = import_torchvision()
assert import_torchvision() is torchvision
assert torchvision.models.mobilenet_v2(weights=None).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
from torchvision.transforms import v2
assert v2.functional.horizontal_flip(torch.arange(3)[None]).tolist() == [[2, 1, 0]]
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
