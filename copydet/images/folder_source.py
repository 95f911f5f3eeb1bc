"""Images of a folder, local or behind an fsspec URL: every regular file in it, whatever its name, hidden ones too.

What is not an image becomes a row that says so. Shards are opened: a tar or a Parquet file in the folder gives its
images, with ids `shard.tar/KEY`. Two kinds of side file belong to the tar of the same name and give no row of their
own: `NAME.parquet` and `NAME_stats.json`, as img2dataset writes them.

A symbolic link to a file is read as a file. A link to a folder is followed unless that folder is already listed (it
lies inside the source, or an earlier link led there): such a link gives a row, and loops end.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from copydet.errors import ImageProblem
from copydet.images.files import Failing, FilePart, filesystem
from copydet.images.names import readable_name
from copydet.images.parquet_source import is_parquet, parquet_images
from copydet.images.tar_source import is_tar, tar_images
from copydet.records import Image


@dataclass(frozen=True)
class _Entry:
    """A file or folder met on the way; `name` is relative to the source, a folder's ends in `/`."""

    name: str
    path: str
    is_folder: bool
    may_repeat: bool = False  # reached through a link: it may be listed already


@dataclass(frozen=True)
class _LocalTree:
    """A local folder. `followed` holds the real paths of folders outside `root` that links led to."""

    root: str
    followed: set[str] = field(default_factory=set)

    def entries(self, folder: _Entry) -> list[_Entry]:
        """What is in `folder`, in bytewise order. Raises ImageProblem when it can't be listed or is listed already."""
        if folder.may_repeat:
            self._enter(os.path.realpath(folder.path))
        try:
            with os.scandir(folder.path) as found:
                listed = [(entry, _is_folder(entry)) for entry in found]
        except OSError as error:
            raise ImageProblem("unreadable", f"cannot list the folder: {error.strerror}") from error
        return _in_order(
            _Entry(
                folder.name + entry.name + "/" * is_folder,
                entry.path,
                is_folder,
                may_repeat=folder.may_repeat or entry.is_symlink(),
            )
            for entry, is_folder in listed
        )

    def _enter(self, real: str) -> None:
        if real == self.root or real.startswith(self.root.rstrip("/") + "/"):
            raise ImageProblem("unsupported", "a link to a folder that is listed under its own name")
        if real in self.followed:
            raise ImageProblem("unsupported", "a link to a folder that another link already led to")
        self.followed.add(real)


@dataclass(frozen=True)
class _RemoteTree:
    """A folder behind an fsspec URL."""

    def entries(self, folder: _Entry) -> list[_Entry]:
        try:
            fs, path = filesystem(folder.path)
            path = path.rstrip("/")
            listed = [(str(info["name"]).rstrip("/"), info["type"] == "directory") for info in fs.ls(path, detail=True)]
        except Exception as error:  # storage libraries raise their own kinds
            raise ImageProblem("unreadable", f"cannot list the folder: {error}") from error
        names = [(name.rpartition("/")[2], is_folder) for name, is_folder in listed if name != path]
        return _in_order(
            _Entry(folder.name + name + "/" * is_folder, f"{folder.path.rstrip('/')}/{name}", is_folder)
            for name, is_folder in names
        )


def folder_images(root: str, source: str, remote: bool = False) -> Iterator[Image]:
    """Yield the images of a folder in bytewise order of their paths relative to it."""
    for entry, problem in _files(root, remote):
        name, uri = readable_name(entry.name), readable_name(entry.path)
        if problem is not None:
            yield Image(name or "./", uri, source, Failing(problem.status, problem.message))
        elif is_tar(entry.name):
            yield from tar_images(entry.path, source, f"{name}/")
        elif is_parquet(entry.name):
            yield from parquet_images(entry.path, source, f"{name}/")
        else:
            yield Image(name, uri, source, FilePart(entry.path))


def count_files(root: str) -> int | None:
    """How many images the local folder lists; None when it holds shards, whose length is not cheap to know."""
    count = 0
    for entry, _ in _files(root, remote=False):
        if is_tar(entry.name) or is_parquet(entry.name):
            return None
        count += 1
    return count


def _files(root: str, remote: bool) -> Iterator[tuple[_Entry, ImageProblem | None]]:
    """Every file in order, and every folder that could not be entered with its problem."""
    tree = _RemoteTree() if remote else _LocalTree(os.path.realpath(root))
    waiting = [_Entry("", root, True)]  # a stack, not recursion: folders nest deeper than Python's calls may
    while waiting:
        entry = waiting.pop()
        if not entry.is_folder:
            yield entry, None
            continue
        try:
            found = tree.entries(entry)
        except ImageProblem as problem:
            yield entry, problem
            continue
        names = {each.name for each in found}
        waiting.extend(each for each in reversed(found) if each.is_folder or not _is_side_file(each.name, names))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: listed as a file, which says so when it is read
        return False


def _is_side_file(name: str, names: set[str]) -> bool:
    """Whether img2dataset wrote the file beside a tar: NAME.parquet and NAME_stats.json belong to NAME.tar."""
    return any(
        name.endswith(ending) and name.removesuffix(ending) + ".tar" in names for ending in (".parquet", "_stats.json")
    )


def _in_order(entries: Iterable[_Entry]) -> list[_Entry]:
    """Bytewise by name; as a folder's name ends in `/`, this is the order of the whole paths."""
    return sorted(entries, key=lambda entry: entry.name.encode("utf-8", "surrogateescape"))
