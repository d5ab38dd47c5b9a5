"""What defenses that refuse to classify have in common [F8]."""

from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from arena.actions.decisions import Decisions
from arena.core import Player, Strategy
from arena.defenses.wrapped import Wrapper
from arena.fields import Range


@dataclass(frozen=True)
class TunedRefusal(Wrapper):
    """A wrapper that refuses beyond a threshold, which is set on reserved data.

    Attributes:
        share: Share of the training data that is reserved: the inner model does not see it, and the
            threshold is set on it.
    """

    share: Annotated[float, Range(0, 1, above=True)] = field(default=0.1, kw_only=True)

    @property
    def reserve(self) -> float:
        """The declared share."""
        return self.share

    def check(self, player: Player) -> None:
        """Raises ValueError if the player may not refuse, or the inner strategy does not fit."""
        super().check(player)
        check_refusal(self, player)


def check_refusal(strategy: Strategy, player: Player) -> None:
    """Raises ValueError if the player's actions do not allow refusals."""
    actions = player.actions
    if isinstance(actions, Decisions) and not actions.refuses:
        raise ValueError(
            f"{type(strategy).__name__} refuses to classify some inputs, and "
            f"actions={type(actions).__name__} does not allow it; use defender/actions=refusal"
        )


def with_refusal(logits: Tensor, refusal: Tensor, classes: int) -> Tensor:
    """Logits [B, K + 1] that refuse where `refusal` [B] exceeds the logits of all classes.

    If `logits` are [B, K + 1] already, the inputs that they refuse are still refused.
    """
    if logits.shape[1] > classes:
        refusal = torch.maximum(logits[:, classes], refusal)
    return torch.cat([logits[:, :classes], refusal[:, None]], 1)
