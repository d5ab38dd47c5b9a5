"""Which action spaces an attack can serve: declared by its class, checked here for all of them."""

import re
from typing import TypeVar

from arena.actions.lp import L0, L1, L2, Linf
from arena.classification import Perturbations
from arena.core import ActionSpace, Player

A = TypeVar("A", bound=ActionSpace)


def serving(player: Player, attack: str, spaces: tuple[type[A], ...], instead: str = "") -> A:
    """The player's action space.

    Args:
        player: Who is to attack.
        attack: The name of the attack, for the error.
        spaces: The spaces that the attack can serve; `Perturbations` stands for every one of them.
        instead: Attacks for other spaces, as `strategy=...`, for the error.

    Raises:
        ValueError: If the player's space is none of these.
    """
    if isinstance(player.actions, spaces):
        return player.actions
    kinds = [ball for kind in spaces for ball in _named(kind)]
    *first, last = [_option(kind) for kind in kinds]
    options = f"{', '.join(first)} or {last}" if first else last
    raise ValueError(
        f"{attack} cannot serve actions={type(player.actions).__name__}; use actions={options}"
        + (f", or {instead}" if instead else "")
    )


def _named(kind: type[ActionSpace]) -> tuple[type[ActionSpace], ...]:
    """The spaces to name for a kind that is no space itself, else itself."""
    return (Linf, L2, L1, L0) if kind is Perturbations else (kind,)


def _option(kind: type[ActionSpace]) -> str:
    """The name of a space's option in `conf/attacker/actions`: its class's, in snake case."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()
