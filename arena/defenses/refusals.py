"""What the defenses that refuse to classify have in common [F8]."""

import torch
from torch import Tensor

from arena.actions.decisions import Decisions
from arena.core import Player, Strategy


def check_refusal(strategy: Strategy, player: Player) -> None:
    """Raises ValueError if the player's actions do not let it refuse."""
    actions = player.actions
    if isinstance(actions, Decisions) and not actions.refuses:
        raise ValueError(
            f"{type(strategy).__name__} refuses to classify some inputs, and "
            f"actions={type(actions).__name__} does not let it; use defender/actions=refusal"
        )


def with_refusal(logits: Tensor, refusal: Tensor, classes: int) -> Tensor:
    """Logits [B, K + 1] that refuse where `refusal` [B] exceeds the logits of all classes.

    Of logits [B, K + 1], which refuse already, whatever they refuse is still refused.
    """
    if logits.shape[1] > classes:
        refusal = torch.maximum(logits[:, classes], refusal)
    return torch.cat([logits[:, :classes], refusal[:, None]], 1)
