"""Whether an index is what its snapshot says, in three depths: names and sizes, checksums, and row by row.

Row by row, FAISS reads the codes, and it trusts its files: so that is done in a process of its own, and a crash there
is one more line.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from copydet.errors import CopydetError, UsageError
from copydet.local_features.codes import list_numbers, shipped_codec
from copydet.records import STATUSES
from copydet.shards.build import codes_of
from copydet.shards.deletions import image_files, read_deletions
from copydet.shards.local import FEATURES
from copydet.shards.metadata import CONTRACT
from copydet.shards.quantiser import make_codes
from copydet.shards.shard import CODES, DESCRIPTORS, IMAGES, Shard, ShardViews, fits, open_shard, vector_files
from copydet.shards.sql import connect, living_rows
from copydet.store import snapshots
from copydet.store.check import Problem, check_files, files_of, named_files
from copydet.store.hashing import hash_bytes
from copydet.store.snapshots import ShardEntry, Snapshot

Depth = Literal["names", "sums", "rows"]
DEPTHS: tuple[Depth, ...] = ("names", "sums", "rows")

_BLOCK = 8192  # rows
_LENGTH_ERROR = 5e-3  # of the squared length of a descriptor: float16 rounds by a tenth of that
_CODE_ERROR = 1e-3  # squared distance: codes that another processor's rounding made are as near as ours
_NAMED = 5  # rows that a line names


def check_index(index: Path, depth: Depth = "sums") -> Iterator[Problem]:
    """A problem for each file that is not as the current snapshot says, each depth after what the ones before it say.

    `names`: every file is there, of its size, and the counts fit each other. `sums`: its contents are those that were
    written. `rows`: codes, descriptors, images.parquet and local features agree row by row, and ids are unique; files
    of which a problem is known are not looked into. Raises NotAnIndex, and UsageError for a newer format.
    """
    try:
        snapshot = snapshots.read_current(index)
    except UsageError:
        raise
    except CopydetError as error:
        yield Problem("CURRENT", str(error))
        return
    damaged = set()
    for problem in check_files(index, named_files(snapshot).items(), sums=depth != "names"):
        damaged.add(problem.path)
        yield problem
    for shard in snapshot.shards:
        if reason := fits(shard, snapshot.descriptor.dimension):
            damaged.add(f"shards/{shard.name}/{DESCRIPTORS}")
            yield Problem(f"shards/{shard.name}", reason)
    if depth == "rows":
        yield from _check_ids(index, snapshot, damaged)
        needed = {shard.name: {snapshot.quantiser, *dict(files_of(shard))} for shard in snapshot.shards}
        yield from _in_a_process(index, [name for name, files in needed.items() if not files & damaged])


def _check_ids(index: Path, snapshot: Snapshot, damaged: set[str]) -> Iterator[Problem]:
    """Ids are unique among the living images, and the deletions name the images that they say."""
    files = image_files(index, snapshot)
    if damaged & {f"shards/{name}/{IMAGES}" for name in files} or snapshot.deletions in damaged:
        return
    deletions = index / snapshot.deletions if snapshot.deletions else None
    try:
        read_deletions(index, snapshot)
        with connect() as database:
            living = living_rows(files, deletions)
            twice = database.sql(
                f"SELECT image_id FROM ({living}) GROUP BY image_id HAVING count(*) > 1 ORDER BY image_id"
            ).fetchall()
            strange = []
            if deletions is not None:
                database.execute(f"CREATE TEMP VIEW every AS {living_rows(files, None)}")
                database.register("removed", pq.read_table(deletions))
                strange = database.sql(
                    "SELECT removed.shard, removed.row FROM removed ANTI JOIN every USING (shard, row, image_id)"
                ).fetchall()
    except Exception as error:  # DuckDB has many; its files are whole, so this is a strange index, not a broken program
        yield Problem("shards", f"its images cannot be listed: {' '.join(str(error).split())}")
        return
    if twice:
        yield Problem("shards", f"{len(twice):,} ids are there more than once, {twice[0][0]!r} among them")
    if strange:
        yield Problem(str(snapshot.deletions), f"names other ids than {strange[0][0]} has, in row {strange[0][1]:,}")


def _in_a_process(index: Path, names: Sequence[str]) -> Iterator[Problem]:
    """The problems of shards by their rows. The process prints a line when it is done with a shard; where it ended, the
    shard after the last line is what ended it, and another process goes on behind it."""
    code = "from copydet.shards.check import print_problems; print_problems(*sys.argv[1:])"
    while names:
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}", str(index), *names],
            capture_output=True,
            text=True,
        )
        lines = done.stdout.splitlines()
        for line in lines:
            yield from (Problem(*each) for each in json.loads(line))
        if len(lines) < len(names):
            last = [f"exit code {done.returncode}", *done.stderr.strip().splitlines()][-1]
            yield Problem(f"shards/{names[len(lines)]}/{CODES}", f"reading it ends the program: {last}")
        names = names[len(lines) + 1 :]


def print_problems(index: str, *names: str) -> None:
    """What the process of its own runs: the problems of each shard as a line of JSON on stdout."""
    snapshot = snapshots.read_current(Path(index))
    shards = {shard.name: shard for shard in snapshot.shards}
    for name in names:
        found = check_rows(Path(index), snapshot, shards[name])
        print(json.dumps([(problem.path, problem.text) for problem in found]), flush=True)


def check_rows(index: Path, snapshot: Snapshot, entry: ShardEntry) -> Iterator[Problem]:
    """What does not agree in one shard, whose files are those that were written."""
    try:
        shard = open_shard(index, entry, snapshot.descriptor.dimension)
    except CopydetError as error:
        yield Problem(f"shards/{entry.name}/{CODES}", str(error))
        return
    found = [(IMAGES, _image_problems(shard))]
    of_wholes_and_parts = zip(vector_files(entry.reference_views), (shard, shard.views), strict=False)
    for (codes_name, descriptors_name, _), rows in of_wholes_and_parts:
        assert rows is not None
        found.append((descriptors_name, _descriptor_problems(rows)))
        found.append((codes_name, _code_problems(index, snapshot, entry, codes_name, rows)))
    found.append((FEATURES, _local_problems(shard)))
    for name, problems in found:
        try:
            yield from (Problem(f"shards/{entry.name}/{name}", text) for text in problems)
        except CopydetError as error:
            yield Problem(f"shards/{entry.name}/{name}", str(error))


def _image_problems(shard: Shard) -> Iterator[str]:
    try:
        schema = pq.read_schema(shard.images_path)
        for field in CONTRACT:
            if field.name not in schema.names or schema.field(field.name).type != field.type:
                yield f"has no column {field.name} of type {field.type}"
                return
        table = pq.read_table(shard.images_path, columns=["image_id", "status"])
    except (pa.ArrowException, OSError) as error:
        yield f"cannot be read: {error}"
        return
    if len(table) != shard.images:
        yield f"has {len(table):,} rows instead of {shard.images:,}"
        return
    status = np.array(table["status"].to_pylist(), object)
    described = np.arange(shard.images) < shard.described
    yield from _named("rows with a descriptor have another status than ok", described & (status != "ok"))
    others = np.isin(status.astype(str), [each for each in STATUSES if each != "ok"])
    yield from _named("rows without a descriptor have status ok or none that is known", ~described & ~others)
    yield from _named("rows have no id", np.array([not each for each in table["image_id"].to_pylist()], bool))


def _descriptor_problems(rows: Shard | ShardViews) -> Iterator[str]:
    strange = np.zeros(len(rows.descriptors), bool)
    for start in range(0, len(rows.descriptors), _BLOCK):
        block = rows.descriptors[start : start + _BLOCK].astype(np.float32)
        squared = np.einsum("nd,nd->n", block, block)
        strange[start : start + _BLOCK] = ~(np.abs(squared - 1) < _LENGTH_ERROR)
    yield from _named("descriptors are not of length 1", strange)


def _code_problems(
    index: Path, snapshot: Snapshot, entry: ShardEntry, name: str, rows: Shard | ShardViews
) -> Iterator[str]:
    """Codes are what the quantiser makes of the descriptors: byte for byte, or, where another processor rounded
    otherwise, each as near to its descriptor."""
    if entry.codes == "Flat":
        made: Any = None
    else:
        made = make_codes(codes_of(index, snapshot, entry.codes).quantiser, rows.descriptors)
        if hash_bytes(faiss.serialize_index(made).tobytes()) == entry.files[name].xxh3:
            return
        if "fs" in entry.codes:  # FAISS 1.15 crashes where it decodes some of these
            yield "the codes are not those of the descriptors"
            return
    strange = np.zeros(len(rows.descriptors), bool)
    for start in range(0, len(rows.descriptors), _BLOCK):
        stored = _decoded(rows.codes, start, min(_BLOCK, len(rows.descriptors) - start))
        vectors = rows.descriptors[start : start + _BLOCK].astype(np.float32)
        best = 0.0 if made is None else _distance(vectors, _decoded(made, start, len(vectors)))
        strange[start : start + _BLOCK] = ~(_distance(vectors, stored) <= best + _CODE_ERROR)
    yield from _named("codes are not those of their descriptors", strange)


def _decoded(codes: Any, start: int, count: int) -> NDArray[np.float32]:
    """float32 [count, dimension]; NaN for a row that has no code."""
    decoded = np.full((count, codes.d), np.nan, np.float32)
    codes.reconstruct_n(start, count, decoded)
    return decoded


def _distance(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    difference = first.astype(np.float64) - second
    distance: NDArray[np.float64] = np.einsum("nd,nd->n", difference, difference)
    return distance


def _local_problems(shard: Shard) -> Iterator[str]:
    local = shard.local
    if local is None:
        return
    lists = len(shipped_codec().lists)
    strange = np.zeros(shard.described, bool)
    for start in range(0, shard.described, _BLOCK):
        part = local.part(start, min(start + _BLOCK, shard.described))
        of_image = np.repeat(np.arange(len(part.offsets) - 1), np.diff(part.offsets))
        strange[start + of_image[list_numbers(part.features) >= lists]] = True
    yield from _named("images have local features of a list that there is not", strange)


def _named(what: str, rows: "NDArray[np.bool_] | Sequence[bool]") -> Iterator[str]:
    """`3 of 100 <what>: rows 1, 2, 7`, where there are any."""
    places = np.flatnonzero(rows)
    if len(places):
        more = f" and {len(places) - _NAMED:,} more" if len(places) > _NAMED else ""
        listed = ", ".join(f"{place:,}" for place in places[:_NAMED])
        yield f"{len(places):,} of {len(rows):,} {what}: row{'s' * (len(places) > 1)} {listed}{more}"
