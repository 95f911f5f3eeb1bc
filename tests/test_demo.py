"""The demo finds what it should, and without torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run_demo(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """scripts/demo.py in this environment, where importing torch is made to fail: the demo's own has none."""
    trap = output.parent / "trap" / "torch"
    trap.mkdir(parents=True, exist_ok=True)
    (trap / "__init__.py").write_text("raise ImportError('torch is not there')\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(trap.parent), str(ROOT)])}
    command = [sys.executable, str(ROOT / "scripts/demo.py"), "--output", str(output), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
def test_the_demo_finds_the_copies_and_writes_table_and_page_every_time_it_runs(tmp_path: Path) -> None:
    for _ in range(2):
        done = run_demo(tmp_path / "out")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Found " in done.stdout
        assert "astronaut" in done.stdout
        assert (tmp_path / "out/matches.csv").stat().st_size
        assert (tmp_path / "out/report.html").stat().st_size


@pytest.mark.slow
def test_the_demo_takes_a_folder_of_the_users_own_and_says_what_it_could_not_read(tmp_path: Path) -> None:
    import skimage

    own = tmp_path / "own" / "holidays"
    own.mkdir(parents=True)
    for name in ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "rocket.jpg"):
        (own / name).write_bytes((Path(skimage.data_dir) / name).read_bytes())
    (own / "notes.jpg").write_text("not a photo")
    done = run_demo(tmp_path / "out", str(own.parent))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out/references/holidays/astronaut.png").exists()


def test_the_demo_refuses_a_folder_that_is_not_there_with_one_line(tmp_path: Path) -> None:
    done = run_demo(tmp_path / "out", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
