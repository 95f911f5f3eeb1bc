"""Views for contrastive training, made in batches on the training device.

A light view is how a reference is described: the whole picture. A hard view is how a query may look: the picture
cropped, turned, bent, laid onto, under and beside other pictures, with text and drawings, its values edited. Every
sample draws its own parameters.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from copydet.training import warp
from copydet.training.photometric import blur, brightness, contrast, edit_values, jpeg
from copydet.training.warp import Sources, chance, log_uniform, uniform

GEOMETRY = ("crop", "stretch", "rotate", "quarter_turn", "flip", "perspective", "bend", "jigsaw")
LAYOUT = ("pad", "paste", "overlay", "collage", "text", "blend", "erase")


@dataclass(frozen=True)
class Views:
    """Hard views and what they hold.

    pixels: float [n, 3, size, size] in [0, 1]. others: int64 [n, 4], training images also visible in the view, -1 for
    none. shared: int64 [n], the one of them that counts as a positive too (mixup and cutmix positives, SSCD section
    4.3), -1 for none. traced: float32 [n, cells * cells, 2], where the centre of each cell of a cells x cells grid
    shows the source, 9 where it doesn't.
    """

    pixels: Tensor
    others: Tensor
    shared: Tensor
    traced: Tensor


@dataclass(frozen=True)
class Layer:
    """Something laid onto a view: pixels [n, 3, s, s] and opacity [n, 1, s, s]."""

    pixels: Tensor
    opacity: Tensor


class Augmenter:
    """Draws views from `sources`; holds the glyph masks and which edit families are left out of this run."""

    def __init__(self, sources: Sources, glyphs: Tensor, size: int, held_out: frozenset[str] = frozenset()) -> None:
        self.sources = sources
        self.glyphs = glyphs
        self.size = size
        self.held_out = held_out
        self._grid = warp.base_grid(size, sources.aspects.device)
        cells = size // 16
        self._cells = warp.base_grid(cells, sources.aspects.device)

    def light(self, index: Tensor) -> Tensor:
        """Reference views of int64 [n]: float [n, 3, size, size], whole pictures with the wear that references have."""
        n = index.shape[0]
        like = self.sources.aspects
        trim = uniform(n, 0.95, 1.0, like)
        placement = warp.scaling(trim, trim)
        x, _ = self._sample(index, warp.project(placement, self._grid), placement)
        for edit, p, force in ((brightness, 0.2, 0.15), (contrast, 0.2, 0.15), (blur, 0.15, 0.1), (jpeg, 0.4, 0.75)):
            chosen = chance(n, p, like).nonzero().squeeze(1)
            if chosen.numel():
                x[chosen] = edit(x[chosen], uniform(chosen.numel(), 0, force, like)).to(x.dtype)
        return x

    def hard(self, index: Tensor, ramp: float) -> Views:
        """Query views of int64 [n]. `ramp` in [0, 1] is how far the schedule has opened the range of strengths."""
        n = index.shape[0]
        like = self.sources.aspects
        strength = uniform(n, 0.1, 1.0, like) * ramp
        placement, collage = self._place(index, strength)
        points = self._bent(self._grid.expand(n, -1, -1), strength)
        x, seen = self._sample(index, warp.project(placement, points), placement)
        early = chance(n, 0.4, like)
        rows = early.nonzero().squeeze(1)
        if rows.numel():
            x[rows] = edit_values(x[rows], strength[rows] * 0.8, self.held_out)
        others = torch.full((n, 4), -1, dtype=torch.long, device=index.device)
        background, others[:, 0] = self._background(index, x, collage, strength)
        x = torch.lerp(background, x, seen)
        covered = torch.zeros_like(seen)
        shared = torch.full_like(index, -1)
        if "collage" not in self.held_out:
            x, covered = self._collage_neighbours(x, covered, seen, others, collage)
        if "overlay" not in self.held_out:
            x, covered = self._overlay(x, covered, others, strength)
        if "blend" not in self.held_out:
            x = self._blend(x, others, shared, strength)
        if "text" not in self.held_out:
            x = self._text(x, strength)
        if "erase" not in self.held_out:
            x = self._erase(x, strength)
        late = (~early).nonzero().squeeze(1)
        if late.numel():
            x[late] = edit_values(x[late], strength[late], self.held_out)
        # The share of the background decides whether its picture was copied as well: at half a view, both were.
        visible = (seen * (1 - covered)).float().mean(dim=(1, 2, 3))
        shared = torch.where((others[:, 0] >= 0) & (visible < 0.5) & ~collage, others[:, 0], shared)
        return Views(x, others, shared, self._trace(placement, covered))

    def _sample(self, index: Tensor, coordinates: Tensor, placement: Tensor) -> tuple[Tensor, Tensor]:
        shrink = warp.minification(placement, self.sources.levels[0].shape[-1], self.size)
        return warp.sample(self.sources, index, coordinates, shrink, self.size)

    def _allowed(self, name: str, n: int, p: Tensor | float) -> Tensor:
        return chance(n, 0.0 if name in self.held_out else p, self.sources.aspects)

    def _place(self, index: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """view -> source maps float32 [n, 3, 3], and which samples are one cell of a 2 x 2 collage."""
        n, s, like = index.shape[0], strength, self.sources.aspects
        one, zero = torch.ones_like(s), torch.zeros_like(s)
        aspect = self.sources.aspects[index]
        crop = self._allowed("crop", n, 0.55)
        area = torch.where(crop, log_uniform(1 - 0.95 * s, 1.0), one)
        ratio = torch.where(crop, torch.exp(uniform(n, -0.35, 0.35, like) * s), one)
        half_x, half_y = (area * ratio).sqrt().clamp(max=1.0), (area / ratio).sqrt().clamp(max=1.0)
        centre_x, centre_y = uniform(n, -1, 1, like) * (1 - half_x), uniform(n, -1, 1, like) * (1 - half_y)
        placement = warp.shifting(centre_x, centre_y) @ warp.scaling(half_x, half_y)
        aspect = aspect * half_x / half_y
        flip_x, flip_y = self._allowed("flip", n, 0.3), self._allowed("flip", n, 0.12)
        placement = placement @ warp.scaling(torch.where(flip_x, -one, one), torch.where(flip_y, -one, one))
        turned = self._allowed("quarter_turn", n, 0.15)
        turns = torch.where(turned, torch.randint(1, 4, (n,), device=index.device), torch.zeros_like(index))
        placement = placement @ warp.quarter_turns(turns)
        aspect = torch.where(turns % 2 == 1, 1 / aspect, aspect)
        angle = torch.where(self._allowed("rotate", n, 0.2), uniform(n, -1, 1, like) * (0.15 + 0.9 * s * s), zero)
        placement = placement @ warp.rotation(angle, aspect)
        tilt = torch.where(self._allowed("perspective", n, 0.18), 0.35 * s, zero)
        tilted = warp.matrices(
            ((1, 0, 0), (0, 1, 0), (uniform(n, -1, 1, like) * tilt, uniform(n, -1, 1, like) * tilt, 1)), n, s
        )
        placement = placement @ tilted
        return self._shrink_into_view(placement, strength)

    def _shrink_into_view(self, placement: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Let part of the samples fill only a box of the view: padding, frames, pastes, collage cells."""
        n, like = s.shape[0], self.sources.aspects
        one = torch.ones_like(s)
        collage = self._allowed("collage", n, 0.08)
        paste = self._allowed("paste", n, 0.25) & ~collage
        pad = self._allowed("pad", n, 0.15) & ~paste & ~collage
        share = torch.where(paste, log_uniform(1 - 0.96 * s, 0.9), one)
        share = torch.where(pad, uniform(n, 0.4, 1.0, like), share)
        ratio = torch.where(pad | paste, torch.exp(uniform(n, -0.6, 0.6, like)), one)
        box_x, box_y = (share * ratio).sqrt().clamp(max=1.0), (share / ratio).sqrt().clamp(max=1.0)
        at_x, at_y = uniform(n, -1, 1, like) * (1 - box_x), uniform(n, -1, 1, like) * (1 - box_y)
        cell = torch.randint(0, 4, (n,), device=s.device)
        half = one * 0.5
        box_x, box_y = torch.where(collage, half, box_x), torch.where(collage, half, box_y)
        at_x = torch.where(collage, (cell % 2).float() - 0.5, at_x)
        at_y = torch.where(collage, (cell // 2).float() - 0.5, at_y)
        return placement @ warp.scaling(1 / box_x, 1 / box_y) @ warp.shifting(-at_x, -at_y), collage

    def _bent(self, points: Tensor, strength: Tensor) -> Tensor:
        n = points.shape[0]
        bent = self._allowed("bend", n, 0.1 * (0.5 + strength)).nonzero().squeeze(1)
        if bent.numel():
            points = points.clone()
            points[bent] = warp.bend(points[bent], strength[bent])
        for tiles in (2, 3):
            shuffled = self._allowed("jigsaw", n, 0.015).nonzero().squeeze(1)
            if shuffled.numel():
                points = points.clone()
                points[shuffled] = warp.shuffle_tiles(points[shuffled], tiles)
        return points

    def _other(self, index: Tensor) -> Tensor:
        """A training image other than `index` for each sample."""
        step = torch.randint(1, self.sources.count, index.shape, device=index.device)
        return (index + step) % self.sources.count

    def _background(self, index: Tensor, x: Tensor, collage: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """What shows where the source doesn't: one colour, the blurred source itself, or a part of another picture."""
        n, like = index.shape[0], self.sources.aspects
        colour = torch.rand(n, 3, 1, 1, device=x.device, dtype=x.dtype)
        plain = torch.rand(n, 1, 1, 1, device=x.device)
        colour = torch.where(plain < 0.3, colour.round(), colour)
        background = colour.expand_as(x).clone()
        # A third of the flat fills is black or white, as in rotations and letterboxes.
        flat = torch.where(plain < 0.15, colour[:, :1].expand_as(colour), colour)
        background = torch.where(plain < 0.15, flat.expand_as(x), background)
        picture = chance(n, 0.5 * (0.4 + strength), like) | collage
        other = torch.where(picture, self._other(index), torch.full_like(index, -1))
        rows = picture.nonzero().squeeze(1)
        if rows.numel():
            half = uniform(rows.numel(), 0.5, 1.0, like)
            shift = uniform(rows.numel(), -1, 1, like) * (1 - half)
            placement = warp.shifting(shift, shift) @ warp.scaling(half, half)
            coordinates = warp.project(placement, self._grid)
            background[rows] = self._sample(other[rows], coordinates, placement)[0]
        soft = (chance(n, 0.12, like) & ~picture).nonzero().squeeze(1)
        if soft.numel():
            whole = warp.scaling(torch.ones_like(strength[soft]), torch.ones_like(strength[soft]))
            blurred = self._sample(index[soft], warp.project(whole, self._grid), whole)[0]
            background[soft] = blur(blurred, torch.ones_like(strength[soft]))
        return background, other

    def _lay_picture(
        self, rows: Tensor, other: Tensor, box: tuple[Tensor, Tensor, Tensor, Tensor], angle: Tensor
    ) -> Layer:
        """A whole other picture placed in a box (centre x, y, half width, height) of the views `rows`."""
        at_x, at_y, half_x, half_y = box
        placement = warp.rotation(angle, torch.ones_like(angle)) @ warp.scaling(1 / half_x, 1 / half_y)
        placement = placement @ warp.shifting(-at_x, -at_y)
        return Layer(*self._sample(other, warp.project(placement, self._grid), placement))

    def _collage_neighbours(
        self, x: Tensor, covered: Tensor, seen: Tensor, others: Tensor, collage: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Give a 2 x 2 collage two more pictures beside the background's: quarters of the view the source leaves
        free.
        """
        rows = collage.nonzero().squeeze(1)
        if rows.numel() == 0:
            return x, covered
        half = torch.full((rows.numel(),), 0.5, device=x.device)
        for slot, corner in ((1, -0.5), (2, 0.5)):
            other = self._other(others[rows, 0])
            layer = self._lay_picture(
                rows, other, (half * 2 * corner, half * -2 * corner, half, half), torch.zeros_like(half)
            )
            opacity = layer.opacity * (1 - seen[rows])
            x[rows] = torch.lerp(x[rows], layer.pixels, opacity)
            others[rows, slot] = other
        return x, covered

    def _overlay(self, x: Tensor, covered: Tensor, others: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """Lay another picture over part of the view."""
        like = self.sources.aspects
        rows = chance(x.shape[0], 0.22 * (0.4 + strength), like).nonzero().squeeze(1)
        k = rows.numel()
        if k == 0:
            return x, covered
        share = uniform(k, 0.03, 0.05 + 0.6 * strength[rows], like)
        ratio = torch.exp(uniform(k, -0.6, 0.6, like))
        half_x, half_y = (share * ratio).sqrt().clamp(max=1), (share / ratio).sqrt().clamp(max=1)
        box = (uniform(k, -1, 1, like) * (1 - half_x), uniform(k, -1, 1, like) * (1 - half_y), half_x, half_y)
        angle = torch.where(chance(k, 0.25, like), uniform(k, -0.6, 0.6, like), torch.zeros_like(share))
        other = self._other(rows)
        layer = self._lay_picture(rows, other, box, angle)
        opacity = torch.where(chance(k, 0.8, like), torch.ones_like(share), uniform(k, 0.4, 1.0, like))
        opacity = layer.opacity * opacity.to(x.dtype)[:, None, None, None]
        x[rows] = torch.lerp(x[rows], layer.pixels, opacity)
        covered[rows] = torch.maximum(covered[rows], opacity)
        others[rows, 3] = other
        return x, covered

    def _blend(self, x: Tensor, others: Tensor, shared: Tensor, strength: Tensor) -> Tensor:
        """Mix a whole other picture in; from 35 % on it counts as copied too (mixup positives)."""
        like = self.sources.aspects
        rows = (chance(x.shape[0], 0.05, like) & (others[:, 3] < 0)).nonzero().squeeze(1)
        k = rows.numel()
        if k == 0:
            return x
        other = self._other(rows)
        whole = warp.scaling(torch.ones(k, device=x.device), torch.ones(k, device=x.device))
        picture, _ = self._sample(other, warp.project(whole, self._grid), whole)
        weight = uniform(k, 0.15, 0.2 + 0.35 * strength[rows], like)
        x[rows] = torch.lerp(x[rows], picture, weight.to(x.dtype)[:, None, None, None])
        others[rows, 3] = other
        shared[rows] = torch.where(weight > 0.35, other, shared[rows])
        return x

    def _text(self, x: Tensor, strength: Tensor) -> Tensor:
        """Up to three lines of text, stickers or drawings in one colour each."""
        like = self.sources.aspects
        for p in (0.22, 0.12, 0.08):
            rows = chance(x.shape[0], p, like).nonzero().squeeze(1)
            k = rows.numel()
            if k == 0:
                continue
            chosen = torch.randint(0, self.glyphs.shape[0], (k,), device=x.device)
            height = uniform(k, 0.06, 0.1 + 0.3 * strength[rows], like)
            width = (height * uniform(k, 1.0, 4.5, like)).clamp(max=1.0)
            at_x, at_y = uniform(k, -1, 1, like), uniform(k, -1, 1, like) * (1 - height)
            angle = torch.where(chance(k, 0.3, like), uniform(k, -0.8, 0.8, like), torch.zeros_like(height))
            placement = warp.scaling(1 / width, 1 / height) @ warp.rotation(angle, torch.ones_like(angle))
            coordinates = warp.project(placement @ warp.shifting(-at_x, -at_y), self._grid)
            grid = coordinates.view(k, self.size, self.size, 2).to(x.dtype)
            mask = torch.nn.functional.grid_sample(self.glyphs[chosen].to(x.dtype) / 255, grid, align_corners=False)
            colour = torch.rand(k, 3, 1, 1, device=x.device, dtype=x.dtype)
            colour = torch.where(
                torch.rand(k, 1, 1, 1, device=x.device) < 0.5, colour[:, :1].round().expand_as(colour), colour
            )
            opacity = torch.where(chance(k, 0.7, like), torch.ones_like(height), uniform(k, 0.3, 1.0, like))
            x[rows] = torch.lerp(x[rows], colour.expand_as(x[rows]), mask * opacity.to(x.dtype)[:, None, None, None])
        return x

    def _erase(self, x: Tensor, strength: Tensor) -> Tensor:
        """Cover boxes with one colour or noise (dropped areas, censor bars)."""
        like = self.sources.aspects
        for _ in range(2):
            rows = chance(x.shape[0], 0.07, like).nonzero().squeeze(1)
            k = rows.numel()
            if k == 0:
                continue
            half_x, half_y = uniform(k, 0.05, 0.5, like), uniform(k, 0.05, 0.5, like)
            at_x, at_y = uniform(k, -1, 1, like), uniform(k, -1, 1, like)
            inside = ((self._grid[None, :, 0] - at_x[:, None]).abs() < half_x[:, None] * strength[rows, None]) & (
                (self._grid[None, :, 1] - at_y[:, None]).abs() < half_y[:, None] * strength[rows, None]
            )
            inside = inside.view(k, 1, self.size, self.size)
            fill = torch.rand(k, 3, 1, 1, device=x.device, dtype=x.dtype).expand_as(x[rows])
            fill = torch.where(torch.rand(k, 1, 1, 1, device=x.device) < 0.3, torch.rand_like(x[rows]), fill)
            x[rows] = torch.where(inside, fill, x[rows])
        return x

    def _trace(self, placement: Tensor, covered: Tensor) -> Tensor:
        """Where each stride-16 cell looks in the source (bends are left out: they move centres by less than a cell)."""
        n, cells = placement.shape[0], self.size // 16
        traced = warp.project(placement, self._cells)
        hidden = torch.nn.functional.adaptive_avg_pool2d(covered.float(), cells).view(n, -1, 1) > 0.5
        outside = (traced.abs() > 1).any(dim=-1, keepdim=True)
        return torch.where(hidden | outside, torch.full_like(traced, 9.0), traced)
