"""JPEG compression as a preprocessing."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from arena.fields import Range
from arena.transformations.transformation import Transformation

# ITU-T T.81, tables K.1 (luminance) and K.2 (chrominance).
# fmt: off
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99), (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# fmt: on

# JFIF 1.02: Y, Cb, Cr from R, G, B, and back; Cb and Cr are shifted by 128.
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


@dataclass(frozen=True)
class JPEG(Transformation):
    """JPEG compression of an image: Dziugaite et al. (1608.00853), Guo et al. (1711.00117).

    The lossy steps of baseline JPEG (ITU-T T.81) are all here: values are rounded to 8 bits, colors
    become YCbCr, chrominance is halved in resolution (4:2:0), and 8 x 8 blocks go through the
    discrete cosine transform. The coefficients are rounded to multiples of the standard tables,
    which `quality` scales as the Independent JPEG Group's library does. Decoding upsamples
    linearly. The coding of the coefficients is lossless and left out. The derivative is 0 wherever
    it exists.

    Sums are taken in a fixed order, one addition at a time, so an image gets the same bits in any
    batch.

    Attributes:
        quality: Scale of the tables: 50 takes them as they are, 100 only rounds.
        box: Lowest and highest input value; they become levels 0 and 255.

    Raises:
        ValueError: When called on anything but images of 1 or 3 channels.
    """

    quality: Annotated[int, Range(1, 100)] = 75
    box: tuple[float, float] = (0.0, 1.0)

    def __call__(self, x: Tensor, key: Tensor) -> Tensor:
        """The decoded images [B, 1 or 3, H, W], on the 256 levels of the box."""
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(
                "JPEG codes images [1, H, W] or [3, H, W], not inputs of shape "
                f"{list(x.shape[1:])}; drop it for features"
            )
        low, high = self.box
        levels = torch.round((x - low) * (255 / (high - low)))
        decoded = self._gray(levels) if x.shape[1] == 1 else self._colored(levels)
        return decoded * ((high - low) / 255) + low

    def _gray(self, levels: Tensor) -> Tensor:
        high, wide = levels.shape[-2:]
        table = _table(_LUMINANCE, self.quality, levels.device)
        return _coded(_padded(levels, 8), table)[..., :high, :wide]

    def _colored(self, levels: Tensor) -> Tensor:
        high, wide = levels.shape[-2:]
        luma, *chroma = _mixed(_TO_YCC, _padded(levels, 16)).round().chunk(3, dim=1)
        luma = _coded(luma, _table(_LUMINANCE, self.quality, luma.device))
        halved = avg_pool2d(torch.cat(chroma, dim=1) + 128, 2).round()
        coded = _coded(halved, _table(_CHROMINANCE, self.quality, luma.device))
        whole = interpolate(coded, scale_factor=2, mode="bilinear", align_corners=False).round()
        mixed = _mixed(_TO_RGB, torch.cat([luma, whole - 128], dim=1))
        return mixed.round().clamp(0, 255)[..., :high, :wide]


def _padded(levels: Tensor, size: int) -> Tensor:
    """Planes padded to multiples of `size` by repeating the last row and column."""
    high, wide = levels.shape[-2:]
    return pad(levels, (0, -wide % size, 0, -high % size), mode="replicate")


def _mixed(weights: tuple[tuple[float, ...], ...], planes: Tensor) -> Tensor:
    """Sums of the three planes, weighted by each row of `weights`."""
    one, two, three = planes.chunk(3, dim=1)
    return torch.cat([a * one + b * two + c * three for a, b, c in weights], dim=1)


@cache
def _table(table: tuple[tuple[int, ...], ...], quality: int, device: torch.device) -> Tensor:
    """The quantisation steps [8, 8] for a quality."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    scaled = (torch.tensor(table) * percent + 50) // 100
    return scaled.clamp(1, 255).float().to(device)


@cache
def _cosines(device: torch.device) -> tuple[Tensor, Tensor]:
    """The cosine transform's rows [8, 8], and the squared norms of their products [8, 8].

    Normalising by the products at the end keeps the mean of a block exact.
    """
    rows = [[math.cos((2 * i + 1) * u * math.pi / 16) for i in range(8)] for u in range(8)]
    squares = torch.tensor([8.0] + [4.0] * 7, device=device)
    return torch.tensor(rows, device=device), squares.outer(squares)


def _coded(planes: Tensor, table: Tensor) -> Tensor:
    """Planes [B, C, H, W] of levels after quantisation by `table`; H and W are multiples of 8."""
    cosines, squares = _cosines(planes.device)
    high, wide = planes.shape[-2:]
    blocks = planes.reshape(*planes.shape[:2], high // 8, 8, wide // 8, 8) - 128
    norms = squares.sqrt()[:, None, :]
    steps = table[:, None, :]
    coefficients = _along(-1, cosines, _along(-3, cosines, blocks)) / (norms * steps)
    restored = coefficients.round() * (steps / norms)
    back = _along(-1, cosines.T, _along(-3, cosines.T, restored))
    return (back + 128).round().clamp(0, 255).reshape(planes.shape)


def _along(axis: int, matrix: Tensor, blocks: Tensor) -> Tensor:
    """The product of `matrix` [8, 8] with every column of `blocks` along an axis of length 8."""
    columns = matrix.T.reshape(8, 8, *(1,) * (-1 - axis))
    total = columns[0] * blocks.narrow(axis, 0, 1)
    for i in range(1, 8):
        total = total + columns[i] * blocks.narrow(axis, i, 1)
    return total
