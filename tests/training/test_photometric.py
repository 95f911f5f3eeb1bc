import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from copydet.training.photometric import EDITS, edit_values, hue, jpeg, luma, pixelate


def pictures(n: int = 5, size: int = 48) -> torch.Tensor:
    torch.manual_seed(3)
    return torch.nn.functional.interpolate(torch.rand(n, 3, 6, 6), size=(size, size), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("name", sorted(EDITS))
@pytest.mark.parametrize("force", [0.0, 0.5, 1.0])
def test_every_edit_returns_finite_values_in_range_and_leaves_its_input(name: str, force: float) -> None:
    x = pictures()
    before = x.clone()
    out = EDITS[name][0](x, torch.full((5,), force))
    assert out.shape == x.shape
    assert bool(torch.isfinite(out).all())
    assert float(out.min()) >= -1e-4
    assert float(out.max()) <= 1 + 1e-4
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", sorted(set(EDITS) - {"brightness", "contrast", "saturation"}))
def test_every_edit_changes_the_picture_at_full_force(name: str) -> None:
    x = pictures()
    assert float((EDITS[name][0](x, torch.ones(5)) - x).abs().mean()) > 1e-3


def test_a_hue_turn_keeps_the_luma() -> None:
    x = pictures() * 0.2 + 0.4  # away from the borders, where clipping would change it
    assert torch.allclose(luma(hue(x, torch.full((5,), 0.3))), luma(x), atol=0.02)


@pytest.mark.parametrize("quality", [90, 50, 10])
def test_jpeg_loses_about_what_a_real_encoder_loses(quality: int) -> None:
    x = torch.from_numpy(data.astronaut()[40:168, 150:278].copy()).permute(2, 0, 1)[None].float() / 255
    stored = io.BytesIO()
    Image.fromarray((x[0] * 255).byte().permute(1, 2, 0).numpy()).save(stored, "JPEG", quality=quality)
    real = torch.from_numpy(np.array(Image.open(stored))).permute(2, 0, 1)[None].float() / 255
    ours = jpeg(x, torch.tensor([(90 - quality) / 87]))
    assert float((ours - x).abs().mean()) == pytest.approx(float((real - x).abs().mean()), rel=0.35)
    assert float((ours - real).abs().mean()) < float((real - x).abs().mean())


def test_pixelate_leaves_few_distinct_columns() -> None:
    out = pixelate(pictures(), torch.ones(5))
    assert len(torch.unique(out[0, 0], dim=1).T) <= 8


def test_families_that_are_held_out_are_never_applied() -> None:
    x = pictures(64)
    assert torch.equal(edit_values(x.clone(), torch.ones(64), frozenset(EDITS)), x)
    assert not torch.equal(edit_values(x.clone(), torch.ones(64)), x)
