"""Backward pass differentiable approximation: a gradient past what has none."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from arena.attacks.wrapped import Wrapper
from arena.core import Turn
from arena.knowledge import WhiteBox
from arena.learners.classifiers import committed
from arena.learners.preprocessing import Preprocessed, Transformation


@dataclass(frozen=True)
class BPDA(Wrapper):
    """Athalye, Carlini & Wagner 2018 (1802.00420), section 4.1.

    A classifier that is `Preprocessed` is run forward as it is, to the bit, and backward as if its
    preprocessing had been the substitute: the identity, where g(x) is about x (section 4.1.1), or
    a given differentiable function (4.1.2). Passes cost what they cost without it. A classifier
    that declares no preprocessing has nothing to replace and is attacked as it is.

    Attributes:
        backward: The substitute; null is the identity. It gets the coins of the forward pass.
    """

    backward: Transformation | None = None

    faithful: ClassVar[bool] = True

    def through(self, view: WhiteBox, turn: Turn) -> WhiteBox:
        """The view of the classifier with another backward pass."""
        module = view.module
        if not isinstance(module, Preprocessed):
            return view
        straight = Preprocessed(_Straight(module.preprocess, self.backward), module.model)
        return view.over(committed(straight, turn.data.classes))


@dataclass(frozen=True)
class _Straight(Transformation):
    """The value of one transformation with the derivative of another."""

    forward: Transformation
    backward: Transformation | None

    @property
    def random(self) -> bool:  # type: ignore[override]
        return self.forward.random

    def __call__(self, x: Tensor, key: Tensor) -> Tensor:
        value = self.forward(x.detach(), key)
        slope = x if self.backward is None else self.backward(x, key)
        if value.shape != slope.shape:
            raise ValueError(
                f"BPDA's substitute returns {list(slope.shape[1:])} for an input, but "
                f"{self.forward} returns {list(value.shape[1:])}; give it a `backward` that fits"
            )
        # Zero is added, exactly: value + (slope - value) would be off by a rounding.
        return value + (slope - slope.detach())
