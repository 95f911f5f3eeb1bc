import numpy as np
import pytest
import torch
from skimage import data

from copydet.training import warp
from copydet.training.augment import LAYOUT, Augmenter
from copydet.training.glyphs import draw_glyphs
from copydet.training.photometric import EDITS


@pytest.fixture(scope="module")
def sources() -> warp.Sources:
    photos = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    tiles = [p[y : y + 64, x : x + 64] for p in photos for y in (0, 120, 230) for x in (0, 130, 300)]
    pixels = torch.from_numpy(np.stack(tiles).transpose(0, 3, 1, 2).copy())
    return warp.make_sources(pixels, torch.linspace(0.6, 1.6, len(tiles)))


@pytest.fixture(scope="module")
def augmenter(sources: warp.Sources) -> Augmenter:
    return Augmenter(sources, draw_glyphs(12, 1), 64)


def test_light_views_look_like_their_source(augmenter: Augmenter, sources: warp.Sources) -> None:
    torch.manual_seed(0)
    index = torch.arange(sources.count)
    views = augmenter.light(index)
    thumbs = torch.nn.functional.adaptive_avg_pool2d(views, 8).flatten(1)
    truth = torch.nn.functional.adaptive_avg_pool2d(sources.levels[0].float() / 255, 8).flatten(1)
    assert torch.equal(torch.cdist(thumbs, truth).argmin(1), index)


def test_hard_views_are_pictures_and_say_which_others_they_show(augmenter: Augmenter, sources: warp.Sources) -> None:
    torch.manual_seed(1)
    index = torch.arange(sources.count).repeat(6)
    views = augmenter.hard(index, ramp=1.0)
    assert views.pixels.shape == (len(index), 3, 64, 64)
    assert bool(torch.isfinite(views.pixels).all())
    assert float(views.pixels.min()) >= -1e-3
    assert float(views.pixels.max()) <= 1 + 1e-3
    assert bool((views.others < sources.count).all())
    assert bool((views.others >= 0).any())
    named = views.shared >= 0
    assert bool((views.others[named] == views.shared[named, None]).any(dim=1).all())


def test_the_same_seed_makes_the_same_views(augmenter: Augmenter) -> None:
    index = torch.arange(8)
    torch.manual_seed(5)
    first = augmenter.hard(index, 0.7)
    torch.manual_seed(5)
    again = augmenter.hard(index, 0.7)
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.traced, again.traced)


def test_traced_cells_say_where_the_source_is(sources: warp.Sources) -> None:
    """With geometry alone, a traced cell of the view has the colour of the source at that place."""
    plain = frozenset({*EDITS, *LAYOUT, "bend", "jigsaw"})
    augmenter = Augmenter(sources, draw_glyphs(2, 1), 64, plain)
    torch.manual_seed(2)
    index = torch.arange(sources.count)
    views = augmenter.hard(index, 0.6)
    seen = (views.traced.abs() < 0.9).all(-1)
    assert float(seen.float().mean()) > 0.5
    truth = torch.nn.functional.grid_sample(
        sources.levels[0].float() / 255, views.traced[:, None], align_corners=False, padding_mode="border"
    )[:, :, 0]
    centres = torch.nn.functional.avg_pool2d(views.pixels[:, :, 7:, 7:], 2, 16).flatten(2)
    error = (centres - truth).abs().mean(1)[seen]
    assert float(error.median()) < 0.04


def test_without_any_family_a_hard_view_is_the_whole_picture(sources: warp.Sources) -> None:
    everything = frozenset({*EDITS, *LAYOUT, "crop", "rotate", "quarter_turn", "flip", "perspective", "bend", "jigsaw"})
    augmenter = Augmenter(sources, draw_glyphs(2, 1), 64, everything)
    views = augmenter.hard(torch.arange(6), 1.0)
    assert torch.allclose(views.pixels, sources.levels[0][:6].float() / 255, atol=0.01)
