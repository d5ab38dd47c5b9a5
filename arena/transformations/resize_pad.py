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
    """Shrinks an image at random, by nearest neighbor, and pads it with 0 to its former size.

    The remaining share of height and width is uniform in [least, 1], the same for both, rounded to
    pixels. Every position of the small image is equally likely.

    Deviation from 1711.01991 and 1803.06978: they enlarge the canvas, but a model for inputs of one
    size cannot take that, so here the image shrinks instead.

    Attributes:
        least: Smallest share of height and width that remains.
        probability: Probability that the image changes at all.

    Raises:
        ValueError: When called on inputs that are not images.
    """

    random: ClassVar[bool] = True

    least: Share = 0.8
    probability: Share = 1.0

    def __call__(self, x: Tensor, key: Tensor) -> Tensor:
        """The transformed images [B, ..., H, W], in the same shape."""
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
    """For each pixel [B, size] along an axis: the pixel it is copied from, and whether it has one.

    The image keeps `share` [B] of the axis, at a position drawn by `key` [B].
    """
    left = (share * size).round().long().clamp(min=1)
    start = chance.integers(key, size - left + 1)
    place = torch.arange(size, device=key.device) - start[:, None]
    inside = (place >= 0) & (place < left[:, None])
    # The center of pixel i of the small image lies in pixel (2 i + 1) size // (2 left) of the
    # large one. Whole numbers are used so that rounding does not depend on the device.
    source = ((2 * place + 1) * size) // (2 * left[:, None])
    return torch.where(inside, source, 0), inside
