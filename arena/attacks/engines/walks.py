"""Walks under way, and the state that a method carries along with each of them."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor


@dataclass
class PerWalk:
    """Values of L walks: each field is a tensor with a row per walk, a `PerWalk`, or None.

    A method's state is a subclass. The engine drops and adds walks without knowing its fields.
    """

    def __getitem__(self, at: Tensor) -> Self:
        """The values of some walks: `at` holds flags [L] or row numbers."""
        return self._each(lambda name: _taken(getattr(self, name), at))

    def joined(self, more: Self) -> Self:
        """The values of these walks, and behind them those of `more` walks of the same method."""
        return self._each(lambda name: _together(getattr(self, name), getattr(more, name)))

    def _each(self, change: Callable[[str], Any]) -> Self:
        return replace(self, **{field.name: change(field.name) for field in fields(self)})


def _taken(part: Tensor | PerWalk | None, at: Tensor) -> Tensor | PerWalk | None:
    return None if part is None else part[at]


def _together(part: Any, more: Any) -> Tensor | PerWalk | None:
    if part is None:
        return None
    return torch.cat([part, more]) if isinstance(part, Tensor) else part.joined(more)


S = TypeVar("S", bound=PerWalk | None)
"""The state of a method; None if it needs to remember nothing."""


@dataclass
class Walks(PerWalk, Generic[S]):
    """L walks under way, a row each; the walks of one example lie side by side.

    Attributes:
        rows: The example that each walk serves, as a row number of the turn's data, [L].
        variant: The number of the walk among those of its example, from 0, [L].
        key: A random key for each walk, see `chance`, [L].
        t: Steps that each walk has made, [L].
        given: The inputs as dealt, [L, ...].
        y: Their true classes, [L].
        x: Where each walk is, [L, ...].
        own: What else the method carries from step to step.
        target: The answer that each walk aims at, [L]; None where walks aim at no single answer.
    """

    rows: Tensor
    variant: Tensor
    key: Tensor
    t: Tensor
    given: Tensor
    y: Tensor
    x: Tensor
    own: S
    target: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def wide(self, values: Tensor) -> Tensor:
        """`values` [L] with as many dimensions as inputs."""
        return wide(values, self.x)

    def zeros(self) -> Tensor:
        """A zero for each walk, [L], of the type of inputs."""
        return torch.zeros_like(self.t, dtype=self.x.dtype)

    def flags(self) -> Tensor:
        """A flag for each walk, bool [L], all false."""
        return torch.zeros_like(self.t, dtype=torch.bool)


def wide(values: Tensor, like: Tensor) -> Tensor:
    """`values` [B] with as many dimensions as `like`, to broadcast over examples."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))
