from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import pytest

from copydet.decisions.calibration import neutral, read_calibration, threshold_for_precision
from copydet.descriptors.background import Bank, save_bank
from copydet.descriptors.runtimes import Runtime
from copydet.errors import UsageError
from copydet.evaluation.calibrate import (
    CalibrationPairs,
    calibrate_descriptor,
    fit_pairs,
    held_out_scores,
    make_pairs,
    outside,
    population,
    reliability,
)
from copydet.evaluation.vectors import describe_source, fit_whitening, share_of
from copydet.matching import OpenDescriptor


@dataclass(frozen=True)
class OpenLayout(OpenDescriptor):
    """An open descriptor that needs no network."""

    layout: Runtime

    @cached_property
    def runtime(self) -> Runtime:
        return self.layout


def open_layout(runtime: Runtime, bank: Bank | None = None) -> OpenLayout:
    return OpenLayout(runtime.descriptor, "cpu", bank, neutral(bank is not None), runtime)


@pytest.fixture(scope="module")
def pairs(runtime: Runtime, pool_folder: Path) -> CalibrationPairs:
    return make_pairs(open_layout(runtime), [str(pool_folder)], seed=1, images=40)


@pytest.mark.slow
def test_every_query_brings_what_the_matching_proposes(pairs: CalibrationPairs) -> None:
    assert pairs.references == 20
    asked = np.unique(pairs.query[~pairs.blind])
    assert len(asked) == pairs.queries == 20 + 10 + 4 + 8 + 4 + 12
    per_query = np.bincount(pairs.query[~pairs.blind])
    assert per_query.min() >= 5, "ten by views, less nearly same pictures"
    assert per_query.max() <= 20, "and at most ten more by votes"


@pytest.mark.slow
def test_copies_are_labelled_and_easy_to_find_among_drawn_pictures(pairs: CalibrationPairs) -> None:
    copies = pairs.is_copy[~pairs.blind]
    assert copies.sum() + pairs.missed == 30
    assert copies.sum() > 15
    assert pairs.similarity[~pairs.blind][copies].mean() > pairs.similarity[~pairs.blind][~copies].mean() + 0.1


@pytest.mark.slow
def test_a_third_of_the_queries_is_asked_again_without_pixels(pairs: CalibrationPairs) -> None:
    again = np.unique(pairs.query[pairs.blind])
    assert len(again) == -(-pairs.queries // 3)
    compared = np.array([numbers.compared for numbers in pairs.numbers])
    assert not compared[pairs.blind].any()
    assert compared[~pairs.blind].mean() > 0.25, "where features or a likely view say where to look"


@pytest.mark.slow
def test_the_two_models_keep_their_word_on_queries_that_were_held_out(pairs: CalibrationPairs) -> None:
    scores = held_out_scores(pairs)
    for rows in (~pairs.blind, pairs.blind):
        assert abs(scores[rows].mean() - pairs.is_copy[rows].mean()) < 0.03
        assert scores[rows & pairs.is_copy].mean() > scores[rows & ~pairs.is_copy].mean() + 0.3
    calibration = fit_pairs(pairs, population="test", seed=1)
    plain = calibration.score(pairs.similarity, pairs.normalised_similarity)
    assert abs(plain.mean() - pairs.is_copy.mean()) < 0.03
    assert calibration.verified is not None
    assert calibration.verified.pairs == (~pairs.blind).sum()
    accepted = scores >= threshold_for_precision(calibration, 0.9, verified=True)
    assert accepted[~pairs.blind].any()
    assert pairs.is_copy[accepted & ~pairs.blind].mean() >= 0.9


def test_images_of_the_bank_are_taken_out_of_it(runtime: Runtime, pool_folder: Path) -> None:
    named, _ = describe_source(runtime, str(pool_folder))
    bank = Bank(named.vectors.astype(np.float16), "whole")
    left = outside(named.vectors[:50], bank)
    assert left is not None
    assert len(left.vectors) <= 70
    assert (left.vectors.astype(np.float32) @ named.vectors[:50].T).max() < 0.97
    assert outside(named.vectors, None) is None


@pytest.mark.slow
def test_held_out_scores_come_from_models_that_did_not_see_the_query(pairs: CalibrationPairs) -> None:
    scores = held_out_scores(pairs)
    assert ((scores > 0) & (scores < 1)).all()
    other = replace(pairs, is_copy=np.where(pairs.query == 3, ~pairs.is_copy, pairs.is_copy))
    changed = held_out_scores(other)
    assert np.array_equal(scores[pairs.query == 3], changed[pairs.query == 3])
    assert not np.array_equal(scores, changed)


def test_reliability_of_honest_scores_is_near_nought_and_of_boasts_is_not() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(20_000)
    label = rng.random(20_000) < score
    error, table = reliability(score, label)
    assert error is not None
    assert error < 0.015
    assert {count for _, _, count in table} <= {len(score[score >= 0.01]) // 10, len(score[score >= 0.01]) // 10 + 1}
    assert sum(count for _, _, count in table) == (score >= 0.01).sum()
    boasted, _ = reliability(np.sqrt(score), label)
    assert boasted == pytest.approx(2 / 3 - 1 / 2, abs=0.02)
    assert reliability(np.zeros(100), np.zeros(100, bool)) == (None, ())


def test_too_few_images_are_refused(runtime: Runtime, benchmark_folder: Path) -> None:
    with pytest.raises(UsageError, match="at least 20"):
        make_pairs(open_layout(runtime), [str(benchmark_folder / "references")])


@pytest.mark.slow
def test_the_population_is_said_in_words(pairs: CalibrationPairs) -> None:
    assert population(pairs, ["photos/shard-{000..010}.tar"]).startswith(
        "pairs that a search of 20 references proposes for 58 queries"
    )


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
