"""Rooms import only rooms above them, and the heavy libraries stay where they belong (docs/architecture.md)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "copydet"

# From the ground up: a room imports rooms before it. Those of the first line may be imported by all.
ORDER = [
    *("errors", "process", "progress", "records", "workers"),
    *("images", "descriptors", "local_features", "store", "shards", "engines", "search", "verification", "decisions"),
    *("pairs", "judging", "matching", "comparison", "tuning", "index"),
    *("dedup", "audit", "training", "evaluation", "reports", "cli"),
]
ONLY_IN = {
    "torch": {"descriptors", "training"},
    "torchvision": {"descriptors", "training"},
    "faiss": {"shards", "search", "local_features"},
    "click": {"cli"},
}
# The package's front door names what is behind it without importing it; doctor looks at every library.
EXCEPTIONS = {
    *(("__init__", "index"), ("__init__", "dedup"), ("__main__", "cli")),
    *(("cli", "torch"), ("cli", "torchvision"), ("cli", "faiss")),
}
# One file of a room may import what the room may not: exact search on a GPU. Only matching on CUDA imports it.
FILE_EXCEPTIONS = {("search/device_scan.py", "torch")}
# Names that say nothing about what is inside.
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "base", "common", "misc", "tools"}
MAX_LINES = 400

FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Every module that the file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            if node.module == "copydet":
                yield from (f"copydet.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_above_it(path: Path) -> None:
    room = room_of(path)
    for module in imports(path):
        if not module.startswith("copydet."):
            continue
        other = module.split(".")[1]
        if other == room or (room, other) in EXCEPTIONS or other not in ORDER:
            continue
        assert ORDER.index(other) < ORDER.index(room), f"{room} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_stay_in_their_rooms(path: Path) -> None:
    room = room_of(path)
    for module in imports(path):
        library = module.split(".")[0]
        if (path.relative_to(PACKAGE).as_posix(), library) in FILE_EXCEPTIONS:
            continue
        allowed = ONLY_IN.get(library)
        assert allowed is None or room in allowed or (room, library) in EXCEPTIONS, f"{room} imports {module}"


def test_every_room_is_in_the_order() -> None:
    rooms = {room_of(path) for path in FILES} - {"__init__", "__main__"}
    assert rooms <= set(ORDER), rooms - set(ORDER)


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert {path.stem for path in [*FILES, *(path.parent for path in FILES)]} & FORBIDDEN_NAMES == set()


def test_files_are_short_enough_to_read() -> None:
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_help_and_the_package_itself_import_no_heavy_library() -> None:
    heavy = ["torch", "torchvision", "faiss", "cv2", "openvino", "pyarrow", "duckdb", "PIL", "numpy"]
    for entry in ("import copydet", "from copydet.cli.main import run; assert run(['--help']) == 0"):
        check = f"import sys\n{entry}\nsys.exit(' '.join(m for m in {heavy} if m in sys.modules) or 0)"
        done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
        assert not done.returncode, f"{entry}: {done.stderr}"
