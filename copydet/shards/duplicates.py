"""Ids that occur more than once: found by DuckDB over files, so that memory does not grow with the collection."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from copydet.shards.chunks import Chunk
from copydet.shards.sql import connect, living_rows, scan
from copydet.store import atomic

COLUMNS = pa.schema([("chunk", pa.int64()), ("row", pa.int64()), ("image_id", pa.string()), ("message", pa.string())])

_STAGED = """
CREATE TEMP VIEW staged AS
SELECT image_id, uri, regexp_extract(filename, 'chunk-([0-9]+)', 1)::BIGINT AS chunk, file_row_number AS row FROM """

# Most runs bring no id twice: this reads the ids of the index once, and nothing else of it. What follows is only asked
# about ids that do.
_REPEATED = """
CREATE TEMP TABLE repeated AS
SELECT image_id FROM staged GROUP BY image_id HAVING count(*) > 1
UNION SELECT image_id FROM {ids} SEMI JOIN staged USING (image_id)
"""

_QUERY = """
WITH in_index AS (
    SELECT image_id, any_value(uri) AS uri FROM indexed SEMI JOIN repeated USING (image_id) GROUP BY image_id
), numbered AS (
    SELECT regexp_extract(image_id, '^(.*)#[0-9]{1,9}$', 1, 's') AS image_id,
        max(regexp_extract(image_id, '#([0-9]{1,9})$', 1)::BIGINT) AS highest
    FROM (SELECT image_id FROM staged UNION ALL SELECT image_id FROM indexed)
    WHERE regexp_matches(image_id, '#[0-9]{1,9}$') GROUP BY 1
), copies AS (
    SELECT chunk, row, image_id,
        row_number() OVER (PARTITION BY image_id ORDER BY chunk, row) AS nth,
        first_value(uri) OVER (PARTITION BY image_id ORDER BY chunk, row) AS first_uri
    FROM staged SEMI JOIN repeated USING (image_id)
)
SELECT chunk, row,
    image_id || '#' || (greatest(coalesce(highest, 1), 1) + nth - CASE WHEN in_index.uri IS NULL THEN 1 ELSE 0 END)
        AS image_id,
    CASE WHEN in_index.uri IS NULL THEN 'the id ' || image_id || ' is taken by ' || first_uri
        ELSE 'the id ' || image_id || ' is taken by ' || in_index.uri || ' in the index; remove that to replace it' END
        AS message
FROM copies LEFT JOIN in_index USING (image_id) LEFT JOIN numbered USING (image_id)
WHERE in_index.uri IS NOT NULL OR nth > 1
ORDER BY chunk, row
"""


def find_duplicates(
    target: Path,
    chunks: Sequence[Chunk],
    shards: Mapping[str, Path],
    deletions: Path | None,
    memory_bytes: int,
) -> None:
    """Write `target`, a Parquet file with a row for each staged image whose id is taken: chunk, row in the chunk, the
    unique id that it gets instead (`photo.jpg#2`), and a message that names the image that keeps the id.

    The first image of an id keeps it; images of `shards` (name -> images.parquet) that `deletions` does not name come
    before all staged ones. The new number follows the highest that any image of index and chunks has, so it is free.
    """
    with atomic.new_file(target) as path, pq.ParquetWriter(path, COLUMNS) as writer:
        if not chunks:
            return
        with connect(memory_bytes, spill=target.parent / "spill") as database:
            database.execute(_STAGED + scan([chunk.rows_path for chunk in chunks]))
            ids = scan(list(shards.values())) if shards else "(SELECT image_id FROM staged WHERE false)"
            database.execute(_REPEATED.format(ids=ids))
            if not database.execute("SELECT 1 FROM repeated LIMIT 1").fetchall():
                return
            database.execute(f"CREATE TEMP VIEW indexed AS {living_rows(shards, deletions)}")
            for batch in database.sql(_QUERY).to_arrow_reader(65_536):
                writer.write_batch(batch.cast(COLUMNS))


def read_duplicates(path: Path, first_chunk: int, last_chunk: int) -> dict[int, pa.Table]:
    """Chunk number -> its rows of a file of `find_duplicates`, for the chunks from `first_chunk` to `last_chunk`."""
    filters = [("chunk", ">=", first_chunk), ("chunk", "<=", last_chunk)]
    table = pq.read_table(path, filters=filters)
    return {number: table.filter(pc.equal(table["chunk"], number)) for number in table["chunk"].unique().to_pylist()}
