"""The payoff tensor: what every stored attack cost every stored model, example by example.

    L[player, model d, attack a, example e]

A model is a defender's move, an attack an attacker's: a batch of inputs, crafted against one of the
models or against none. Where an attack was crafted against the model it meets, the cell is white
box with the defender first; every other cell is what an attacker gets who committed before it saw
the model. Means over examples throw away pairing, attackers who choose an example at a time, and
the intervals; so they are taken last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Costs = NDArray[Any]
"""Costs [D, A, E]: int8 where they are whole numbers, else float."""

Labels = NDArray[Any]
"""Classes, whole numbers; -1 where a model refuses."""

PLAYERS = ("attacker", "defender")


@dataclass(frozen=True)
class EmpiricalGame:
    """Costs of moves that were played on the same E examples, of one deal.

    Attributes:
        models: Names of the D models, the game's rows.
        attacks: Names of the A attacks, its columns.
        against: The model that each attack was crafted against; None: it saw none of them.
        costs: By player, its cost of every example, [D, A, E]; payoffs are their negation.
        most: What the defender can lose of each example at most, [D, E], where something is
            certified of the models; None: nothing is.
        missing: The cells that could not be played, (model, attack), and why. Their costs are NaN.
        answers: By model, the labels [P] that it gives to the P inputs that a probe may ask about,
            as far as they are known. These need not be the E examples that are paid for.

    Raises:
        ValueError: If names repeat or shapes do not fit them; if an attack was crafted against a
            model that is not here; if a cost is NaN or infinite in a cell that is not missing; if
            an attack costs the defender more than is certified; if answers are those of a model
            that is not here, or to other inputs than another's.
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
                raise ValueError(f"{name} must be named, each once, not {list(names)}")
        strangers = {each for each in self.against if each is not None} - set(self.models)
        if len(self.against) != len(self.attacks) or strangers:
            raise ValueError(
                f"against needs, for each of {len(self.attacks)} attacks, one of the models or "
                f"None, not {list(self.against)}"
            )
        if set(self.costs) != set(PLAYERS):
            raise ValueError(f"costs are needed of {list(PLAYERS)}, not {list(self.costs)}")
        cells = (len(self.models), len(self.attacks))
        shapes = {player: np.shape(cost) for player, cost in self.costs.items()}
        examples = len({shape[2:] for shape in shapes.values()})
        for player, shape in shapes.items():
            if len(shape) != 3 or shape[:2] != cells or shape[2] == 0 or examples > 1:
                raise ValueError(
                    f"the {player}'s costs have shape {shape}; {cells[0]} models and {cells[1]} "
                    "attacks need [models, attacks, examples], as many examples for both players"
                )
        self._check_missing()
        self._check_certified()
        self._check_answers()

    def _check_missing(self) -> None:
        for model, attack in self.missing:
            if model not in self.models or attack not in self.attacks:
                raise ValueError(f"missing cell {model!r}, {attack!r} is none of the game")
        for player, cost in self.costs.items():
            broken = ~np.isfinite(cost).all(2)
            for d, a in np.argwhere(broken):
                cell = self.models[d], self.attacks[a]
                if cell not in self.missing:
                    raise ValueError(
                        f"the {player}'s cost of {cell[1]} on {cell[0]} is not finite for some "
                        "examples; leave those examples out of all cells, or name the cell missing"
                    )

    def _check_certified(self) -> None:
        if self.most is None:
            return
        shape = (len(self.models), self.examples)
        if np.shape(self.most) != shape:
            raise ValueError(
                f"most has shape {np.shape(self.most)}, not [models, examples] {shape}"
            )
        # Comparisons with NaN, a missing cell's, are False.
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
                f"answers have shapes {shapes}; give labels [inputs], as many for each of the "
                f"models {list(self.models)} that was asked"
            )

    @property
    def examples(self) -> int:
        """E."""
        return int(self.costs["defender"].shape[2])

    @property
    def zero_sum(self) -> bool:
        """Whether what one player loses the other wins, in every cell that was played."""
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
                f"the first {attack} on {model} ({why}); play them again, or leave out that model "
                "or attack"
            )
        # 0 - x rather than -x: a payoff of a cost of 0 is not -0.
        return np.subtract(0.0, self.costs[player], dtype=float)

    def part(
        self, models: Sequence[str] | None = None, attacks: Sequence[str] | None = None
    ) -> "EmpiricalGame":
        """The game of some models and some attacks, in the order given; None: all.

        An attack on a model that is left out has then seen none.

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
        """The same cells on some of the examples: whatever indexes an array [E].

        What a probe may ask about stays.
        """
        return replace(
            self,
            costs={player: cost[:, :, examples] for player, cost in self.costs.items()},
            most=None if self.most is None else self.most[:, examples],
        )
