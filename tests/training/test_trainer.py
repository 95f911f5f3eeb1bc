import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data as photos

from copydet.errors import UsageError
from copydet.training.checkpoint import load_checkpoint
from copydet.training.config import TrainConfig, read_config
from copydet.training.data import near_identical_groups, read_images
from copydet.training.trainer import draw_batch, schedule, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 different tiles of real photos."""
    path = tmp_path_factory.mktemp("tiles")
    number = 0
    for photo in (photos.astronaut(), photos.coffee(), photos.chelsea(), photos.rocket()):
        for y in range(0, photo.shape[0] - 90, 90):
            for x in range(0, photo.shape[1] - 90, 110):
                if number < 48:
                    Image.fromarray(photo[y : y + 90, x : x + 90]).save(path / f"{number:02d}.png")
                    number += 1
    return path


@pytest.fixture
def config(folder: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    def make(output: str = "run", **changes: object) -> TrainConfig:
        plain = TrainConfig(
            images=(str(folder),), output=str(tmp_path / output), dimension=16, size=32, source_size=48, batch=8,
            steps=6, warm_up=2, look_alikes=0.25, patch_weight=0.5, norm_ratio_weight=0.1, save_every=3,
            measure_every=3, device="cpu",
        )  # fmt: skip
        return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]

    return make


def test_training_writes_checkpoint_and_curves_and_calls_the_measure(config: Callable[..., TrainConfig]) -> None:
    measured: list[int] = []
    made = config()
    network = train(made, measure=lambda n: {"seen": float(measured.append(1) or len(measured))})
    assert len(measured) == 2
    vectors = network(torch.randn(3, 3, 32, 32))
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-5)
    with (Path(made.output) / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"loss", "contrastive", "entropy", "patch", "norm_ratio", "seen"} <= {row["name"] for row in rows}
    assert (Path(made.output) / "checkpoint.pt").exists()


@pytest.mark.slow
def test_a_resumed_run_equals_one_that_never_stopped(config: Callable[..., TrainConfig]) -> None:
    class Stopped(Exception):
        pass

    def stop_at_four(network: torch.nn.Module) -> dict[str, float]:
        raise Stopped

    whole = train(config("whole"))
    interrupted = config("cut")
    with pytest.raises(Stopped):
        train(dataclasses.replace(interrupted, measure_every=4, save_every=3), measure=stop_at_four)
    resumed = train(interrupted)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_other_images_is_refused(config: Callable[..., TrainConfig]) -> None:
    train(config(steps=1))
    with pytest.raises(UsageError, match="dimension 16"):
        train(config(steps=2, dimension=24))


def test_a_checkpoint_of_another_network_is_refused(config: Callable[..., TrainConfig]) -> None:
    train(config(steps=1))
    with pytest.raises(UsageError, match="another network"):
        train(config(steps=2, trunk="mobilenet_v2_s16"))


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("ran",))

    torch.save({"bank": Code()}, tmp_path / "checkpoint.pt")
    state = type("State", (), {"bank": torch.zeros(1, 2)})()
    with pytest.raises(Exception, match=r"[Ww]eights"):
        load_checkpoint(tmp_path / "checkpoint.pt", state)


def test_every_image_comes_up_once_an_epoch() -> None:
    made = TrainConfig(images=("x",), output="y", batch=8, look_alikes=0.0)
    bank = torch.zeros(32, 4)
    drawn = torch.cat([draw_batch(made, bank, step) for step in range(4)])
    assert sorted(drawn.tolist()) == list(range(32))


def test_look_alikes_are_near_neighbours_of_the_batch() -> None:
    made = TrainConfig(images=("x",), output="y", batch=8, look_alikes=0.5)
    angle = torch.linspace(0, 3, 64)
    bank = torch.stack((angle.cos(), angle.sin()), dim=1)
    drawn = draw_batch(made, bank, 0)
    assert int((drawn[:4] - drawn[4:]).abs().max()) <= 8
    assert bool((drawn[:4] != drawn[4:]).all())


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    made = TrainConfig(images=("x",), output="y", steps=100, warm_up=10)
    rates = [schedule(made, step) for step in range(101)]
    assert rates[9] == 1.0
    assert max(rates) == 1.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0.0)


def test_near_identical_images_are_one_group(folder: Path) -> None:
    pixels, aspects = read_images([str(folder)], 48)
    assert pixels.shape == (48, 3, 48, 48)
    assert torch.allclose(aspects, torch.ones(48))
    noisy = (pixels[:5].float() + torch.randn(5, 3, 48, 48) * 4).clamp(0, 255).to(torch.uint8)
    groups = near_identical_groups(torch.cat((pixels, noisy)))
    assert groups[48:].tolist() == [0, 1, 2, 3, 4]


def test_too_few_images_are_refused_in_one_line(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "one.png")
    with pytest.raises(UsageError, match="1 usable images"):
        read_images([str(tmp_path)], 32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('images = "x"', "'output' is missing"),
        ('images = "x"\noutput = "y"\nstep = 3', "unknown field 'step'"),
        ('images = "x"\noutput = "y"\nsteps = "many"', "'steps'"),
        ('images = "x"\noutput = "y"\nsize = 100', "multiple of 16"),
        ('images = "x"\noutput = "y"\nheld_out = ["warpdrive"]', "warpdrive"),
        ("images = ", "not valid TOML"),
    ],
)
def test_a_wrong_configuration_is_refused_with_the_field_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "train.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_config(file)


@pytest.mark.slow
def test_two_minutes_of_training_lower_the_loss_and_beat_the_start(config: Callable[..., TrainConfig]) -> None:
    """From random weights, on 48 tiles: edited views find their own image more often than before training."""
    from copydet.descriptors.network import CopyNetwork
    from copydet.training.augment import Augmenter
    from copydet.training.glyphs import draw_glyphs
    from copydet.training.losses import contrastive, log_sum
    from copydet.training.pixels import normalise
    from copydet.training.warp import make_sources

    made = config(
        batch=24,
        steps=300,
        warm_up=10,
        size=48,
        source_size=64,
        head_rate=1e-3,
        trunk_rate=3e-4,
        entropy_weight=1.0,
        patch_weight=0.0,
        norm_ratio_weight=0.0,
        average=0.95,
        measure_every=300,
    )
    pixels, aspects = read_images(made.images, 64)
    augmenter = Augmenter(make_sources(pixels, aspects), draw_glyphs(8, 9), 48)
    index = torch.arange(48).repeat(6)

    @torch.no_grad()
    def measure(network: CopyNetwork) -> tuple[float, float]:
        """Contrastive loss and recall@1 of the same 288 edited views, before and after."""
        torch.manual_seed(77)
        light = network(normalise(augmenter.light(torch.arange(48))))
        similarity = network(normalise(augmenter.hard(index, 0.7).pixels)) @ light.T
        own = similarity[torch.arange(len(index)), index]
        itself = index[:, None] == torch.arange(48)
        loss = contrastive(own, log_sum(similarity, itself, 0.05), 0.05).mean()
        return float(loss), float((similarity.argmax(1) == index).float().mean())

    start = dataclasses.replace(made, output=made.output + "-start", steps=1, head_rate=0.0, trunk_rate=0.0)
    loss_before, found_before = measure(train(start))
    loss_after, found_after = measure(train(made))
    assert loss_after < loss_before
    assert found_after > found_before + 0.05
