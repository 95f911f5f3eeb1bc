from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_retrieve import draw, make_shards, searches

from copydet.search.device_scan import DeviceScan
from copydet.search.retrieve import retrieve, scan_rows


@settings(max_examples=60, deadline=None)
@given(searches(), st.sampled_from([0, 2000, 1 << 20]), st.sampled_from([0, 1 << 20]))
def test_torch_finds_what_the_exact_scan_finds_with_the_same_ties(search: Any, tile: int, resident: int) -> None:
    vectors, edges, queries, k, mask = search
    shards = make_shards(vectors, edges)
    for selected in (None, np.split(mask, edges)):
        scan = DeviceScan("cpu", tile_bytes=tile, resident_bytes=resident)
        ours = retrieve(shards, queries, k, selected=selected, scan=scan)
        theirs = retrieve(shards, queries, k, selected=selected)
        for name in ("shard", "row", "similarity"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize("dimension", [64, 256, 512])
def test_rows_that_half_precision_cannot_tell_apart_are_told_apart(dimension: int) -> None:
    rows = draw(1, 1, dimension).repeat(1500, axis=0).astype(np.float16)
    rng = np.random.default_rng(2)
    rows[np.arange(1500), rng.integers(0, dimension, 1500)] += np.float16(2**-10)
    queries = np.concatenate([draw(1, 1, dimension), draw(20, 3, dimension)])
    scan = DeviceScan("cpu", tile_bytes=1 << 16)
    for chosen in (None, np.flatnonzero(rng.random(1500) < 0.5)):
        ours, theirs = (each(rows, queries, 10, chosen) for each in (scan, scan_rows))
        np.testing.assert_array_equal(ours.number, theirs.number)
        np.testing.assert_array_equal(ours.similarity, theirs.similarity)


def test_rows_stay_on_the_device_while_there_is_room() -> None:
    scan = DeviceScan("cpu", resident_bytes=3 * 100 * 16 * 2)
    shards = make_shards(draw(400), [100, 200, 300])
    for _ in range(2):
        retrieve(shards, draw(3, seed=1), 2, scan=scan)
        assert len(scan._resident) == 3
