from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from open_layout import open_layout

from copydet.decisions.calibration import read_calibration, threshold_for_precision
from copydet.descriptors.background import Bank, save_bank
from copydet.descriptors.runtimes import Runtime
from copydet.errors import UsageError
from copydet.evaluation.calibrate import (
    CalibrationPairs,
    calibrate_descriptor,
    fit_pairs,
    make_pairs,
    outside,
    population,
    stored_population,
)
from copydet.evaluation.fitting import held_out_scores
from copydet.evaluation.vectors import describe_source, fit_whitening, share_of


@pytest.mark.slow
def test_every_query_brings_what_the_matching_proposes(calibration_pairs: CalibrationPairs) -> None:
    assert calibration_pairs.references == 20
    query = calibration_pairs.query[~calibration_pairs.searched.blind]
    asked = np.unique(query)
    assert len(asked) == calibration_pairs.queries == 20 + 10 + 4 + 8 + 4 + 12
    per_query = np.bincount(query)
    assert per_query.min() >= 5, "ten by views, less nearly same pictures"
    assert per_query.max() <= 20, "and at most ten more by votes"


@pytest.mark.slow
def test_copies_are_labelled_and_easy_to_find_among_drawn_pictures(calibration_pairs: CalibrationPairs) -> None:
    seen = ~calibration_pairs.searched.blind
    copies = calibration_pairs.searched.is_copy[seen]
    assert copies.sum() + calibration_pairs.missed == 30
    assert copies.sum() > 15
    assert calibration_pairs.similarity[seen][copies].mean() > calibration_pairs.similarity[seen][~copies].mean() + 0.1


@pytest.mark.slow
def test_a_third_of_the_queries_is_asked_again_without_pixels(calibration_pairs: CalibrationPairs) -> None:
    searched = calibration_pairs.searched
    assert len(np.unique(calibration_pairs.query[searched.blind])) == -(-calibration_pairs.queries // 3)
    compared = np.array([numbers.compared for numbers in searched.numbers])
    assert not compared[searched.blind].any()
    assert compared[~searched.blind].mean() > 0.25, "where features or a likely view say where to look"


@pytest.mark.slow
def test_the_two_models_keep_their_word_on_images_that_were_held_out(calibration_pairs: CalibrationPairs) -> None:
    searched = calibration_pairs.searched
    scores, is_copy, seen = held_out_scores(searched), searched.is_copy, ~searched.blind
    for rows in (seen, ~seen):
        assert abs(scores[rows].mean() - is_copy[rows].mean()) < 0.03
        assert scores[rows & is_copy].mean() > scores[rows & ~is_copy].mean() + 0.3
    calibration = fit_pairs(calibration_pairs, sources=["photos"], seed=1)
    plain = calibration.score(calibration_pairs.similarity, calibration_pairs.normalised_similarity)
    assert abs(plain.mean() - is_copy.mean()) < 0.03
    assert calibration.verified is not None
    assert calibration.verified.pairs == seen.sum()
    accepted = scores >= threshold_for_precision(calibration.verified_thresholds, 0.9)
    assert accepted[seen].any()
    assert is_copy[accepted & seen].mean() >= 0.9


def test_images_of_the_bank_are_taken_out_of_it(runtime: Runtime, pool_folder: Path) -> None:
    named, _ = describe_source(runtime, str(pool_folder))
    bank = Bank(named.vectors.astype(np.float16), "whole")
    left = outside(named.vectors[:50], bank)
    assert left is not None
    assert len(left.vectors) <= 70
    assert (left.vectors.astype(np.float32) @ named.vectors[:50].T).max() < 0.97
    assert outside(named.vectors, None) is None


@pytest.mark.slow
def test_held_out_scores_come_from_models_that_did_not_see_the_image(calibration_pairs: CalibrationPairs) -> None:
    scores, group = held_out_scores(calibration_pairs.searched), calibration_pairs.searched.group
    assert ((scores > 0) & (scores < 1)).all()
    is_copy, held = calibration_pairs.searched.is_copy, group == group[0]
    other = replace(calibration_pairs.searched, is_copy=np.where(held, ~is_copy, is_copy))
    changed = held_out_scores(other)
    assert np.array_equal(scores[held], changed[held])
    assert not np.array_equal(scores, changed)


def test_too_few_images_are_refused(runtime: Runtime, benchmark_folder: Path) -> None:
    with pytest.raises(UsageError, match="at least 20"):
        make_pairs(open_layout(runtime), [str(benchmark_folder / "references")])


@pytest.mark.slow
def test_the_population_is_said_in_words(calibration_pairs: CalibrationPairs) -> None:
    assert population(calibration_pairs, ["photos/shard-{000..010}.tar"]).startswith(
        "pairs that a search of 20 references proposes for 58 queries"
    )
    said = stored_population(calibration_pairs, ["photos/shard-{000..010}.tar"])
    assert said.startswith("pairs that de-duplication looks at in a collection of 20 photographs and 58 queries")
    assert said.endswith("images of shard-{000..010}.tar")


@pytest.mark.slow
def test_a_descriptor_folder_gets_its_calibration(pool_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    torch = pytest.importorskip("torch")
    from copydet.descriptors.export import export_descriptor
    from copydet.descriptors.network import NetworkSpec, build_network
    from copydet.descriptors.runtimes import open_runtime
    from copydet.images.resize import Resize

    torch.manual_seed(0)
    network = build_network(NetworkSpec("mobilenet_v2", 32))
    drawn = [cv2.resize(cv2.imread(str(path)), (64, 64))[..., ::-1] for path in sorted(pool_folder.iterdir())]
    images = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2) / 128.0 - 1.0
    with torch.no_grad():  # statistics that fit, and whitening: with random weights all descriptors fall together
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        network.train().pooled(images)
        whitening = fit_whitening(network.eval().pooled(images)[0].numpy())
        network.projection.weight.copy_(torch.from_numpy(whitening.matrix[:, -32:].T))
        network.projection.bias.copy_(-network.projection.weight @ torch.from_numpy(whitening.mean).float())
    folder = tmp_path / "tiny"
    descriptor = export_descriptor(
        folder, network, name="tiny", trunk="mobilenet_v2", dimension=32, resize=Resize("square", 64)
    )
    named, _ = describe_source(open_runtime(descriptor, "cpu", threads=1), str(pool_folder))
    order = np.argsort([share_of(image_id) for image_id in named.ids])
    save_bank(folder / "background.safetensors", named.vectors[order[:40]])
    made = calibrate_descriptor(folder, [str(pool_folder)], images=40, device="cpu")
    assert read_calibration(folder / "calibration.json") == made
    assert made.calibrated
    assert made.verified is not None
    assert made.verified.pairs > 200
    assert made.copies > 10
