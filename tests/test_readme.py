"""What the README shows runs as it stands, on real photos."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import skimage

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PHOTOS = Path(skimage.data_dir)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that the examples name: a collection, some more, and a suspect made from one of the collection."""
    import cv2

    for name in ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "rocket.jpg"):
        copy(PHOTOS / name, tmp_path / "photos" / name)
    copy(PHOTOS / "motorcycle_left.png", tmp_path / "more" / "motorcycle.png")
    coffee = cv2.imread(str(PHOTOS / "coffee.png"))
    assert coffee is not None
    (tmp_path / "suspects").mkdir()
    for suspect in ("suspect.jpg", "suspects/suspect.jpg"):
        cv2.imwrite(str(tmp_path / suspect), coffee[20:-20, 30:-30], [cv2.IMWRITE_JPEG_QUALITY, 60])
    return tmp_path


def copy(photo: Path, to: Path) -> None:
    to.parent.mkdir(exist_ok=True)
    shutil.copyfile(photo, to)


def run(command: list[str], folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def code_block(heading: str, language: str = "") -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", README.split(heading, 1)[1], re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_the_python_example_runs_and_finds_the_copy(folder: Path) -> None:
    printed = run([sys.executable, "-c", code_block("## Python", "python")], folder)
    first, *_ = [line for line in printed.splitlines() if line.startswith("suspect.jpg")]
    assert first.split()[1] == "coffee.png"


def test_the_commands_for_a_collection_of_ones_own_run_and_find_the_copy(folder: Path) -> None:
    lines = code_block("## Your own collection").strip().splitlines()
    for line in lines:
        program, *words = shlex.split(line.replace("PHOTOS", "photos").replace("QUERIES", "suspects"))
        assert program == "copydet"
        run([sys.executable, "-m", "copydet", *words], folder)
    rows = (folder / "matches.csv").read_text(encoding="utf-8").splitlines()
    assert rows[1].startswith("suspect.jpg,coffee.png,")
    assert (folder / "report.html").stat().st_size > 10_000
