"""`copydet audit` as a user meets it: files, exit codes, one line for each mistake, a page that asks for nothing."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Done

Run = Callable[..., Done]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two copies of a photo under a hostile name and prompt, a picture of nothing, and one that is none."""
    import skimage

    folder = tmp_path_factory.mktemp("generated")
    coffee = Image.open(Path(skimage.data_dir) / "coffee.png").convert("RGB").resize((150, 100))
    coffee.save(folder / "<b>coffee&.png")
    coffee.save(folder / "coffee.jpg", quality=80)
    Image.linear_gradient("L").save(folder / "ramp.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    (folder / "list.csv").write_text(
        "path,prompt\n<b>coffee&.png,</script><script>alert(1)</script>\ncoffee.jpg,b\nramp.png,b\nbroken.png,b\n"
    )
    return folder / "list.csv"


@pytest.fixture(scope="module")
def output(generated: Path, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from copydet.cli.main import run as run_main

    folder = tmp_path_factory.mktemp("audits") / "audit"
    assert (
        run_main(["audit", str(generated), "--index", str(built), "--output", str(folder), "--precision", "0.5"]) == 0
    )
    return folder


def numbers_of(folder: Path) -> dict[str, object]:
    numbers: dict[str, object] = json.loads((folder / "audit.json").read_text())
    return numbers


def test_three_files_are_written_and_nothing_else(output: Path) -> None:
    assert sorted(path.name for path in output.iterdir()) == ["audit.json", "audit.parquet", "report.html"]
    numbers = numbers_of(output)
    assert (numbers["generations"], numbers["read"], numbers["skipped"]) == (4, 3, {"truncated": 1})
    assert numbers["share_near_pixel"]["value"] == pytest.approx(2 / 3)  # type: ignore[index]


def test_the_page_asks_for_nothing_and_runs_nothing(output: Path) -> None:
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "<script" not in page
    assert "&lt;b&gt;coffee&amp;.png" in page
    assert page.count("<svg") == page.count("</svg>") >= 2


def test_the_table_says_shares_with_intervals_and_chance(
    run: Run, generated: Path, built: Path, tmp_path: Path
) -> None:
    done = run("audit", generated, "--index", built, "--output", tmp_path / "a", "--precision", 0.5, "--strict")
    assert done.code == 3, done.err
    assert done.out.splitlines()[0].split() == ["share", "of", "generations", "value", "low", "high", "chance"]
    assert "4 generations, 1 skipped (1 truncated)" in done.err
    assert done.err.count("uncalibrated") == 0  # said once, as a warning of the audit
    assert done.err.count("not calibrated") == 1
    assert "Next: open" in done.err


def test_a_gate_that_does_not_hold_is_exit_code_4_and_the_files_are_there(
    run: Run, generated: Path, built: Path, output: Path, tmp_path: Path
) -> None:
    asked = ("audit", generated, "--index", built, "--output", tmp_path / "a", "--precision", 0.5, "--json")
    done = run(*asked, "--gate", "share_near_pixel < 0.01", "--gate", "generations > 1 and share_near_pixel <= 0.7")
    assert done.code == 4
    assert json.loads(done.out) == numbers_of(tmp_path / "a") == numbers_of(output)
    last = done.err.splitlines()[-1]
    assert last == "copydet: the gate is closed: share_near_pixel < 0.01 does not hold: share_near_pixel is 0.666667"
    assert (tmp_path / "a" / "report.html").read_bytes() == (output / "report.html").read_bytes()


def test_an_earlier_audit_is_a_baseline_and_a_column_makes_groups(
    run: Run, generated: Path, built: Path, output: Path, tmp_path: Path
) -> None:
    asked = ("audit", generated, "--index", built, "--output", tmp_path / "b", "--precision", 0.5, "--group", "prompt")
    done = run(*asked, "--baseline", output)
    assert done.code == 0, done.err
    assert "no significant change" in done.err
    page = (tmp_path / "b" / "report.html").read_text()
    assert "Against the baseline" in page
    assert "Share of copies by prompt" in page
    assert "baseline" in numbers_of(tmp_path / "b")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--gate", "share_copy"], 2, "is no condition; write NAME < NUMBER"),
        (["--gate", "share_copied < 1"], 2, "no 'share_copied' in audit.json"),
        (["--baseline", "nowhere"], 2, "--baseline nowhere holds no audit"),
        (["--preset", "dcr"], 2, "with --descriptor CHECKPOINT@dcr"),
        (["--where", "width > 99999"], 2, "no training images that satisfy --where"),
        (["--where", "nonsense"], 2, "--where 'nonsense'"),
        (["--precision", "0.9999"], 2, "precision 0.9999 is not between"),
    ],
)
def test_each_mistake_is_one_line(
    run: Run, generated: Path, built: Path, tmp_path: Path, options: list[str], code: int, words: str
) -> None:
    done = run("audit", generated, "--index", built, "--output", tmp_path / "a", *options)
    assert done.code == code
    last = done.err.splitlines()[-1]
    assert last.startswith("copydet: ")
    assert words in last


def test_sources_and_indexes_that_are_none_are_errors(
    run: Run, generated: Path, built: Path, output: Path, tmp_path: Path
) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    for source, index, words in (
        (nothing, built, "the sources list no images"),
        (tmp_path / "gone", built, "no such source"),
        (generated.parent / "broken.png", built, "none of the 1 generations can be read"),
        (generated, nothing, "nothing"),
    ):
        done = run("audit", source, "--index", index, "--output", tmp_path / "a")
        assert done.code == 2
        assert words in done.err
        assert not (tmp_path / "a" / "audit.json").exists()
    done = run("audit", generated, "--index", built, "--output", output, "--baseline", output)
    assert done.code == 2
    assert "are the same folder" in done.err
