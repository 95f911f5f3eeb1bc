import math

import pytest
import torch

from copydet.training import warp


def photo(size: int = 64) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    smooth = torch.stack((x, y, 0.5 + 0.5 * torch.sin(6 * x + 9 * y)))
    return (smooth * 255).round().to(torch.uint8)[None]


def look(placement: torch.Tensor, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    sources = warp.make_sources(photo(), torch.ones(1))
    coordinates = warp.project(placement, warp.base_grid(size, torch.device("cpu")))
    shrink = warp.minification(placement, 64, size)
    return warp.sample(sources, torch.tensor([0]), coordinates, shrink, size)


def test_the_identity_placement_returns_the_source() -> None:
    pixels, inside = look(torch.eye(3)[None])
    assert torch.allclose(pixels, photo().float() / 255, atol=1e-5)
    assert bool((inside == 1).all())


def test_a_quarter_turn_is_the_exact_turn_of_the_pixels() -> None:
    pixels, _ = look(warp.quarter_turns(torch.tensor([1])))
    turned = [torch.rot90(photo().float() / 255, k, (2, 3)) for k in (1, 3)]
    assert any(torch.allclose(pixels, t, atol=1e-4) for t in turned)


def test_four_quarter_turns_are_none() -> None:
    turn = warp.quarter_turns(torch.tensor([1]))
    assert torch.allclose(torch.linalg.matrix_power(turn, 4), torch.eye(3)[None])


@pytest.mark.parametrize("aspect", [0.5, 1.0, 2.0])
def test_a_rotation_keeps_distances_in_pixels_of_the_picture(aspect: float) -> None:
    turn = warp.rotation(torch.tensor([0.7]), torch.tensor([aspect]))[0]
    a, b = torch.tensor([0.3, -0.2, 1.0]), torch.tensor([-0.1, 0.4, 1.0])

    def length(p: torch.Tensor, q: torch.Tensor) -> float:
        return math.hypot(float(p[0] - q[0]) * aspect, float(p[1] - q[1]))

    assert length(turn @ a, turn @ b) == pytest.approx(length(a, b), rel=1e-5)


def test_a_picture_placed_in_a_box_covers_the_box_and_nothing_else() -> None:
    half = torch.tensor([0.25])
    placement = warp.scaling(1 / half, 1 / half) @ warp.shifting(torch.tensor([-0.5]), torch.tensor([0.5]))
    _, inside = look(placement)
    assert float(inside.mean()) == pytest.approx(0.25**2, rel=0.1)
    assert float(inside[0, 0, :32, 32:].sum()) == float(inside.sum())


def test_points_behind_the_plane_are_outside() -> None:
    tilt = warp.matrices(((1, 0, 0), (0, 1, 0), (-2.0, 0, 1)), 1, torch.zeros(1))
    mapped = warp.project(tilt, torch.tensor([[0.9, 0.0, 1.0]]))
    assert bool((mapped.abs() > 1).all())


def test_shuffled_tiles_show_every_pixel_once() -> None:
    points = warp.base_grid(12, torch.device("cpu"))[None]
    shuffled = warp.shuffle_tiles(points, 3)
    key = lambda p: sorted((round(float(a), 4), round(float(b), 4)) for a, b in p[0, :, :2])  # noqa: E731
    assert key(points) == key(shuffled)


def test_small_placements_are_sampled_from_smaller_levels_without_aliasing() -> None:
    stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 255
    sources = warp.make_sources(stripes, torch.ones(1))
    placement = warp.scaling(torch.tensor([4.0]), torch.tensor([4.0]))
    coordinates = warp.project(placement, warp.base_grid(64, torch.device("cpu")))
    pixels, inside = warp.sample(sources, torch.tensor([0]), coordinates, warp.minification(placement, 64, 64), 64)
    values = pixels[0, 0][inside[0, 0] > 0]
    assert float((values - 0.5).abs().max()) < 0.02
