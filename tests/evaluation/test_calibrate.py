import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from copydet.decisions.calibration import fit, read_calibration, threshold_for_precision
from copydet.descriptors.background import Bank, save_bank
from copydet.descriptors.runtimes import Runtime
from copydet.errors import UsageError
from copydet.evaluation.calibrate import (
    CalibrationPairs,
    calibrate_descriptor,
    choose_images,
    make_pairs,
    population,
    same_picture,
)
from copydet.evaluation.vectors import describe_source, fit_whitening, share_of
from copydet.images.edits import STRENGTHS
from copydet.images.sources import list_images


@pytest.fixture(scope="module")
def pairs(runtime: Runtime, pool_folder: Path) -> CalibrationPairs:
    return make_pairs(runtime, None, [str(pool_folder)], seed=1, images=40, neighbours=5)


def test_every_query_brings_its_nearest_references(pairs: CalibrationPairs) -> None:
    assert pairs.references == 20
    assert pairs.queries == 40 * len(STRENGTHS)
    assert len(pairs.is_copy) + pairs.left_out == pairs.queries * 5
    assert int(pairs.is_copy.sum()) + pairs.missed == 20 * len(STRENGTHS)


def test_copies_come_in_all_strengths_and_easy_ones_are_found(pairs: CalibrationPairs) -> None:
    found = [name for name, copy in zip(pairs.strength, pairs.is_copy, strict=True) if copy]
    counts = [found.count(name) for name in STRENGTHS]
    assert all(counts)
    assert counts[0] >= 18
    assert counts[0] > counts[-1]
    without = [copy for name, copy in zip(pairs.strength, pairs.is_copy, strict=True) if not name]
    assert not any(without)


def test_a_calibration_fitted_on_the_pairs_keeps_its_word_on_others(
    runtime: Runtime, pool_folder: Path, pairs: CalibrationPairs
) -> None:
    calibration = fit(pairs.similarity, pairs.normalised_similarity, pairs.is_copy, population="test", seed=1)
    others = make_pairs(runtime, None, [str(pool_folder)], seed=2, images=40, neighbours=5)
    scores = calibration.score(others.similarity, others.normalised_similarity)
    accepted = scores >= threshold_for_precision(calibration, 0.9)
    assert others.is_copy[accepted].mean() > 0.8
    assert abs(scores.mean() - others.is_copy.mean()) < 0.03


def test_the_same_seed_gives_the_same_pairs(runtime: Runtime, pool_folder: Path, pairs: CalibrationPairs) -> None:
    again = make_pairs(runtime, None, [str(pool_folder)], seed=1, images=40, neighbours=5)
    assert np.array_equal(pairs.similarity, again.similarity)
    assert np.array_equal(pairs.is_copy, again.is_copy)


def test_images_of_the_bank_are_left_out(runtime: Runtime, pool_folder: Path, tmp_path: Path) -> None:
    named, _ = describe_source(runtime, str(pool_folder))
    order = np.argsort([share_of(image_id) for image_id in named.ids])
    half = Bank(named.vectors[order[:90]].astype(np.float16), "half")
    pairs = make_pairs(runtime, half, [str(pool_folder)], images=120, neighbours=5)
    assert 10 <= pairs.references <= 20, "90 of 120 images are in the bank"
    assert (pairs.normalised_similarity < pairs.similarity).mean() > 0.9
    whole = Bank(named.vectors.astype(np.float16), "whole")
    with pytest.raises(UsageError, match="0 images that can be described and are not in the background bank"):
        make_pairs(runtime, whole, [str(pool_folder)], images=120)


def test_images_are_chosen_from_the_far_end_of_the_banks_order(pool_folder: Path) -> None:
    chosen = choose_images(list_images([str(pool_folder)]), 30)
    everything = [image.image_id for image in list_images([str(pool_folder)])]
    names = [image.image_id for image in chosen]
    assert names == sorted(names)
    assert set(names) == set(sorted(everything, key=share_of)[-30:])


def test_a_photograph_listed_twice_makes_no_false_pair(runtime: Runtime, pool_folder: Path, tmp_path: Path) -> None:
    for path in sorted(pool_folder.iterdir())[:20]:
        shutil.copy(path, tmp_path / path.name)
        shutil.copy(path, tmp_path / f"again-{path.name}")
    pairs = make_pairs(runtime, None, [str(tmp_path)], images=40, neighbours=5)
    assert pairs.left_out > 0
    assert not (pairs.similarity[~pairs.is_copy] > 0.999).any()


def test_mirrored_and_slightly_brighter_pictures_are_the_same_but_others_are_not(pool_folder: Path) -> None:
    pictures = [cv2.imread(str(path)) for path in sorted(pool_folder.iterdir())[:8]]
    thumbnails = np.stack([cv2.resize(p, (24, 24), interpolation=cv2.INTER_AREA).ravel() for p in pictures])
    thumbnails = thumbnails.astype(np.float32)
    mirrored = thumbnails.reshape(8, 24, 24, 3)[:, :, ::-1].reshape(8, -1) + 4
    assert np.array_equal(same_picture(thumbnails, np.ascontiguousarray(mirrored)), np.eye(8, dtype=bool))


def test_too_few_images_are_refused(runtime: Runtime, benchmark_folder: Path) -> None:
    with pytest.raises(UsageError, match="at least 20"):
        make_pairs(runtime, None, [str(benchmark_folder / "references")])


def test_the_population_is_said_in_words(pairs: CalibrationPairs) -> None:
    assert population(pairs, ["photos/shard-{000..010}.tar"]).startswith(
        "pairs that a search of 20 references proposes (5 for each query), for 160 queries"
    )


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
    assert made.copies > 20
