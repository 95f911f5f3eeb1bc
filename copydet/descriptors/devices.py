"""Facts about torch and its devices for `copydet doctor`, and the one test that counts: does a kernel run?"""

import ctypes
import importlib.util
import sys
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class DeviceFact:
    """One CUDA device as torch lists it. `problem` is None when a kernel ran on it and gave the right numbers."""

    name: str
    memory_bytes: int
    capability: str
    problem: str | None


@dataclass(frozen=True)
class RuntimeFacts:
    """What the runtimes of this installation are made of. Versions are None for what is not installed."""

    torch: str | None
    torch_cuda: str | None  # "13.0": the CUDA that torch was built for; None for a CPU build
    torchvision: str | None
    openvino: str | None
    cpu_precisions: tuple[str, ...]  # what OpenVINO can compute in on this CPU
    devices: tuple[DeviceFact, ...]
    problems: tuple[str, ...]  # each a line: what is wrong and what to do


def runtime_facts() -> RuntimeFacts:
    """Gather the facts; imports torch and OpenVINO where they are installed. Never raises for a broken installation."""
    problems: list[str] = []
    torch_cuda, devices = _torch_facts(problems) if installed("torch") else (None, ())
    precisions = _openvino_facts(problems) if installed("openvino") else ()
    if not installed("torch") and not installed("openvino"):
        problems.append(
            "nothing can describe images: run pip install 'copydet[cpu]' (or 'copydet[gpu]' with an NVIDIA GPU)"
        )
    return RuntimeFacts(
        torch=installed("torch"),
        torch_cuda=torch_cuda,
        torchvision=installed("torchvision"),
        openvino=installed("openvino"),
        cpu_precisions=precisions,
        devices=devices,
        problems=tuple(problems),
    )


def installed(package: str) -> str | None:
    """Version of an importable package, or None."""
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _torch_facts(problems: list[str]) -> tuple[str | None, tuple[DeviceFact, ...]]:
    try:
        import torch
    except Exception as error:
        problems.append(f"torch is installed but cannot be imported ({error}); reinstall it")
        return None, ()
    if installed("torchvision"):
        from copydet.descriptors.torchvision_guard import import_torchvision

        try:
            import_torchvision()
        except Exception as error:
            problems.append(
                f"torchvision does not fit torch {torch.__version__} ({error}); install the pair released together"
            )
    devices = []
    for number in range(torch.cuda.device_count()):
        known = torch.cuda.get_device_properties(number)
        problem = cuda_problem(f"cuda:{number}")
        devices.append(DeviceFact(known.name, known.total_memory, f"{known.major}.{known.minor}", problem))
        if problem is not None:
            problems.append(f"cuda:{number} ({known.name}) is listed but does not work: {problem}")
    if torch.version.cuda is not None and not devices and has_nvidia_driver():
        problems.append(
            f"an NVIDIA driver is here, but torch for CUDA {torch.version.cuda} finds no GPU: "
            "update the driver, or look at CUDA_VISIBLE_DEVICES"
        )
    return torch.version.cuda, tuple(devices)


def _openvino_facts(problems: list[str]) -> tuple[str, ...]:
    from copydet.descriptors.openvino_runtime import import_openvino

    try:
        return tuple(import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    except Exception as error:
        problems.append(f"openvino is installed but does not work ({error}); reinstall it")
        return ()


def has_nvidia_driver() -> bool:
    """Whether NVIDIA's driver library loads: if not, importing torch to look for a GPU is in vain."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def cuda_problem(device: str = "cuda") -> str | None:
    """Run a convolution in float16 on `device` and compare it with the CPU: None when it worked, else a line saying
    why not.

    A device list is not proof: a driver too old, a wheel without this architecture's kernels or a full GPU show only
    here.
    """
    import torch

    try:
        if not torch.cuda.is_available():
            return (
                "this torch is built for CPU only"
                if torch.version.cuda is None
                else "torch finds no usable NVIDIA driver or GPU"
            )
        image = torch.arange(3 * 8 * 8, dtype=torch.float32).reshape(1, 3, 8, 8) / 192
        kernel = torch.ones(4, 3, 3, 3) / 27
        expected = torch.nn.functional.conv2d(image, kernel)
        result = torch.nn.functional.conv2d(image.to(device, torch.float16), kernel.to(device, torch.float16))
        if not torch.allclose(result.float().cpu(), expected, atol=0.02):
            return "a convolution gave wrong numbers"
    except Exception as error:
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return None
