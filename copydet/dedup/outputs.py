"""What a job leaves in its folder; docs/dedup.md describes each file. Equal results are equal bytes."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from copydet.decisions.decide import decide
from copydet.decisions.ignore import Ignored
from copydet.dedup.clusters import Clusters, Edges
from copydet.dedup.collection import Collection, Numbers
from copydet.dedup.exact import NAMES, Contents
from copydet.dedup.pairs import SCHEMA
from copydet.shards.shard import Shard
from copydet.shards.sql import connect, scan
from copydet.store import atomic

PAIRS = pa.schema(
    [
        *((name, pa.string()) for name in ("query_id", "reference_id")),
        ("score", pa.float64()),
        ("verdict", pa.string()),
        *((name, pa.float64()) for name in ("similarity", "normalised_similarity")),
        ("exact", pa.string()),
        ("inliers", pa.int32()),
        *((name, pa.float64()) for name in ("query_overlap", "reference_overlap")),
        ("transform", pa.string()),
        *((name, pa.string()) for name in ("query_uri", "reference_uri")),
        ("against", pa.bool_()),
    ]
)
CLUSTERS = pa.schema(
    [
        ("cluster_id", pa.int64()),
        ("image_id", pa.string()),
        ("representative", pa.string()),
        *((name, pa.float64()) for name in ("similarity", "score")),
        ("keep", pa.bool_()),
        ("exact", pa.string()),
        ("against", pa.bool_()),
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("weakest", pa.float64()),
        ("diameter", pa.int64()),
    ]
)
_BLOCK = 16_384
_UID = re.compile(r"[0-9a-fA-F]{32}")


@dataclass(frozen=True)
class Accepted:
    """What `write_pairs` wrote: the near pairs as edges, and how many exact and near ones there are."""

    edges: Edges
    exact: int
    near: int
    judged: int


def write_pairs(
    path: Path,
    collection: Collection,
    contents: Contents,
    judged: Sequence[Path],
    threshold: float,
    ignored: Ignored,
) -> Accepted:
    """Write pairs.parquet: the exact pairs, then the near ones from `threshold` on; each kind by the ids of both."""
    counts, edges = Counter[str](), [SCHEMA.empty_table()]
    with atomic.new_file(path) as partial, pq.ParquetWriter(partial, PAIRS, compression="zstd") as writer:
        for table in _in_blocks(_exact_pairs(collection, contents)):
            rows, _ = _pair_rows(collection, contents, table, threshold, ignored)
            counts["exact"] += len(rows)
            writer.write_table(rows)
        for file in judged:
            table = pq.read_table(file)
            counts["judged"] += len(table)
            for part in _in_blocks(table.filter(pc.greater_equal(table["score"], threshold))):
                rows, kept = _pair_rows(collection, contents, part, threshold, ignored)
                counts["near"] += len(rows)
                writer.write_table(rows)
                edges.append(kept)
    return Accepted(_edges(pa.concat_tables(edges)), counts["exact"], counts["near"], counts["judged"])


def _in_blocks(table: pa.Table) -> Iterator[pa.Table]:
    return (table.slice(start, _BLOCK) for start in range(0, len(table), _BLOCK))


def _pair_rows(
    collection: Collection, contents: Contents, table: pa.Table, threshold: float, ignored: Ignored
) -> tuple[pa.Table, pa.Table]:
    """Rows of PAIRS for rows of SCHEMA, and these; both without what is ignored."""
    one, other = table["one"].to_numpy(), table["other"].to_numpy()
    queries, references = collection.rows(one), collection.rows(other)
    kept = [
        (query.image_id, reference.image_id) not in ignored and (reference.image_id, query.image_id) not in ignored
        for query, reference in zip(queries, references, strict=True)
    ]
    rows = []
    both = zip(table.to_pylist(), queries, references, kept, strict=True)
    for pair, query, reference, is_kept in both:
        if not is_kept:
            continue
        transform = pair.pop("transform")
        found = {name: pair[name] for name in PAIRS.names if name in pair}
        found |= {"query_id": query.image_id, "reference_id": reference.image_id}
        found |= {"query_uri": query.uri, "reference_uri": reference.uri}
        found["verdict"] = decide(pair["score"], threshold, *(pair[name] for name in _OVERLAPS))
        found["exact"] = NAMES[contents.kind[pair["other"]]] if contents.first[pair["other"]] == pair["one"] else ""
        found["transform"] = None if transform is None else json.dumps(transform)
        found["against"] = pair["other"] >= collection.own
        rows.append(found)
    return pa.Table.from_pylist(rows, schema=PAIRS), table.filter(pa.array(kept, pa.bool_()))


def _edges(table: pa.Table) -> Edges:
    one, other, score = (table[name].to_numpy() for name in ("one", "other", "score"))
    overlaps = [table[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in _OVERLAPS]
    return Edges(one, other, score, *(np.asarray(each, np.float64) for each in overlaps))


_OVERLAPS = ("query_overlap", "reference_overlap")


def _exact_pairs(collection: Collection, contents: Contents) -> pa.Table:
    """Each exact duplicate with the first of its content, in the order of SCHEMA's rows; a pair of two images of
    `against` is none.
    """
    other = np.flatnonzero((contents.first >= 0) & (contents.kind > 0))
    one = contents.first[other]
    used = (one < collection.own) | (other < collection.own)
    one, other = one[used], other[used]
    order = np.lexsort((collection.rank[other], collection.rank[one]))
    one, other = one[order], other[order]
    similarity = _similarities(collection, one, other)
    nothing = {name: pa.nulls(len(one), SCHEMA.field(name).type) for name in SCHEMA.names[4:]}
    columns = {"one": one, "other": other, "score": np.ones(len(one)), "similarity": similarity, **nothing}
    return pa.table(columns, schema=SCHEMA)


def _similarities(collection: Collection, one: Numbers, other: Numbers) -> NDArray[np.float64]:
    similarity = np.empty(len(one))
    for start in range(0, len(one), _BLOCK):
        part = slice(start, start + _BLOCK)
        # Exact in this order too: see search.retrieve.
        both = (collection.vectors(each[part]).astype(np.float64) for each in (one, other))
        similarity[part] = np.einsum("nd,nd->n", *both)
    return similarity


def write_clusters(path: Path, collection: Collection, contents: Contents, clusters: Clusters) -> None:
    """Write clusters.parquet: a row for each image of a cluster of two and more."""
    with atomic.new_file(path) as partial, pq.ParquetWriter(partial, CLUSTERS, compression="zstd") as writer:
        for start in range(0, len(clusters.image), _BLOCK):
            part = slice(start, start + _BLOCK)
            image, representative = clusters.image[part], clusters.representative[part]
            rows = collection.rows(image)
            names = collection.rows(representative, ("image_id", "uri", "source"))
            same = contents.first[image] == contents.first[representative]
            how = np.maximum(contents.kind[image], contents.kind[representative])  # PIXELS is the weaker claim
            columns = {
                "cluster_id": clusters.cluster[part],
                "image_id": [row.image_id for row in rows],
                "representative": [row.image_id for row in names],
                "similarity": _similarities(collection, image, representative),
                "score": clusters.score[part],
                "keep": clusters.keep[part],
                "exact": [NAMES[kind] if is_same else "" for kind, is_same in zip(how, same, strict=True)],
                "against": image >= collection.own,
                "uri": [row.uri for row in rows],
                "size": clusters.size[part],
                "weakest": clusters.weakest[part],
                "diameter": clusters.diameter[part],
            }
            writer.write_table(pa.table(columns, schema=CLUSTERS))


def write_lists(folder: Path, collection: Collection, present: NDArray[np.bool_], dropped: NDArray[np.bool_]) -> None:
    """Write keep.txt and drop.txt, an id a line, in the order of ids; and keep.uids.npy where images have DataComp's
    uids. `present` and `dropped` bool [images]; images of `against` are in neither list.
    """
    shards = collection.shards[: int(np.searchsorted(collection.starts, collection.own))]
    for name, mask in (("keep", present & ~dropped), ("drop", present & dropped)):
        uids: list[str] = []
        with atomic.new_file(folder / f"{name}.txt") as partial, partial.open("w", encoding="utf-8") as file:
            for ids, found in _ids_of(collection, shards, mask, folder / "work" / "spill"):
                file.writelines(f"{one_line(image_id)}\n" for image_id in ids)
                uids += found
        if name == "keep":
            _write_uids(folder / "keep.uids.npy", uids)


def one_line(image_id: str) -> str:
    """File names may hold line ends: those become `\\n` and `\\r`."""
    return image_id.replace("\n", "\\n").replace("\r", "\\r")


def _ids_of(
    collection: Collection, shards: Sequence[Shard], mask: NDArray[np.bool_], spill: Path
) -> Iterator[tuple[list[str], list[str]]]:
    """Ids of the images of `mask`, and their uids where there is such a column, in the order of ids."""
    if not shards:
        return
    paths = [shard.images_path for shard in shards]
    with connect(spill=spill) as database:
        starts = pa.table({"path": [str(path) for path in paths], "start": collection.starts[: len(paths)]})
        database.register("starts", starts)
        database.register("chosen", pa.table({"number": np.flatnonzero(mask[: collection.own])}))
        images = f"SELECT * FROM {scan(paths)} WHERE status = 'ok'"
        columns = [name for name in database.sql(images).columns if name.lower() == "uid"]
        uid = f'CAST("{columns[0]}" AS VARCHAR)' if columns else "NULL"
        found = database.sql(
            f"SELECT image_id, {uid} AS uid FROM ({images}) JOIN starts ON filename = path "
            "SEMI JOIN chosen ON start + file_row_number = number ORDER BY image_id"
        )
        for batch in found.to_arrow_reader(65_536):
            yield batch.column("image_id").to_pylist(), batch.column("uid").drop_null().to_pylist()


def _write_uids(path: Path, uids: Sequence[str]) -> None:
    """A DataComp subset: sorted pairs of unsigned 64-bit numbers, the halves of the hexadecimal uids."""
    halves = [(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids if _UID.fullmatch(uid)]
    if not halves:
        atomic.remove(path)
        return
    with atomic.new_file(path) as partial, partial.open("wb") as file:
        np.save(file, np.sort(np.array(halves, np.dtype("u8,u8"))), allow_pickle=False)
