"""Measure `copydet index` from JPEG files to committed index against its parts and its peers, alternating, as ratios.

    .venv/bin/python scripts/benchmark_index.py --output build/benchmark-index.json

Photos: the folder --references plus --photos images of --tars, written once as JPEG files of quality 90. Contenders,
each run --rounds times in turns over the same files:

    copydet     whole process; and steady state: what the photos beyond a tenth of them take, so start-up is not in it
    decode      the loader alone, forward: the network alone, both with the threads that they have in the pipeline
    fastdup     fastdup 2.54 in its own virtual environment, num_threads=2
    pdq-1/-2    PDQ hashes in one and in two processes

A ratio is taken within a round; the table gives the median over the rounds. Peak memory is ru_maxrss of `copydet index`
over --memory images of the tars. Only the standard library is imported here: a child starts with its parent's peak.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STAGES = str(ROOT / "scripts/benchmark_stages.py")
DATA = ROOT.parent / "shared/data"
PEERS = {
    "fastdup": ("fastdup==2.54",),
    "pdq": ("pdqhash==0.2.8", "opencv-python-headless", "numpy"),
}
PEER_RUNS = ("fastdup", "pdq-1", "pdq-2")
FORWARD_SECONDS = 5
QUIET = {"SENTRY_OPT_OUT": "1"}  # fastdup's telemetry

Timing = dict[str, float]  # "images" and "seconds" inside the process, "wall" and "peak" (bytes) of the whole process


@dataclass(frozen=True)
class Plan:
    """What one run of the benchmark uses: folders of photos, where to write, which environments."""

    work: Path
    photos: Path
    few: Path  # a tenth of the photos
    descriptor: str
    peers: dict[str, str]  # peer -> its Python

    def contenders(self) -> dict[str, list[str]]:
        """Name -> command line. Every command reads the same photos."""
        commands = {
            "copydet": self.index(self.photos),
            "copydet-few": self.index(self.few),
            "decode": [sys.executable, STAGES, "decode", str(self.photos), self.descriptor],
            "forward": [sys.executable, STAGES, "forward", str(self.photos), self.descriptor, str(FORWARD_SECONDS)],
        }
        if "fastdup" in self.peers:
            commands["fastdup"] = [
                self.peers["fastdup"],
                STAGES,
                "fastdup",
                str(self.photos),
                str(self.work / "fastdup"),
            ]
        if "pdq" in self.peers:
            commands["pdq-1"] = [self.peers["pdq"], STAGES, "pdq", str(self.photos), "1"]
            commands["pdq-2"] = [self.peers["pdq"], STAGES, "pdq", str(self.photos), "2"]
        return commands

    def index(self, source: Path) -> list[str]:
        command = [sys.executable, "-m", "copydet", "index", str(source), "--index", str(self.work / "photos.index")]
        return [*command, "--descriptor", self.descriptor]


def main() -> int:
    arguments = parse_arguments()
    arguments.work.mkdir(parents=True, exist_ok=True)
    plan = prepare(arguments)
    rounds = [run_round(plan, number) for number in range(arguments.rounds)]
    memory = [measure_memory(plan, arguments.tars, images) for images in arguments.memory]
    result = {
        "command": " ".join(["scripts/benchmark_index.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "rounds": rounds,
        "images_per_second": medians([rates(timings) for timings in rounds]),
        "ratios": medians([ratios(timings) for timings in rounds]),
        "memory": memory,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(markdown(result))
    print(f"\nWritten to {arguments.output}", file=sys.stderr)
    return 0


def parse_arguments() -> argparse.Namespace:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--references", type=Path, default=DATA / "dev/references", help="folder of JPEG photos")
    parser.add_argument("--tars", type=Path, default=DATA / "train", help="folder of tar shards with more photos")
    parser.add_argument("--photos", type=int, default=5000, help="how many to take from the tars")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="*", default=[1000, 20000], help="collections to take the peak of")
    parser.add_argument("--descriptor", default="small")
    parser.add_argument("--without", choices=sorted(PEERS), action="append", default=[], help="leave a peer out")
    parser.add_argument("--work", type=Path, default=ROOT / "build/benchmark-index", help="kept between runs")
    parser.add_argument("--output", type=Path, default=ROOT / "build/benchmark-index.json")
    arguments = parser.parse_args()
    for folder in (arguments.references, arguments.tars):
        if not folder.is_dir():
            parser.error(f"{folder} is not a folder; name one with --references and --tars")
    return arguments


def prepare(arguments: argparse.Namespace) -> Plan:
    """Write the photos and make the peers' environments; what an earlier run made is kept."""
    photos = arguments.work / f"photos-{arguments.photos}"
    few = arguments.work / f"photos-{arguments.photos}-few"
    shutil.rmtree(few, ignore_errors=True)
    for folder in (photos, few):
        folder.mkdir(exist_ok=True)
    for stale in photos.glob("reference-*"):
        stale.unlink()
    run_child([sys.executable, STAGES, "prepare", str(arguments.tars), str(arguments.photos), str(photos)])
    for file in sorted(arguments.references.iterdir()):
        shutil.copyfile(file, photos / f"reference-{file.name}")
    for file in sorted(photos.iterdir())[::10]:
        shutil.copyfile(file, few / file.name)
    peers = {name: make_environment(arguments.work, name) for name in PEERS if name not in arguments.without}
    return Plan(arguments.work, photos, few, arguments.descriptor, peers)


def make_environment(work: Path, name: str) -> str:
    python = work / f"venv-{name}/bin/python"
    done = work / f"venv-{name}/installed"
    if not done.exists():
        print(f"Installing {' '.join(PEERS[name])} into {done.parent}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(done.parent)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEERS[name]], check=True)
        done.touch()
    return str(python)


def run_round(plan: Plan, number: int) -> dict[str, Timing]:
    """Every contender once. Each round starts at another one, so that none is always first or last."""
    commands = list(plan.contenders().items())
    shift = number % len(commands)
    timings = {}
    for name, command in commands[shift:] + commands[:shift]:
        for leftover in (plan.work / "photos.index", plan.work / "fastdup"):
            shutil.rmtree(leftover, ignore_errors=True)
        timings[name] = run_child(command)
        print(f"round {number + 1}: {name}: {timings[name]['wall']:.1f} s", file=sys.stderr)
    # The index command prints no count: it takes every file of its folder.
    timings["copydet"]["images"] = count(plan.photos)
    timings["copydet-few"]["images"] = count(plan.few)
    return timings


def count(folder: Path) -> int:
    return len(list(folder.iterdir()))


def run_child(command: list[str]) -> Timing:
    """Run to the end; its wall time, its peak of resident memory, and the numbers of its last line if that is JSON."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=log, env=os.environ | QUIET)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        log.seek(0)
        if child.returncode:
            sys.exit(f"{' '.join(command)}\nfailed with exit code {child.returncode}:\n{log.read()[-3000:]}")
        last = (out.read().strip().splitlines() or [""])[-1]
    timing = {"wall": wall, "peak": float(usage.ru_maxrss * 1024)}  # Linux counts in kB
    return timing | (json.loads(last) if last.startswith("{") else {})


def rates(timings: dict[str, Timing]) -> dict[str, float]:
    """Images per second of one round."""
    inside = {name: timing["images"] / timing["seconds"] for name, timing in timings.items() if "seconds" in timing}
    whole, few = timings["copydet"], timings["copydet-few"]
    steady = (whole["images"] - few["images"]) / max(whole["wall"] - few["wall"], 1e-9)
    decode, forward = inside["decode"], inside["forward"]
    peers = {f"{name}, start-up left out": inside[name] for name in PEER_RUNS if name in timings}
    peers |= {f"{name}, whole process": t["images"] / t["wall"] for name, t in timings.items() if name in PEER_RUNS}
    return {
        "copydet, whole process": whole["images"] / whole["wall"],
        "copydet, steady state": steady,
        "decode alone": decode,
        "forward alone": forward,
        "slower of decode and forward": min(decode, forward),
        # Both need the same cores: a second of images costs the seconds of the one plus those of the other.
        "decode and forward on the same cores": 1 / (1 / decode + 1 / forward),
        **peers,
    }


def ratios(timings: dict[str, Timing]) -> dict[str, float]:
    """copydet against each contender of the same round: steady state against the parts, whole process against peers."""
    rate = rates(timings)
    steady, whole = rate.pop("copydet, steady state"), rate.pop("copydet, whole process")
    return {name: (whole if name.endswith("whole process") else steady) / value for name, value in rate.items()}


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def measure_memory(plan: Plan, tars: Path, images: int) -> dict[str, float]:
    """Peak of `copydet index` over a tar of so many images."""
    tar = plan.work / f"memory-{images}.tar"
    if not tar.exists():
        run_child([sys.executable, STAGES, "cut_tar", str(tars), str(images), str(tar)])
    shutil.rmtree(plan.work / "photos.index", ignore_errors=True)
    timing = run_child(plan.index(tar))
    print(f"peak of memory over {images:,} images: {timing['peak'] / 2**20:,.0f} MiB", file=sys.stderr)
    return {"images": images, "peak_mib": timing["peak"] / 2**20, "wall": timing["wall"]}


def describe_machine() -> dict[str, object]:
    cpuinfo = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
    ]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def markdown(result: dict[str, Any]) -> str:
    """The tables for the documentation."""
    machine, memory = result["machine"], result["memory"]
    lines = [
        f"`{result['command']}`: medians of {len(result['rounds'])} rounds on {machine['cores']} cores of "
        f"{machine['processor']}",
        "",
        "| | images/s | copydet is |",
        "| --- | ---: | ---: |",
    ]
    for name, rate in result["images_per_second"].items():
        ratio = result["ratios"].get(name)
        lines.append(f"| {name} | {rate:,.0f} | {f'{ratio:.2f} x' if ratio else ''} |")
    if memory:
        lines += ["", "| images | peak memory of `copydet index` | images/s, whole process |", "| ---: | ---: | ---: |"]
        lines += [f"| {m['images']:,} | {m['peak_mib']:,.0f} MiB | {m['images'] / m['wall']:,.0f} |" for m in memory]
        growth = memory[-1]["peak_mib"] / memory[0]["peak_mib"]
        lines += ["", f"The last peak is {growth:.2f} x the first."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
