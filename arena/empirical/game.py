"""The payoff tensor: the cost of every attack on every model, example by example.

    L[player, model d, attack a, example e]

A model is a defender's move. An attack is an attacker's move: a batch of inputs, crafted against
one of the models or against none. Where an attack meets the model that it was crafted against, the
cell is white box with the defender first. Every other cell is an attack by an attacker who
committed before it saw the model. Means over examples lose the pairing, the attackers who reply to
each example, and the intervals, so they are taken last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arena.solvers.payoffs import Array

Costs = NDArray[Any]
"""Costs [D, A, E]: int8 where they are whole numbers, else float."""

Labels = NDArray[Any]
"""Classes as whole numbers; -1 where a model refuses to answer."""

PLAYERS = ("attacker", "defender")


@dataclass(frozen=True)
class EmpiricalGame:
    """Costs of moves that were played on the same E examples of one deal.

    Attributes:
        models: The names of the D models, the game's rows.
        attacks: The names of the A attacks, the game's columns.
        against: The model that each attack was crafted against; None if it was crafted against
            none of these.
        costs: For each player, its cost on every example, [D, A, E]; payoffs are the negation.
        most: The certified upper bound [D, E] on the defender's cost on each example, against any
            attack; None if nothing is certified.
        missing: The cells (model, attack) that could not be played, and why. Their costs are NaN.
        answers: For each model, its labels [P] of the P inputs that a probe may ask about, where
            they are known. These inputs need not be the E examples that are scored.

    Raises:
        ValueError: If names repeat, or shapes do not fit them; if an attack was crafted against an
            unknown model; if a cost is NaN or infinite in a cell that is not missing; if an attack
            costs the defender more than the certified bound; if answers are of an unknown model,
            or models have different numbers of answers.
    """

    models: tuple[str, ...]
    attacks: tuple[str, ...]
    against: tuple[str | None, ...]
    costs: Mapping[str, Costs]
    most: Costs | None = None
    missing: Mapping[tuple[str, str], str] = field(default_factory=dict)
    answers: Mapping[str, Labels] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, names in (("models", self.models), ("attacks", self.attacks)):
            if not names or len(set(names)) < len(names):
                raise ValueError(f"{name} need names, each used once, not {list(names)}")
        strangers = {each for each in self.against if each is not None} - set(self.models)
        if len(self.against) != len(self.attacks) or strangers:
            raise ValueError(
                f"against needs one of the models or None for each of {len(self.attacks)} attacks, "
                f"not {list(self.against)}"
            )
        if set(self.costs) != set(PLAYERS):
            raise ValueError(f"give the costs of {list(PLAYERS)}, not of {list(self.costs)}")
        cells = (len(self.models), len(self.attacks))
        shapes = {player: np.shape(cost) for player, cost in self.costs.items()}
        examples = len({shape[2:] for shape in shapes.values()})
        for player, shape in shapes.items():
            if len(shape) != 3 or shape[:2] != cells or shape[2] == 0 or examples > 1:
                raise ValueError(
                    f"the {player}'s costs have shape {shape}; {cells[0]} models and {cells[1]} "
                    "attacks need [models, attacks, examples], with the same examples for both"
                )
        self._check_missing()
        self._check_certified()
        self._check_answers()

    def _check_missing(self) -> None:
        for model, attack in self.missing:
            if model not in self.models or attack not in self.attacks:
                raise ValueError(f"missing cell {model!r}, {attack!r} is not in the game")
        for player, cost in self.costs.items():
            broken = ~np.isfinite(cost).all(2)
            for d, a in np.argwhere(broken):
                cell = self.models[d], self.attacks[a]
                if cell not in self.missing:
                    raise ValueError(
                        f"the {player}'s cost of {cell[1]} on {cell[0]} is not finite on some "
                        "examples; leave them out of all cells, or declare the cell missing"
                    )

    def _check_certified(self) -> None:
        if self.most is None:
            return
        shape = (len(self.models), self.examples)
        if np.shape(self.most) != shape:
            raise ValueError(
                f"most has shape {np.shape(self.most)}, not [models, examples] {shape}"
            )
        # Comparisons with the NaN of a missing cell are False.
        above = self.costs["defender"] > self.most[:, None] + 1e-9
        if above.any():
            d, a, e = np.argwhere(above)[0]
            raise ValueError(
                f"{self.attacks[a]} costs {self.models[d]} {self.costs['defender'][d, a, e]:g} on "
                f"example {e}, certified to cost at most {self.most[d, e]:g}: attack or "
                "certificate is wrong"
            )

    def _check_answers(self) -> None:
        shapes = {model: np.shape(labels) for model, labels in self.answers.items()}
        one_each = all(len(shape) == 1 for shape in shapes.values())
        if not set(shapes) <= set(self.models) or not one_each or len(set(shapes.values())) > 1:
            raise ValueError(
                f"answers have shapes {shapes}; give labels [inputs], equally many for each model "
                f"that was asked, of the models {list(self.models)}"
            )

    @property
    def examples(self) -> int:
        """The number of examples E."""
        return int(self.costs["defender"].shape[2])

    @property
    def zero_sum(self) -> bool:
        """Whether each player wins what the other loses, in every cell that was played."""
        total = np.add(self.costs["attacker"], self.costs["defender"], dtype=float)
        return bool((np.nan_to_num(total) == 0).all())

    def payoffs(self, player: str) -> Costs:
        """The player's payoffs [D, A, E], float64.

        Raises:
            ValueError: If a cell is missing, naming it.
        """
        if self.missing:
            (model, attack), why = next(iter(self.missing.items()))
            raise ValueError(
                f"{len(self.missing)} of {len(self.models) * len(self.attacks)} cells are missing, "
                f"first {attack} on {model} ({why}); play them again, or leave out the models or "
                "attacks"
            )
        # 0 - x rather than -x: a payoff of a cost of 0 is not -0.
        return np.subtract(0.0, self.costs[player], dtype=float)

    def part(
        self, models: Sequence[str] | None = None, attacks: Sequence[str] | None = None
    ) -> "EmpiricalGame":
        """The game of some models and some attacks, in the order given.

        An attack that was crafted against a model that is left out becomes one against none.

        Args:
            models: Their names; None for all.
            attacks: Their names; None for all.

        Raises:
            ValueError: If a name is not in the game.
        """
        rows = self.models if models is None else tuple(models)
        columns = self.attacks if attacks is None else tuple(attacks)
        for names, known in ((rows, self.models), (columns, self.attacks)):
            if unknown := set(names) - set(known):
                raise ValueError(f"{sorted(unknown)} are not among {list(known)}")
        d = [self.models.index(name) for name in rows]
        a = [self.attacks.index(name) for name in columns]
        against = (self.against[i] for i in a)
        return replace(
            self,
            models=rows,
            attacks=columns,
            against=tuple(each if each in rows else None for each in against),
            costs={player: cost[np.ix_(d, a)] for player, cost in self.costs.items()},
            most=None if self.most is None else self.most[d],
            missing={
                cell: why
                for cell, why in self.missing.items()
                if cell[0] in rows and cell[1] in columns
            },
            answers={model: each for model, each in self.answers.items() if model in rows},
        )

    def on(self, examples: Any) -> "EmpiricalGame":
        """The same cells on some of the examples; the inputs that a probe may ask about stay.

        Args:
            examples: An index of an array [E]: a slice, numbers, or a mask.
        """
        return replace(
            self,
            costs={player: cost[:, :, examples] for player, cost in self.costs.items()},
            most=None if self.most is None else self.most[:, examples],
        )


def mean_payoffs(games: Sequence[EmpiricalGame], player: str) -> Array:
    """The player's mean payoffs over seeds and examples, [D, A].

    Args:
        games: One per seed, of the same models and attacks.
        player: Whose payoffs.

    Raises:
        ValueError: If cells are missing.
    """
    found: Array = np.mean([game.payoffs(player).mean(2) for game in games], axis=0)
    return found
