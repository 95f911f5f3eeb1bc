"""scripts/make_generated on a handful of pictures: what it writes, and that a run goes on where it stopped."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def write_case(folder: Path, steps: int) -> Path:
    """Crops of three photos, and a configuration that takes seconds."""
    rng = np.random.default_rng(0)
    for part in ("photos", "others"):
        (folder / part).mkdir(exist_ok=True)
        for number in range(40):
            with Image.open(Path(skimage.data_dir) / ("coffee.png", "chelsea.png", "rocket.jpg")[number % 3]) as photo:
                left, top = rng.integers(0, photo.width - 120), rng.integers(0, photo.height - 120)
                photo.convert("RGB").crop((left, top, left + 120, top + 120)).save(folder / part / f"{number:02}.png")
    (folder / "table.csv").write_text("id,source\n")
    case = folder / "case.toml"
    case.write_text(f"""
photos = ["{folder}/photos"]
others = ["{folder}/others"]
table = "{folder}/table.csv"
output = "{folder}/case"
size = 16
images = 30
repeated = 2
least_repeats = 3
most_repeats = 5
width = 64
depth = 1
batch = 4
rate = 1e-3
warm_up = 2
average = 0.9
save_every = 2
minutes = 1
steps = {steps}
samples_a_prompt = 2
samples_of_groups = 3
translated = 2
strengths = [0.2, 0.8]
sampling_steps = 4
held_out = 3
seed = 1
""")
    return case


def run(case: Path) -> str:
    command = [sys.executable, str(ROOT / "scripts/make_generated"), "--config", str(case)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return done.stderr


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_case_is_written_and_a_second_run_goes_on_at_the_checkpoint(tmp_path: Path) -> None:
    assert "step 4" in run(write_case(tmp_path, steps=4))
    case = tmp_path / "case"
    training = rows(case / "training.csv")
    repeats = [int(row["repeats"]) for row in training]
    assert sorted(set(repeats)) == [1, 3, 5]
    assert len({row["path"].split("-again-")[0].removesuffix(".png") for row in training}) == len(training) - 6
    assert [row["kind"] for row in rows(case / "generated.csv")] == ["repeated"] * 4 + ["shared"] * 3
    assert [row["strength"] for row in rows(case / "translated.csv")] == ["0.2"] * 2 + ["0.8"] * 2
    assert len(rows(case / "held-out.csv")) == 3
    for table in ("training", "generated", "translated", "held-out", "others"):
        assert all((case / row["path"]).is_file() for row in rows(case / f"{table}.csv"))
    assert (case / "sheet.jpg").is_file()
    first = (case / "generated" / "G0000.png").read_bytes()
    assert "step 2:" not in run(write_case(tmp_path, steps=6))
    assert (case / "generated" / "G0000.png").read_bytes() != first
