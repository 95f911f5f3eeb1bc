"""References proposed by the votes of local features."""

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
from sklearn.datasets import load_sample_images

from copydet.errors import CopydetError
from copydet.images.edits import EDITS
from copydet.local_features.codes import shipped_codec, unpack_frames
from copydet.local_features.describe import QueryFeatures, describe_image, query_features
from copydet.records import ImageFeatures, Pixels
from copydet.search.votes import LocalLists, _nearest, _table
from copydet.shards.local import join_local

PASTED = 17  # the reference that is looked for


@cache
def references() -> list[Pixels]:
    """The quarters of six photos."""
    photos = [np.asarray(image) for image in load_sample_images().images]
    for name in ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg"):
        photos.insert(-2, np.asarray(cv2.imread(str(Path(skimage.data_dir) / name)), np.uint8))
    quarters = []
    for photo in photos:
        height, width = photo.shape[0] // 2, photo.shape[1] // 2
        quarters += [photo[y : y + height, x : x + width] for y in (0, height) for x in (0, width)]
    return [np.asarray(cv2.resize(each, (320, 240), interpolation=cv2.INTER_AREA), np.uint8) for each in quarters]


@cache
def records() -> list[ImageFeatures]:
    return [describe_image(pixels, 110) for pixels in references()]


@cache
def pasted() -> QueryFeatures:
    """A copy of one reference at a third of its size, on another photo."""
    host = cv2.resize(references()[0], (512, 384)).copy()
    small = cv2.resize(references()[PASTED], None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    host[120 : 120 + small.shape[0], 300 : 300 + small.shape[1]] = small
    return query_features(np.asarray(host, np.uint8))


def lists(*parts: int) -> LocalLists:
    """The references in as many shards as there are parts, of so many images each."""
    ends = np.cumsum([0, *parts])
    shards = [join_local(records()[start:end]) for start, end in pairwise(ends)]
    return LocalLists(shipped_codec(), shards)


def test_a_small_paste_is_found_among_distractors() -> None:
    voted = lists(len(records())).vote(pasted(), 5)
    assert PASTED in voted.image[:2]
    assert 0 in voted.image[:2]  # the photo that it was pasted on
    assert voted.weight[1] > 3 * voted.weight[2]
    assert (np.diff(voted.weight) <= 0).all()


def test_those_who_voted_say_where_the_reference_is() -> None:
    voted = lists(len(records())).vote(pasted(), 5)
    voters = voted.voters[voted.image.tolist().index(PASTED)]
    frames = unpack_frames(records()[PASTED].records)[voters.answer]
    there = (frames[:, :2] * 320 * 0.4 + [300, 120]) / 512
    assert len(voters.asker) > 5
    assert (voters.variant == 0).all()
    assert (np.linalg.norm(pasted().frames[voters.asker, :2] - there, axis=1) < 0.03).all()
    assert [each.weight.sum() for each in voted.voters] == pytest.approx(voted.weight)


@pytest.mark.parametrize("edit", ["hflip", "invert", "quarter_turn", "cut_side"])
def test_copies_turned_mirrored_or_inverted_get_the_most_votes(edit: str) -> None:
    copy = EDITS[edit](references()[PASTED], 0.5, np.random.default_rng(1)).pixels
    assert lists(len(records())).vote(query_features(copy), 3).image[0] == PASTED


def test_several_queries_vote_in_one_go_as_they_do_one_by_one() -> None:
    nothing = query_features(np.full((200, 200, 3), 90, np.uint8))
    queries = [pasted(), nothing, *(query_features(np.ascontiguousarray(each[:, ::-1])) for each in references()[:3])]
    every = lists(len(records()))
    together, fewer = every.vote_each(queries, 4), every.vote_each(queries, 4, voters=False)
    for query, one, other in zip(queries, together, fewer, strict=True):
        alone = every.vote(query, 4)
        for each in (one, other):
            np.testing.assert_array_equal(each.image, alone.image)
            np.testing.assert_allclose(each.weight, alone.weight, rtol=1e-4)
        assert not other.voters
        for mine, its in zip(alone.voters, one.voters, strict=True):
            for name in ("variant", "asker", "answer"):
                np.testing.assert_array_equal(getattr(mine, name), getattr(its, name))


def test_votes_skip_what_was_not_selected() -> None:
    every = lists(len(records()))
    selected = np.ones(len(records()), bool)
    selected[PASTED] = False
    voted = every.vote(pasted(), 50, selected)
    assert PASTED not in voted.image
    assert voted.image[0] == 0
    assert len(every.vote(pasted(), 50, np.zeros(len(records()), bool)).image) == 0
    only = np.zeros(len(records()), bool)
    only[PASTED] = True
    assert every.vote(pasted(), 50, only).image.tolist() in ([PASTED], [])


def test_the_votes_do_not_depend_on_how_references_are_split_into_shards() -> None:
    count = len(records())
    whole = lists(count).vote(pasted(), 20)
    for parts in ((1, count - 1), (5, 0, count - 5), (4, 4, 4, count - 12)):
        split = lists(*parts).vote(pasted(), 20)
        assert np.array_equal(split.image, whole.image)
        assert np.allclose(split.weight, whole.weight)
        here, there = ([sorted(zip(v.asker, v.answer, strict=True)) for v in each.voters] for each in (whole, split))
        assert here == there


def test_no_features_on_either_side_give_no_votes() -> None:
    flat = np.full((64, 64, 3), 90, np.uint8)
    assert len(lists(len(records())).vote(query_features(flat), 5).image) == 0
    empty = LocalLists(shipped_codec(), [join_local([describe_image(flat, 110)] * 3)])
    assert empty.images == 3
    assert len(empty.vote(pasted(), 5).image) == 0
    assert len(LocalLists(shipped_codec(), []).vote(pasted(), 5).image) == 0


@pytest.mark.parametrize("centres", [2, 100, 128, 300, 2048])
def test_the_nearest_lists_are_those_of_an_exhaustive_search(centres: int) -> None:
    rng = np.random.default_rng(centres)
    vectors, places = rng.normal(size=(300, 8)).astype(np.float32), rng.normal(size=(centres, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found, away = _nearest(vectors, _table(places), len(places), 6)
    order = found.argsort(axis=1)
    found, away = np.take_along_axis(found, order, axis=1), np.take_along_axis(away, order, axis=1)
    distance = ((vectors[:, None] - places) ** 2).sum(axis=2)
    right = np.sort(distance.argsort(axis=1)[:, :6], axis=1)
    assert np.array_equal(found[:, -right.shape[1] :], right)
    assert np.allclose(away[:, -right.shape[1] :], np.take_along_axis(distance, right, axis=1), atol=1e-5)
    assert (found[:, : -right.shape[1]] == -1).all()


def test_distances_are_those_to_the_decoded_features() -> None:
    stored, codec = join_local(records()), shipped_codec()
    vectors = pasted().vectors[0]
    distance, feature = LocalLists(codec, [stored])._search(vectors, None)
    exact = ((vectors[:, None] - codec.decode_vectors(stored.features)) ** 2).sum(axis=2)
    there = feature >= 0
    assert there.mean() > 0.7
    assert np.allclose(distance[there], np.take_along_axis(exact, feature, axis=1)[there], atol=1e-4)


def test_features_of_a_list_that_there_is_not_are_refused_in_one_line() -> None:
    damaged = [replace(each, records=each.records.copy()) for each in records()]
    damaged[3].records[0, 4:6] = 255
    for ask in (
        lambda: LocalLists(shipped_codec(), [join_local(damaged)]).vote(pasted(), 5),
        lambda: shipped_codec().decode(damaged[3].records),
    ):
        with pytest.raises(CopydetError, match=r"damaged .list 65,535 of 2,048"):
            ask()
