"""Both runtimes compute one function, whatever comes with an image and however many threads there are."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from copydet.descriptors.devices import cuda_problem
from copydet.descriptors.registry import Descriptor, describe_names, load_descriptor
from copydet.descriptors.runtimes import open_runtime
from copydet.errors import UsageError
from tests.descriptors.conftest import load_photos, random_images

RUNTIMES = ("openvino", "torch")
has_cuda = cuda_problem() is None


@pytest.mark.parametrize("name", describe_names())
def test_shipped_weights_give_the_same_vectors_on_openvino_and_torch(name: str) -> None:
    descriptor = load_descriptor(name)
    photos = load_photos(descriptor.resize)
    one, two = (open_runtime(descriptor, device).describe(photos) for device in RUNTIMES)
    assert (one * two).sum(axis=1).min() > 1 - 1e-3


@pytest.mark.parametrize("name", describe_names())
@pytest.mark.skipif(not has_cuda, reason="needs an NVIDIA GPU")
def test_shipped_weights_give_the_same_vectors_on_cuda(name: str) -> None:
    descriptor = load_descriptor(name)
    photos = load_photos(descriptor.resize)
    one, two = (open_runtime(descriptor, device).describe(photos) for device in ("cuda", "torch"))
    assert (one * two).sum(axis=1).min() > 1 - 1e-3


def test_openvino_and_torch_compute_the_same_function(descriptor: Descriptor) -> None:
    photos = load_photos(descriptor.resize)
    one, two = (open_runtime(descriptor, device).describe(photos) for device in RUNTIMES)
    assert (one @ one.T).min() < 0.9, "the photos' vectors differ, else equality says nothing"
    np.testing.assert_allclose(one, two, atol=1e-4)


@pytest.mark.parametrize("device", RUNTIMES)
def test_vectors_are_float32_of_length_one(descriptor: Descriptor, device: str) -> None:
    vectors = open_runtime(descriptor, device).describe(load_photos(descriptor.resize))
    assert vectors.dtype == np.float32
    assert vectors.shape[1] == descriptor.dimension
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("device", RUNTIMES)
def test_a_vector_does_not_depend_on_what_is_described_with_it(descriptor: Descriptor, device: str) -> None:
    runtime = open_runtime(descriptor, device)
    photos = load_photos(descriptor.resize) * 3
    together = runtime.describe(photos)
    backwards = runtime.describe(photos[::-1])[::-1]
    alone = np.concatenate([runtime.describe([photo]) for photo in photos[:3]])
    np.testing.assert_array_equal(together, backwards)
    np.testing.assert_array_equal(together[:3], alone)


def test_a_vector_does_not_depend_on_the_number_of_threads(descriptor: Descriptor) -> None:
    photos = load_photos(descriptor.resize)
    one, two = (open_runtime(descriptor, "openvino", threads=threads).describe(photos) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_the_number_of_threads_hardly_moves_a_vector_of_torch(descriptor: Descriptor) -> None:
    """torch cuts a sum among its threads, so the last bits differ: far less than a float16 holds."""
    import torch

    photos = load_photos(descriptor.resize)
    before = torch.get_num_threads()
    one, two = (open_runtime(descriptor, "torch", threads=threads).describe(photos) for threads in (1, 2))
    torch.set_num_threads(before)
    np.testing.assert_allclose(one, two, atol=2e-5)


@pytest.mark.parametrize("device", RUNTIMES)
def test_images_of_many_shapes_come_back_in_their_order(short_edge_descriptor: Descriptor, device: str) -> None:
    images = random_images([(64, 80), (96, 64), (64, 80), (64, 64), (96, 64), (64, 200)])
    runtime = open_runtime(short_edge_descriptor, device)
    alone = np.concatenate([runtime.describe([image]) for image in images])
    np.testing.assert_array_equal(runtime.describe(images), alone)
    assert len(np.unique(alone.round(4), axis=0)) == len(images)


def test_both_runtimes_agree_on_images_of_many_shapes(short_edge_descriptor: Descriptor) -> None:
    images = random_images([(64, 80), (96, 64), (64, 200)])
    one, two = (open_runtime(short_edge_descriptor, device).describe(images) for device in RUNTIMES)
    np.testing.assert_allclose(one, two, atol=1e-4)


@pytest.mark.parametrize("device", RUNTIMES)
def test_no_images_give_no_vectors(descriptor: Descriptor, device: str) -> None:
    assert open_runtime(descriptor, device).describe([]).shape == (0, descriptor.dimension)


@pytest.mark.parametrize("device", RUNTIMES)
def test_pixels_that_were_not_resized_are_refused_and_the_runtime_lives_on(descriptor: Descriptor, device: str) -> None:
    runtime = open_runtime(descriptor, device)
    good = load_photos(descriptor.resize)[:1]
    with pytest.raises(ValueError, match="image 1: expected 64 x 64"):
        runtime.describe([*good, np.zeros((64, 65, 3), np.uint8)])
    with pytest.raises(ValueError, match="expected uint8"):
        runtime.describe([np.zeros((64, 64, 3), np.float32)])  # type: ignore[list-item]
    assert runtime.describe(good).shape == (1, descriptor.dimension)


def test_auto_takes_cuda_where_it_works_and_openvino_elsewhere(descriptor: Descriptor) -> None:
    assert open_runtime(descriptor).name == ("torch-cuda-f16" if has_cuda else "openvino-cpu-f32")


def test_a_device_that_is_not_there_is_refused_in_one_line(descriptor: Descriptor) -> None:
    with pytest.raises(UsageError, match="unknown device 'tpu'"):
        open_runtime(descriptor, "tpu")
    if not has_cuda:
        with pytest.raises(UsageError, match="cuda does not work here"):
            open_runtime(descriptor, "cuda")


def test_damaged_model_files_are_refused_in_one_line(descriptor: Descriptor, tmp_path: Path) -> None:
    for kind, device in (("onnx", "openvino"), ("torch", "torch")):
        broken = tmp_path / f"{kind}.bin"
        broken.write_bytes(descriptor.files[kind].read_bytes()[:5000])
        spoilt = Descriptor(**{**vars(descriptor), "files": {**descriptor.files, kind: broken}})
        with pytest.raises(UsageError) as caught:
            open_runtime(spoilt, device)
        assert "\n" not in str(caught.value)


def test_openvino_describes_without_torch_network_or_telemetry(descriptor: Descriptor, tmp_path: Path) -> None:
    """In a process of its own, so that nothing imported before hides an import."""
    program = f"""
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.fork"):
        sys.exit(f"tried {{event}} {{arguments}}")
sys.addaudithook(refuse)
import numpy as np
from copydet.descriptors.registry import load_descriptor
from copydet.descriptors.runtimes import open_runtime
runtime = open_runtime(load_descriptor({descriptor.name!r}), "cpu")
vectors = runtime.describe([np.zeros((64, 64, 3), np.uint8)])
assert runtime.name.startswith("openvino") and vectors.shape == (1, 32)
for module in ("torch", "onnx", "openvino_telemetry"):
    assert module not in sys.modules, module
"""
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2]), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [], "OpenVINO's telemetry leaves a file in the home folder"
