"""Codes searched on NVIDIA GPUs by faiss-gpu: each shard's codes are cloned to one of them, and one thread owns a GPU.

What stays on the CPU is said in one line each. The candidates are scored again exactly in either case. FAISS clones
inverted lists of PQ codes of 1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 28 or 32 numbers (its GpuIndexIVFPQ), and SQ codes;
neither RaBitQ nor HNSW.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from copydet.records import Vectors
from copydet.search.code_search import Nearest, SearchableShard, as_nearest, is_flat, search_codes

_MOST = 2048  # lists that are visited, and candidates, on a GPU


@dataclass(frozen=True)
class _Clone:
    codes: Any  # the original, held so that its identity stays its own
    on_gpu: Any  # None: it stayed on the CPU
    owner: ThreadPoolExecutor | None


class GpuCodes:
    """A `CodeSearch` that asks the GPUs for the shards that `clone` brought there, and the CPU for the others."""

    def __init__(self) -> None:
        count = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
        self._owners = [ThreadPoolExecutor(1, f"gpu-{gpu}") for gpu in range(count)]
        self._resources: dict[int, Any] = {}
        self._clones: dict[int, _Clone] = {}
        self._say: Callable[[str], None] = lambda _: None
        self._said: set[str] = set()

    def clone(self, shards: Sequence[SearchableShard], note: Callable[[str], None]) -> None:
        """Bring the codes of `shards` to the GPUs in turns, once; those of earlier calls that are no more go."""
        self._say = note
        coded = [shard for shard in shards if not is_flat(shard.codes)]
        before, self._clones = self._clones, {}
        reasons: dict[str, int] = {}
        for number, shard in enumerate(coded):
            known = before.get(id(shard.codes)) or self._clone(number, shard.codes, reasons)
            self._clones[id(shard.codes)] = known
        for reason, count in reasons.items():
            note(f"codes of {count:,} of {len(coded):,} shards are searched on the CPU: {reason}")

    def __call__(
        self,
        shard: SearchableShard,
        queries: Vectors,
        count: int,
        nprobe: int | None,
        mask: NDArray[np.bool_] | None,
    ) -> Nearest:
        """As `search_codes`; that does it, and it is said once, where a GPU index of FAISS cannot."""
        clone = self._clones.get(id(shard.codes))
        if clone is None or clone.owner is None:
            return search_codes(shard, queries, count, nprobe, mask)
        if unable := _unable(max(count, nprobe or 1), mask):
            if unable not in self._said:
                self._said.add(unable)
                self._say(f"codes are searched on the CPU: a GPU cannot {unable}")
            return search_codes(shard, queries, count, nprobe, mask)
        on_gpu, wanted = clone.on_gpu, min(count, len(shard.descriptors))
        return clone.owner.submit(_search, on_gpu, np.ascontiguousarray(queries), wanted, nprobe).result()

    def _clone(self, number: int, codes: Any, reasons: dict[str, int]) -> _Clone:
        if not self._owners:
            build = "finds no GPU" if hasattr(faiss, "StandardGpuResources") else "is built for the CPU only"
            reason = f"this FAISS {build} (see copydet doctor)"
        else:
            gpu = number % len(self._owners)
            try:
                on_gpu = self._owners[gpu].submit(self._send, gpu, codes).result()
                return _Clone(codes, on_gpu, self._owners[gpu])
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[-1]
        reasons[reason] = reasons.get(reason, 0) + 1
        return _Clone(codes, None, None)

    def _send(self, gpu: int, codes: Any) -> Any:
        library: Any = faiss  # the CPU build, whose types are checked, knows none of this
        if gpu not in self._resources:
            self._resources[gpu] = library.StandardGpuResources()
        options = library.GpuClonerOptions()
        options.allowCpuCoarseQuantizer = True  # lists that a graph finds: it stays on the CPU, codes do not
        return library.index_cpu_to_gpu(self._resources[gpu], gpu, codes, options)


def _unable(most: int, mask: NDArray[np.bool_] | None) -> str:
    """What of a search FAISS's GPU indexes cannot do; empty: nothing."""
    if mask is not None:
        return "leave out images, removed ones or those that --where does not choose"
    return f"visit more than {_MOST:,} lists, or propose more candidates" if most > _MOST else ""


def _search(on_gpu: Any, queries: Vectors, count: int, nprobe: int | None) -> Nearest:
    library: Any = faiss  # whose stubs do not know that its parameters take keywords
    parameters = None if nprobe is None else library.SearchParametersIVF(nprobe=nprobe)
    if parameters is not None and isinstance(faiss.downcast_index(on_gpu), faiss.IndexPreTransform):
        parameters = library.SearchParametersPreTransform(index_params=parameters)
    similarity, row = on_gpu.search(queries, count, params=parameters)
    return as_nearest(similarity, row, on_gpu.metric_type)
