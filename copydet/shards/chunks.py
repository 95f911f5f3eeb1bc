"""A chunk: what is staged of some thousand images while a collection is described."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from copydet.records import StoredVectors
from copydet.shards.local import LocalFiles, StoredLocal, map_local
from copydet.shards.shard import map_descriptors


@dataclass(frozen=True)
class Chunk:
    """A finished chunk: `images` rows, `described` of them with a descriptor (and local features, if `has_local`), and
    those of `parts` parts of each.
    """

    number: int
    folder: Path
    images: int
    described: int
    has_local: bool = False
    parts: int = 0

    @property
    def rows_path(self) -> Path:
        return self.folder / f"chunk-{self.number:06d}.parquet"

    @property
    def vectors_path(self) -> Path:
        return self.folder / f"chunk-{self.number:06d}.f16"

    @property
    def views_path(self) -> Path:
        return self.vectors_path.with_suffix(".views")

    @property
    def local_files(self) -> LocalFiles:
        return LocalFiles(*(self.vectors_path.with_suffix(kind) for kind in (".local", ".offsets", ".gists")))

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its files in the order in which they are written: with its rows it is a chunk."""
        views = (self.views_path,) if self.parts else ()
        return (self.vectors_path, *views, *(self.local_files if self.has_local else ()), self.rows_path)

    @property
    def stamp(self) -> tuple[int, int, int]:
        """Tells this chunk from one that was described again: number, images, time of writing in ns."""
        return self.number, self.images, self.rows_path.stat().st_mtime_ns

    def rows(self) -> pa.Table:
        """The rows in source order, columns of `metadata.rows_table`."""
        return pq.read_table(self.rows_path)

    def vectors(self, dimension: int) -> StoredVectors:
        """float16 [described, dimension], mapped: descriptors of the rows with status ok, in their order."""
        return map_descriptors(self.vectors_path, dimension)

    def views(self, dimension: int) -> StoredVectors:
        """float16 [described, parts, dimension], mapped: descriptors of the parts of the same images."""
        return map_descriptors(self.views_path, dimension).reshape(self.described, self.parts, dimension)

    def local(self) -> StoredLocal:
        """Local features of the same images, mapped. Raises CopydetError where they are damaged."""
        return map_local(self.local_files, self.described)
