"""Attackers and defenders by name, and the matches between them."""

import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from arena.arena import Unplayable
from arena.classification import Refuted
from arena.core import ActionSpace, Cost, IllegalMove, MoveOrder, Strategy
from arena.costs import Negation
from arena.executors.executor import Exited
from arena.fields import Declared
from arena.knowledge import Knowledge
from arena.studies.study import Played, Setup, play


@dataclass(frozen=True)
class Attack(Declared):
    """An attacker of the roster.

    Attributes:
        strategy: How it moves.
        knowledge: What it knows of the defender; by default everything.
        actions: Its action space; None for that of the configured attacker.
    """

    strategy: Strategy
    knowledge: Knowledge = field(default_factory=Knowledge.white_box)
    actions: ActionSpace | None = None


@dataclass(frozen=True)
class Defense(Declared):
    """A defender of the roster.

    Attributes:
        strategy: How it moves.
        published: The published results, in a few words.
        attacks: Its own attacks, by their column in the table; None in the column of a common
            attack that this defense does not meet.
        actions: Its action space; None for that of the configured defender.
        cost: The cost that it wants small and its attackers large; None for the configured one.
    """

    strategy: Strategy
    published: str = ""
    attacks: Mapping[str, Attack | None] = field(default_factory=dict)
    actions: ActionSpace | None = None
    cost: Cost | None = None

    def met(self, common: Mapping[str, Attack]) -> dict[str, Attack]:
        """The attacks that it meets if all defenses meet `common`, by column."""
        return {name: one for name, one in {**common, **self.attacks}.items() if one}


Cell = tuple[str, str]
"""A defense and the column of an attack."""


def match(setup: Setup, cell: Cell, defense: Defense, attack: Attack, seed: int) -> Setup:
    """One round with the defender first, in a folder of its own.

    Raises:
        Unplayable: If the declarations contradict each other.
    """
    attacker, defender = setup.players["attacker"], setup.players["defender"]
    players = {
        "attacker": replace(
            attacker,
            strategy=attack.strategy,
            knowledge=attack.knowledge,
            actions=attack.actions or attacker.actions,
            cost=attacker.cost if defense.cost is None else Negation(defense.cost),
        ),
        "defender": replace(
            defender,
            strategy=defense.strategy,
            actions=defense.actions or defender.actions,
            cost=defense.cost or defender.cost,
        ),
    }
    place = setup.folder.joinpath(*map(folder_of, cell), f"seed-{seed}")
    variant = setup.variant(MoveOrder.defender_first(), seed, place)
    described = {name: repr(player) for name, player in players.items()}
    names = dict(zip(("defense", "attack"), cell, strict=True))
    found = replace(variant, players=players, config={**setup.config, **described}, hparams=names)
    try:
        found.arena()
    except Unplayable as error:
        raise Unplayable(f"{versus(cell)}: {error}") from error
    return found


def played(setup: Setup) -> Played | str:
    """Plays one match, or says why it could not be played to its end.

    Whatever a player raises ends its match alone, `sys.exit()` included.

    Raises:
        Refuted: If a mistake was found where a certificate says that there is none.
    """
    try:
        return play(setup, 1, lambda line: None)
    except Refuted:
        raise
    except (ValueError, OSError, NotImplementedError, IllegalMove) as error:
        return f"{error}"
    except SystemExit as end:
        return f"{Exited.of(end)}"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {place.filename}, line {place.lineno}: {error}"


def folder_of(name: str) -> str:
    """A folder's name for what has a name of words."""
    return re.sub(r"\W+", "_", name)


def versus(cell: Cell) -> str:
    """The cell in words."""
    return " against ".join(cell)
