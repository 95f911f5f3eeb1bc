"""A pair of images, from pixels to evidence."""

import cv2
import numpy as np
import pytest
from photos import photos
from sides import compare, query_side, reference_side, whole, worst_corner

from copydet.images.edits import EDITS
from copydet.local_features.frames import Voters
from copydet.verification.correspond import correspond
from copydet.verification.verify import Evidence, Place, ReferenceSide, verify

PLACED = ["crop", "pad", "paste", "cut_side", "border", "hflip", "caption", "shrink", "stretch", "rotate", "affine"]


def is_sure(evidence: Evidence | None) -> bool:
    if evidence is None or evidence.agreement is None:
        return False
    return evidence.agreement.median > 0.8 and evidence.agreement.share > 0.7


@pytest.mark.parametrize("edit", PLACED)
def test_the_overlaps_are_the_true_ones_within_a_twentieth(edit: str) -> None:
    reference = photos()[3]
    copy = EDITS[edit](reference, 0.5, np.random.default_rng(3), [photos()[1]])
    evidence = compare(copy.pixels, reference)
    assert evidence is not None
    assert evidence.query_overlap == pytest.approx(copy.query_overlap, abs=0.05)
    assert evidence.reference_overlap == pytest.approx(copy.reference_overlap, abs=0.05)


@pytest.mark.parametrize(
    "edit", [*PLACED, "invert", "quarter_turn", "vflip", "transpose", "perspective", "paste_turned"]
)
def test_a_copy_is_found_where_it_is(edit: str) -> None:
    reference = photos()[0]
    copy = EDITS[edit](reference, 0.5, np.random.default_rng(7), [photos()[1]])
    evidence = compare(copy.pixels, reference, with_view=False)
    assert evidence is not None
    assert evidence.geometry is not None
    assert copy.homography is not None
    assert worst_corner(evidence, copy.homography, copy.pixels, reference) < 0.02
    assert is_sure(evidence)


def test_what_was_turned_over_or_inverted_is_told() -> None:
    reference = photos()[0]
    for edit, mirrored, negative in (("hflip", True, False), ("invert", False, True), ("jpeg", False, False)):
        copy = EDITS[edit](reference, 0.5, np.random.default_rng(1))
        evidence = compare(copy.pixels, reference)
        assert evidence is not None
        assert evidence.geometry is not None
        assert (evidence.geometry.mirrored, evidence.geometry.negative) == (mirrored, negative)


@pytest.mark.parametrize("edit", ["blur", "pixelate", "halftone"])
def test_where_features_die_the_view_still_says_where_the_copy_lies(edit: str) -> None:
    reference = photos()[0]
    copy = EDITS[edit](reference, 1.0, np.random.default_rng(1))
    evidence = compare(copy.pixels, reference)
    assert evidence is not None
    assert evidence.query_overlap > 0.9
    assert evidence.reference_overlap > 0.9
    assert evidence.agreement is not None
    assert evidence.agreement.median > 0.6


def test_other_pictures_are_not_taken_for_copies() -> None:
    references = [reference_side(photo) for photo in photos()]
    for number, photo in enumerate(photos()):
        query = query_side(photo)
        for other, reference in enumerate(references):
            assert is_sure(verify(query, reference, [whole(query)])) == (number == other)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 2), (17, 19), (200, 300)])
@pytest.mark.parametrize("content", ["flat", "gradient", "noise", "checks"])
def test_pictures_that_say_little_give_no_exception_and_match_no_photo(shape: tuple[int, int], content: str) -> None:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    drawn = {
        "flat": np.full(shape, 90),
        "gradient": (rows + columns) * 255 // max(sum(shape) - 2, 1),
        "noise": np.random.default_rng(0).integers(0, 256, shape),
        "checks": (rows // 8 + columns // 8) % 2 * 255,
    }[content]
    strange = np.repeat(drawn.astype(np.uint8)[..., None], 3, axis=2)
    query, reference = query_side(strange), reference_side(strange)
    for other_query, other in ((query, reference_side(photos()[0])), (query_side(photos()[0]), reference)):
        assert not is_sure(verify(other_query, other, [whole(other_query)]))
        verify(other_query, other)
    evidence = verify(query, reference, [whole(query)])
    if evidence is not None and evidence.agreement is not None:
        assert 0 <= evidence.agreement.median <= 1
        assert 0 <= evidence.agreement.share <= 1
        assert 0 <= evidence.query_overlap <= 1
        assert 0 <= evidence.reference_overlap <= 1


def test_without_the_reference_s_pixels_features_alone_give_the_place() -> None:
    reference = photos()[0]
    copy = EDITS["paste"](reference, 0.5, np.random.default_rng(4), [photos()[1]])
    side = reference_side(reference)
    evidence = verify(query_side(copy.pixels), ReferenceSide(side.records, side.original, lambda: None))
    assert evidence is not None
    assert evidence.agreement is None
    assert evidence.reference_size == side.original
    assert evidence.query_overlap == pytest.approx(copy.query_overlap, abs=0.05)


def test_neither_features_nor_a_view_give_no_evidence() -> None:
    flat = np.full((100, 120, 3), 200, np.uint8)
    assert compare(flat, photos()[0], with_view=False) is None


def test_an_edge_filter_leaves_outlines_that_agree_where_the_gist_found_them() -> None:
    reference = photos()[3]
    edges = EDITS["edges"](reference, 1.0, np.random.default_rng(1)).pixels[:, ::-1]
    query, other = query_side(np.ascontiguousarray(edges)), reference_side(photos()[1])
    mirrored = Place(np.array([[-1, 0, query.picture.size[0] - 1], [0, 1, 0], [0, 0, 1.0]]), query.picture.size)
    right = verify(query, reference_side(reference), [mirrored])
    wrong = verify(query, other, [mirrored])
    assert right is not None
    assert right.agreement is not None
    assert right.agreement.outlines > 0.5
    assert right.query_overlap > 0.95
    assert np.linalg.det(right.matrix[:2, :2]) < 0
    assert wrong is None or wrong.agreement is None or wrong.agreement.outlines < 0.25


def test_the_same_pair_gives_the_same_evidence() -> None:
    reference = photos()[2]
    copy = EDITS["perspective"](reference, 0.6, np.random.default_rng(4))
    cv2.setRNGSeed(1)
    first = compare(copy.pixels, reference)
    cv2.setRNGSeed(2)
    second = compare(copy.pixels, reference)
    assert first is not None
    assert second is not None
    assert np.array_equal(first.matrix, second.matrix)
    assert first.query_overlap == second.query_overlap


def test_of_a_pasted_crop_only_the_part_that_was_pasted_is_told() -> None:
    reference, other = photos()[0], photos()[1]
    height, width = reference.shape[:2]
    part = reference[height // 4 : height, : width // 2]
    query = cv2.resize(other, (900, 700))
    query[100 : 100 + len(part), 300 : 300 + part.shape[1]] = part
    evidence = compare(query, reference, with_view=False)
    assert evidence is not None
    assert evidence.part == pytest.approx((0, 0.25, 0.5, 1), abs=0.06)
    whole = compare(reference, reference)
    assert whole is not None
    assert whole.part is None


def test_a_single_vote_says_where_to_look() -> None:
    query, whole = query_side(photos()[0]), reference_side(photos()[0])
    side = ReferenceSide(whole.records[:1], whole.original, whole.see)
    first = correspond(query.features, side.records)
    variant = first.mirrored[:1] + 2 * first.negative[:1]
    voters = Voters(variant.astype(np.int64), first.asker[:1], first.answer[:1], np.array([0.8]))
    assert verify(query, side) is None
    evidence = verify(query, side, voters=voters)
    assert is_sure(evidence)
    assert evidence is not None
    assert evidence.geometry is not None
    assert evidence.geometry.inliers == 1
    assert evidence.query_overlap > 0.9
    other = reference_side(photos()[1])
    assert not is_sure(verify(query, ReferenceSide(whole.records[:1], other.original, other.see), voters=voters))
    assert verify(query, ReferenceSide(whole.records[:1], whole.original, lambda: None), voters=voters) is None
