"""What `copydet doctor` looks at: versions, conflicting installs, devices by trying them, settings, shipped weights."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from copydet.process import prepare_process

_TRY_SECONDS = 120
_PACKAGES = ("numpy", "opencv-python-headless", "pillow", "pillow-heif", "pyarrow", "duckdb", "fsspec", "safetensors")

# Wheels that install the same modules over each other: whichever came last wins, in parts.
_RIVALS = {
    "faiss": ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss-gpu-cu13", "faiss"),
    "cv2": (
        *("opencv-python", "opencv-python-headless"),
        *("opencv-contrib-python", "opencv-contrib-python-headless"),
    ),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report. `problem`: what is wrong and what to do about it; None when all is well."""

    area: str
    name: str
    value: str
    problem: str | None = None


def look_around() -> Iterator[Finding]:
    """Every finding; a check that itself breaks is a finding, too."""
    for check in (_system, _versions, _conflicts, _runtimes, _faiss, _faiss_gpus, _describing, _settings, _descriptors):
        try:
            yield from check()
        except Exception as error:
            area = check.__name__.strip("_")
            problem = f"the check failed with {type(error).__name__}: {error}; reinstall the package that it names"
            yield Finding(area, "check", "failed", " ".join(problem.split()))


def _system() -> Iterator[Finding]:
    from copydet.engines.memory import total_memory
    from copydet.process import usable_cpus

    yield Finding("system", "platform", platform.platform())
    yield Finding("system", "processor", f"{usable_cpus()} usable cores; {', '.join(_cpu_features()) or 'no AVX2'}")
    yield Finding("system", "memory", f"{total_memory() / 2**30:.1f} GiB")


def _cpu_features() -> list[str]:
    """Those of the processor's features that make describing and searching faster (Linux only)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    flags = next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_vpopcntdq", "amx_bf16", "amx_int8")
    return [name for name in known if name in flags]


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "python", f"{platform.python_version()} ({sys.executable})")
    yield Finding("versions", "copydet", _version("copydet") or "not installed: runs from a source tree")
    for package in _PACKAGES:
        version = _version(package)
        optional = package == "pillow-heif"
        problem = None if version or optional else f"{package} is missing; run: pip install copydet"
        yield Finding("versions", package, version or ("not installed: HEIC is not read" if optional else "-"), problem)
    from PIL import features

    if not features.check("avif"):
        yield Finding("versions", "AVIF", "no", "this Pillow does not read AVIF; run: pip install -U 'pillow>=11.3'")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _conflicts() -> Iterator[Finding]:
    for module, distributions in _RIVALS.items():
        there = [name for name in distributions if _version(name)]
        if len(there) < 2:
            continue
        both = " ".join(there)
        keep = next((name for name in there if "gpu" in name or "headless" in name), there[0])
        yield Finding(
            "conflicts",
            module,
            ", ".join(f"{name} {_version(name)}" for name in there),
            f"{both} overwrite each other; run: pip uninstall -y {both} && pip install {keep}",
        )


def _runtimes() -> Iterator[Finding]:
    from copydet.descriptors.devices import runtime_facts

    facts = runtime_facts()
    built_for = f" for CUDA {facts.torch_cuda}" if facts.torch_cuda else " for CPU"
    yield Finding("runtimes", "torch", f"{facts.torch}{built_for}" if facts.torch else "not installed")
    yield Finding("runtimes", "torchvision", facts.torchvision or "not installed")
    precisions = f" computes in {', '.join(facts.cpu_precisions)}" if facts.cpu_precisions else ""
    yield Finding("runtimes", "openvino", f"{facts.openvino}{precisions}" if facts.openvino else "not installed")
    for number, device in enumerate(facts.devices):
        value = f"{device.name}, {device.memory_bytes / 2**30:.0f} GiB, capability {device.capability}"
        ran = "" if device.problem else "; a torch kernel ran"
        yield Finding("runtimes", f"cuda:{number}", value + ran)
    for problem in facts.problems:
        yield Finding("runtimes", "problem", "", problem)


def _faiss() -> Iterator[Finding]:
    wheel = next((name for name in _RIVALS["faiss"] if _version(name)), None)
    try:
        import faiss
    except ImportError as error:
        yield Finding("faiss", "faiss", "not usable", f"{error}; run: pip install 'copydet[cpu]' (or 'copydet[gpu]')")
        return
    yield Finding("faiss", "version", f"{faiss.__version__} ({wheel or 'not from a wheel'})")
    options = faiss.get_compile_options().split()
    slow = "avx2" in _cpu_features() and not {"AVX2", "AVX512"} & set(options)
    problem = "this FAISS does not use the processor's AVX2; run: pip install -U faiss-cpu" if slow else None
    yield Finding("faiss", "compiled with", " ".join(options), problem)
    yield Finding("faiss", "threads", str(faiss.omp_get_max_threads()))
    faiss_cuda = _cuda_major(wheel) if wheel else None
    if faiss_cuda:
        yield Finding("faiss", "CUDA", faiss_cuda + _beside_torch(faiss_cuda))


def _cuda_major(wheel: str) -> str | None:
    """The CUDA major version of a faiss wheel, from the runtime package that it requires."""
    for requirement in metadata.requires(wheel) or ():
        if requirement.startswith("nvidia-cuda-runtime-cu"):
            return requirement.removeprefix("nvidia-cuda-runtime-cu")[:2]
        if requirement.startswith("nvidia-cuda-runtime") and ">=" in requirement:
            return requirement.split(">=")[1][:2]
    return None


def _beside_torch(faiss_cuda: str) -> str:
    try:
        import torch
    except ImportError:
        return ""
    major = (torch.version.cuda or "").partition(".")[0]
    if not major or major == faiss_cuda:
        return ""
    return f" (torch brings {major}: both run side by side where the driver is new enough for the newer)"


def _faiss_gpus() -> Iterator[Finding]:
    """Search on every GPU, each in a process of its own: a wheel that doesn't fit the driver ends its process."""
    try:
        import faiss
    except ImportError:
        return
    if not hasattr(faiss, "StandardGpuResources"):
        yield Finding("faiss", "GPU", "this build searches on the CPU")
        return
    for number in range(max(1, faiss.get_num_gpus())):
        code = f"from copydet.cli.checks import try_faiss_gpu; try_faiss_gpu({number})"
        problem = _run_apart(code)
        value = "a search ran" if problem is None else "does not work"
        advice = "; update the NVIDIA driver, or use faiss-cpu: pip uninstall -y faiss-gpu && pip install faiss-cpu"
        yield Finding("faiss", f"GPU {number}", value, None if problem is None else problem + advice)


def try_faiss_gpu(number: int) -> None:
    """Search 1,000 vectors on GPU `number` and compare with the CPU's answer. Raises whatever FAISS raises."""
    import faiss
    import numpy as np

    vectors = np.random.default_rng(0).standard_normal((1000, 64), dtype=np.float32)
    flat = faiss.IndexFlatIP(64)
    flat.add(vectors)
    on_gpu = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), number, flat)
    expected, found = flat.search(vectors[:10], 1)[1], on_gpu.search(vectors[:10], 1)[1]
    if not np.array_equal(expected, found):
        raise RuntimeError("the GPU's answer differs from the CPU's")


def _run_apart(code: str) -> str | None:
    """Run Python code in another process: None when it ended well, else the last thing that it said."""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=_TRY_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer within {_TRY_SECONDS} seconds"
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"the process ended with {done.returncode}"


def _describing() -> Iterator[Finding]:
    """Describe one drawn picture on the device that `--device auto` takes."""
    import numpy as np

    from copydet.descriptors.registry import describe_names, load_descriptor
    from copydet.descriptors.runtimes import open_runtime
    from copydet.errors import CopydetError
    from copydet.images.resize import resize_pixels

    for name in describe_names()[:1]:
        try:
            descriptor = load_descriptor(name)
            runtime = open_runtime(descriptor)
            ramp = np.linspace(0, 255, 320 * 240 * 3).reshape(240, 320, 3).astype(np.uint8)
            (vector,) = runtime.describe([resize_pixels(ramp, descriptor.resize)])
        except CopydetError as error:
            yield Finding("runtimes", "describing", "does not work", str(error))
            return
        good = bool(np.isfinite(vector).all()) and abs(float(np.linalg.norm(vector)) - 1) < 1e-2
        problem = None if good else f"{runtime.name} gives wrong numbers; try --device cpu or --device torch"
        yield Finding("runtimes", "describing", f"{name} ran on {runtime.name} (--device auto)", problem)


def _settings() -> Iterator[Finding]:
    for name, value in prepare_process().items():
        yield Finding("settings", name, value)
    for name in ("OMP_NUM_THREADS", "LD_PRELOAD", "CUDA_VISIBLE_DEVICES"):
        if name in os.environ:
            yield Finding("settings", name, os.environ[name])


def _descriptors() -> Iterator[Finding]:
    from copydet.descriptors.registry import describe_names, load_descriptor

    names = describe_names()
    if not names:
        yield Finding("descriptors", "shipped", "none", "this installation carries no weights; reinstall copydet")
    for name in names:
        descriptor = load_descriptor(name)
        missing = [kind for kind in ("onnx", "background", "calibration") if kind not in descriptor.files]
        value = f"{descriptor.dimension} dimensions, hash {descriptor.hash}"
        problem = f"{name} lacks its {', '.join(missing)} file; reinstall copydet" if missing else None
        yield Finding("descriptors", name, value, problem)
