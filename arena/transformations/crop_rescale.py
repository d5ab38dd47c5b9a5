"""Random cropping and rescaling of images."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from arena import chance
from arena.fields import Share
from arena.transformations.transformation import Transformation, check_images


@dataclass(frozen=True)
class CropRescale(Transformation):
    """Cuts a random part out of an image and enlarges it, bilinearly, to the size of the image.

    Guo et al. 2018 (1711.00117), "image cropping-rescaling" [F23]. The share of height and width
    that is cut out is uniform in [least, 1], the same for both, rounded to pixels. Every position
    is equally likely.

    Deviation from the paper: it cuts squares of one size and averages the answers to 30 of them.
    Here each pass sees one part; averaging over several is left to an attacker's EOT.

    Attributes:
        least: Smallest share of height and width that is cut out.

    Raises:
        ValueError: When called on inputs that are not images.
    """

    random: ClassVar[bool] = True

    least: Share = 0.7

    def __call__(self, x: Tensor, key: Tensor) -> Tensor:
        """The enlarged parts of images [B, ..., H, W], in the same shape."""
        check_images(x, "CropRescale")
        share = self.least + (1 - self.least) * chance.uniform(chance.fold(key, 0))
        plane = x.reshape(len(x), -1, *x.shape[-2:]).permute(0, 2, 3, 1)
        example = torch.arange(len(x), device=x.device)[:, None]
        above, below, down = _between(share, chance.fold(key, 1), x.shape[-2])
        down = down[:, :, None, None]
        top, bottom = plane[example, above], plane[example, below]
        rows = (top + down * (bottom - top)).transpose(1, 2)
        before, after, along = _between(share, chance.fold(key, 2), x.shape[-1])
        along = along[:, :, None, None]
        left, right = rows[example, before], rows[example, after]
        return (left + along * (right - left)).permute(0, 3, 2, 1).reshape(x.shape)


def _between(share: Tensor, key: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel [B, size] along an axis: the two pixels it is interpolated from, and where.

    `share` [B] of the axis is cut out, at a position drawn by `key` [B]. Returns the two pixel
    numbers, and the weight of the second one.
    """
    left = (share * size).round().long().clamp(min=1)[:, None]
    start = chance.integers(key, size - left[:, 0] + 1)[:, None]
    # The center of pixel i is at ((2 i + 1) left - size) / (2 size) in the part. Whole numbers are
    # used so that rounding does not depend on the device.
    twice = (2 * torch.arange(size, device=key.device) + 1) * left - size
    twice = twice.clamp(min=0).minimum(2 * size * (left - 1))
    pixel = twice // (2 * size)
    further = (twice - 2 * size * pixel).float() / (2 * size)
    return start + pixel, start + (pixel + 1).minimum(left - 1), further
