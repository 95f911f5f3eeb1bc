"""The command line as a whole: help, errors, exit codes, what is printed where."""

import errno
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

import copydet.index
from copydet import errors
from copydet.cli.console import count, printable, size
from copydet.cli.main import COMMANDS
from copydet.cli.main import copydet as group
from copydet.cli.options import BYTE_SIZE

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("numpy", "torch", "faiss", "cv2", "openvino", "pyarrow", "duckdb", "PIL")

Run = Callable[..., object]


def command(name: str) -> click.Command:
    loaded: click.Command = import_module(COMMANDS[name]).command
    return loaded


def help_and_heavy_modules(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `copydet ARGUMENTS` in a fresh process; the last line that it prints lists the heavy modules loaded."""
    after = f"print([module for module in {HEAVY} if module in sys.modules])"
    code = f"import sys; from copydet.cli.main import run; run({list(arguments)}); {after}"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_help_answers_at_once_and_loads_no_heavy_library() -> None:
    # Processor time, as the tests' own cores may be busy.
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = help_and_heavy_modules("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "[]"
    assert min(seconds) < 0.3


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_loads_no_heavy_library(name: str) -> None:
    assert help_and_heavy_modules(name, "-h").stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_an_imperative_sentence_and_an_example(name: str) -> None:
    text = command(name).help or ""
    first = text.split("\n")[0]
    assert re.fullmatch(r"[A-Z][a-z]+ .*\.", first), first
    assert not first.split()[0].endswith("s"), "imperative, not third person"
    assert "Example:" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_in_the_help_parse(name: str) -> None:
    examples = re.findall(r"^ +(copydet .*)$", command(name).help or "", re.MULTILINE)
    assert examples
    for example in examples:
        program, called, *arguments = shlex.split(example)
        assert (program, called) == ("copydet", name)
        command(name).make_context(name, arguments)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name: str) -> None:
    assert [p.name for p in command(name).params if isinstance(p, click.Option) and not p.help] == []


def test_the_precision_in_the_help_is_the_one_that_is_used() -> None:
    from copydet.decisions.decide import DEFAULT_PRECISION

    for name in ("match", "compare"):
        (option,) = [p for p in command(name).params if p.name == "precision"]
        assert isinstance(option, click.Option)
        assert f"[default: {DEFAULT_PRECISION:g}]" in (option.help or "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["index", "photos"], "Missing option '--index'"),
        (["index", "nowhere", "--index", "x.index"], "no such source: nowhere"),
        (["match", "photos", "--index", "nowhere.index"], "nowhere.index does not exist"),
        (["inspect", "--index", "."], "holds no index"),
        (["index", ".", "--index", "x.index", "--max-memory", "much"], "'much' is not a size"),
        (["evaluate"], "give PREDICTIONS with --ground-truth FILE"),
        (["evaluate", "p.csv", "--ground-truth", "t.csv"], "cannot read t.csv"),
        (["evaluate", "--calibrate", "photos"], "--calibrate SOURCE takes --descriptor FOLDER"),
        (["evaluate", "--calibrate", ".", "--descriptor", "small"], "small holds no descriptor.toml"),
        (["remove", "--index", "x"], "either IDs or --where"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    run: Run, arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.code == 2
    assert done.err.startswith("copydet: ")
    assert says in done.err
    assert done.err.count("\n") == 1
    assert not done.out


def fail_with(error: BaseException) -> Callable[..., Iterator[object]]:
    def fail(*_args: object, **_keywords: object) -> Iterator[object]:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (errors.CopydetError("the disk\nis full"), 1, "copydet: the disk is full\n"),
        (errors.CheckFailed("wrong"), 4, "copydet: wrong\n"),
        (errors.MissingPackage("faiss", "cpu"), 2, "pip install 'copydet[cpu]'"),
        (ZeroDivisionError("by\nzero"), 1, "copydet: failed with ZeroDivisionError: by zero (set COPYDET_TRACEBACK=1"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device"),
        (MemoryError(), 1, "MemoryError"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, says: str, tmp_path: Path
) -> None:
    monkeypatch.setattr(copydet.index.Index, "open", fail_with(error))
    done = run("match", tmp_path, "--index", tmp_path)
    assert done.code == code
    assert says in done.err
    assert "Traceback" not in done.err
    assert done.err.count("\n") == 1


def test_the_traceback_is_shown_when_asked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(copydet.index.Index, "open", fail_with(ZeroDivisionError("why")))
    monkeypatch.setenv("COPYDET_TRACEBACK", "1")
    assert "Traceback" in run("match", tmp_path, "--index", tmp_path).err


@pytest.mark.parametrize(
    ("arguments", "method", "says"),
    [
        (["index", "."], "build", "the same command goes on from there"),
        (["add", "."], "open", "the same command goes on from there"),
        (["match", ".", "--output", "m.csv"], "match", "m.csv: nothing was written; the same command starts again"),
    ],
)
def test_ctrl_c_ends_with_130_and_says_what_is_kept(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    index: Path,
    tmp_path: Path,
    arguments: list[str],
    method: str,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(copydet.index.Index, method, fail_with(KeyboardInterrupt()))
    done = run(*arguments, "--index", index)
    assert done.code == 130
    assert says in done.err
    assert not (tmp_path / "m.csv").exists()


def test_ctrl_c_anywhere_else_ends_with_130(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("copydet.store.snapshots.read_current", fail_with(KeyboardInterrupt()))
    assert run("inspect", "--index", tmp_path).code == 130


def test_a_reader_that_has_gone_is_no_error(built: Path) -> None:
    quoted = shlex.quote(str(built))
    script = f"{shlex.quote(sys.executable)} -m copydet inspect --index {quoted} | true"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_python_m_copydet_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "copydet", "nonsense"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("copydet: No such command 'nonsense'")


def test_every_command_of_the_table_is_in_the_help() -> None:
    context = click.Context(group)
    assert group.list_commands(context) == list(COMMANDS)
    shown = group.get_help(context)
    assert all(f"\n  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("4GB", 4 * 10**9),
        ("512MiB", 512 * 2**20),
        ("1.5g", 1_500_000_000),
        ("4096", 4096),
        ("3 kB", 3000),
        ("1k", 1000),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, amount: int) -> None:
    assert BYTE_SIZE.convert(text, None, None) == amount


@pytest.mark.parametrize("text", ["", "GB", "-1", "4iB", "1e9", "0", "inf", "4XB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        BYTE_SIZE.convert(text, None, None)


def test_counts_and_sizes_read_well() -> None:
    assert [count(1, "image"), count(1200, "image"), count(2, "match"), count(3, "query")] == [
        "1 image",
        "1,200 images",
        "2 matches",
        "3 queries",
    ]
    assert [size(12), size(1500), size(4 * 10**9), size(5 * 10**15)] == ["12 B", "1.5 kB", "4.0 GB", "5000.0 TB"]


def test_a_name_cannot_command_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert printable("bad\udcff.jpg") == "bad\\udcff.jpg"
