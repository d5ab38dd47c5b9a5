"""Random resizing and padding of images."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena import chance
from arena.fields import Share
from arena.transformations.transformation import Transformation, check_images


@dataclass(frozen=True)
class ResizePad(Transformation):
    """Shrinks an image at random, by nearest neighbor, and pads it back with 0 at a random place.

    The transformation of 1711.01991 and of 1803.06978, except that those enlarge the
    canvas, which a model of inputs of one size cannot take: here the image shrinks instead.

    The height, and likewise the width, is a whole number of pixels. The share of the size left is
    uniform in [least, 1], one for both, rounded to pixels; every place is equally likely.

    Attributes:
        least: Smallest share of height and width that is left.
        probability: Of doing anything at all.

    Raises:
        ValueError: When called on inputs that are no images.
    """

    random: ClassVar[bool] = True

    least: Share = 0.8
    probability: Share = 1.0

    def __call__(self, x: Tensor, key: Tensor) -> Tensor:
        """The images [B, ..., H, W], of the same size."""
        check_images(x, "ResizePad")
        idle = chance.uniform(chance.fold(key, 0)) >= self.probability
        share = self.least + (1 - self.least) * chance.uniform(chance.fold(key, 1))
        share = torch.where(idle, 1.0, share)
        row, high = _source(share, chance.fold(key, 2), x.shape[-2])
        column, wide = _source(share, chance.fold(key, 3), x.shape[-1])
        plane = x.reshape(len(x), -1, *x.shape[-2:]).permute(0, 2, 3, 1)
        example = torch.arange(len(x), device=x.device)[:, None, None]
        moved = plane[example, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)
        there = (high[:, :, None] & wide[:, None, :])[:, None]
        return torch.where(there, moved, 0.0).reshape(x.shape)


def _source(share: Tensor, key: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """For each place [B, size] along an axis: where its value is taken from, and if there is one.

    `share` [B] of the axis is left, at a place drawn by `key`.
    """
    left = (share * size).round().long().clamp(min=1)
    start = chance.integers(key, size - left + 1)
    place = torch.arange(size, device=key.device) - start[:, None]
    inside = (place >= 0) & (place < left[:, None])
    # The middle of pixel i of the small image lies in pixel (2 i + 1) size // (2 left) of the
    # large: whole numbers, so that no rounding depends on the device.
    source = ((2 * place + 1) * size) // (2 * left[:, None])
    return torch.where(inside, source, 0), inside
