"""Backward pass differentiable approximation: a gradient for preprocessing that has none."""

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from arena.attacks.engines.wrapped import AttackWrapper
from arena.core import Turn
from arena.knowledge import WhiteBox
from arena.training.classifiers import committed
from arena.transformations.transformation import Transformation


@dataclass(frozen=True)
class BPDA(AttackWrapper):
    """Athalye, Carlini & Wagner 2018 (1802.00420), section 4.1.

    Replaces every `Transformation` that a classifier's modules declare: a preprocessing, the
    squeezers of a detector, or one inside another wrapper. The forward pass is unchanged to the
    bit. The backward pass is that of a substitute: of the identity, where g(x) is about x (section
    4.1.1), or of a given differentiable function (section 4.1.2). Passes cost what they cost
    without it. A classifier that declares no transformation is attacked as it is.

    Attributes:
        backward: The substitute; None is the identity. It gets the coins of the forward pass.
    """

    backward: Transformation | None = None

    faithful: ClassVar[bool] = True

    def through(self, view: WhiteBox, turn: Turn) -> WhiteBox:
        """The view of the classifier with the substitute's backward pass."""
        module = copy.deepcopy(view.module)
        found = [self._straighten(part) for part in module.modules()]
        return view.over(committed(module, turn.data.classes)) if any(found) else view

    def _straighten(self, part: nn.Module) -> bool:
        """Replaces the transformations that a module holds; returns whether it holds any."""
        held = {name: self._straight(value) for name, value in vars(part).items()}
        changed = {name: new for name, new in held.items() if new is not vars(part)[name]}
        vars(part).update(changed)
        return bool(changed)

    def _straight(self, value: Any) -> Any:
        if isinstance(value, Transformation):
            return _Straight(value, self.backward)
        if isinstance(value, tuple) and any(isinstance(each, Transformation) for each in value):
            return tuple(map(self._straight, value))
        return value


@dataclass(frozen=True)
class _Straight(Transformation):
    """The value of one transformation with the derivative of another."""

    forward: Transformation
    backward: Transformation | None

    @property
    def random(self) -> bool:
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
