"""Translation invariance: gradients smoothed over the plane."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from arena.attacks.engines.wrapped import AttackWrapper, WrappedView
from arena.core import Turn
from arena.fields import Whole
from arena.knowledge import WhiteBox


@dataclass(frozen=True)
class TranslationInvariant(AttackWrapper):
    """Dong et al. 2019 (1904.02884), section 3.2: the gradient convolved with a kernel.

    Put it around the attack on a surrogate. The mean gradient over shifted copies of an image is
    about the image's own gradient convolved with the weights of the shifts (equation 7). Here these
    are a Gaussian of standard deviation radius / 3, cut at `radius` and normalised, with zeros
    beyond the image and each channel for itself. Passes are what they are without it.

    Attributes:
        radius: The k of the kernel's 2 k + 1 rows and columns (the paper's 15 rows: 7, for images
            of 299); 0 changes nothing.

    Raises:
        ValueError: When it plays on inputs that are not images.
    """

    radius: Whole = 2

    faithful: ClassVar[bool] = True

    def through(self, view: WhiteBox, turn: Turn) -> WhiteBox:
        """The view with a smoothed gradient."""
        if len(turn.data.shape) < 2:
            raise ValueError(
                "TranslationInvariant smooths over images [H, W], not inputs of shape "
                f"{list(turn.data.shape)}; drop it for features"
            )
        return _Smooth(view, _gaussian(self.radius).to(turn.data.x.device))


class _Smooth(WrappedView):
    """Backward passes end in a convolution with `kernel` [2 k + 1, 2 k + 1]."""

    def __init__(self, within: WhiteBox, kernel: Tensor) -> None:
        super().__init__(within)
        self._kernel = kernel

    def logits(self, x: Tensor, rows: Tensor) -> Tensor:
        smooth: Tensor = _Smoothed.apply(x, self._kernel)  # type: ignore[no-untyped-call]
        return self._within.logits(smooth, rows)


class _Smoothed(torch.autograd.Function):
    """The identity [B, ..., H, W], whose gradient is convolved with a symmetric kernel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(kernel)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kernel,) = ctx.saved_tensors
        planes = gradient.reshape(-1, 1, *gradient.shape[-2:])
        smooth = conv2d(planes, kernel[None, None].to(gradient.dtype), padding="same")
        return smooth.reshape(gradient.shape), None


def _gaussian(radius: int) -> Tensor:
    """The kernel [2 k + 1, 2 k + 1] of sum 1, for k = `radius`; a single 1 for 0."""
    offset = torch.arange(-radius, radius + 1) / max(radius, 1)
    bell = torch.exp(-4.5 * offset.square())  # (3 i / k)^2 / 2
    return torch.outer(bell, bell) / bell.sum().square()
