"""What adaptive response needs of a game: opening moves, best responses, and costs.

The loops (`double_oracle`, `repeated_play`) know moves only by name. So the same loop runs on
trained models and on games that are given whole, where it can be checked.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from arena.arena import Arena
from arena.empirical.cells import Cells
from arena.empirical.game import PLAYERS, Costs, EmpiricalGame
from arena.fields import Declared
from arena.solvers.payoffs import ROUNDING, Array, tensor

Mixture = Mapping[str, float]
"""Names of one player's moves, and the probability of each."""


class Responding(Declared, ABC):
    """How both players respond to mixtures of each other's moves."""

    @abstractmethod
    def oracles(self, arena: Arena, cells: Cells | None = None) -> "Oracles":
        """The oracles of a match that is set up but not begun.

        Args:
            arena: The match; trained models are kept in its store.
            cells: Where costs are kept; None: nowhere.

        Raises:
            ValueError: If its game or its players cannot respond so; nothing was trained.
        """


class Oracles(ABC):
    """Both players' best responses, in a game of models and attacks on E examples.

    A name always stands for the same move, with the same costs. A response depends on its arguments
    alone, not on earlier calls.
    """

    @property
    @abstractmethod
    def examples(self) -> int:
        """E; 1: payoffs are exact, nothing is sampled."""

    @abstractmethod
    def opening(self) -> tuple[str, str]:
        """The first model and the first attack."""

    @abstractmethod
    def attack(self, models: Mixture, seed: int, fresh: bool = False) -> str:
        """The attacker's best response to a mixed defender whose weights it knows.

        Args:
            models: The mixture.
            seed: Of the search.
            fresh: Whether to search harder than for a move that joins a population. What a fresh
                response gains judges the population.

        Raises:
            ValueError: If the weights are not a mixture.
        """

    @abstractmethod
    def defend(self, attacks: Mixture, seed: int, fresh: bool = False) -> str:
        """The defender's best response to a mixed attacker; as `attack`."""

    @abstractmethod
    def costs(self, model: str, attack: str) -> Mapping[str, Costs]:
        """By player, its cost of each example when the attack meets the model, [E]."""

    def against(self, attack: str) -> str | None:
        """The model that an attack was crafted against; None if there was none, or several."""
        return None


def checked(mixture: Mixture) -> dict[str, float]:
    """The mixture's support.

    Raises:
        ValueError: If weights are negative or not finite, or sum further than 1e-9 from 1.
    """
    weights = np.array(list(mixture.values()), dtype=float)
    if not len(weights) or not (weights >= 0).all() or abs(weights.sum() - 1) > ROUNDING:
        raise ValueError(f"the mixture {dict(mixture)} needs weights >= 0 that sum to 1")
    return {name: float(weight) for name, weight in mixture.items() if weight > 0}


def crossed(
    oracles: Oracles, models: Mapping[str, str], attacks: Mapping[str, str]
) -> EmpiricalGame:
    """The game of some models and attacks, all cells played.

    Args:
        oracles: Whose moves they are.
        models: By a model's own name, its name in the game.
        attacks: By an attack's own name, its name in the game.
    """
    costs = {player: np.empty((len(models), len(attacks), oracles.examples)) for player in PLAYERS}
    for d, model in enumerate(models):
        for a, attack in enumerate(attacks):
            for player, cost in oracles.costs(model, attack).items():
                costs[player][d, a] = cost
    return EmpiricalGame(
        models=tuple(models.values()),
        attacks=tuple(attacks.values()),
        against=tuple(models.get(oracles.against(attack) or "") for attack in attacks),
        costs=costs,
    )


@dataclass(frozen=True)
class GivenGame(Oracles):
    """A finite zero-sum game given whole: best responses are the best rows and columns.

    They respond to mean payoffs, and take the first of ties. A fresh response is no stronger.

    Attributes:
        payoffs: The defender's, of each row against each column, [m, n], or [m, n, E].
        start: Row and column to begin with.
    """

    payoffs: ArrayLike
    start: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        whole = np.asarray(self.payoffs, dtype=float)
        whole = tensor(whole[:, :, None] if whole.ndim == 2 else whole, 3)
        object.__setattr__(self, "payoffs", whole)

    @property
    def _payoffs(self) -> Array:
        assert isinstance(self.payoffs, np.ndarray)
        return self.payoffs

    @property
    def examples(self) -> int:
        """E."""
        return int(self._payoffs.shape[2])

    def opening(self) -> tuple[str, str]:
        """The first row and column."""
        return f"row {self.start[0]}", f"column {self.start[1]}"

    def attack(self, models: Mixture, seed: int, fresh: bool = False) -> str:
        """The column that leaves the defender least."""
        x = checked(models)
        means = sum(x[name] * self._payoffs[_number(name)].mean(1) for name in x)
        return f"column {int(np.argmin(means))}"

    def defend(self, attacks: Mixture, seed: int, fresh: bool = False) -> str:
        """The row that gives the defender most."""
        y = checked(attacks)
        means = sum(y[name] * self._payoffs[:, _number(name)].mean(1) for name in y)
        return f"row {int(np.argmax(means))}"

    def costs(self, model: str, attack: str) -> Mapping[str, Costs]:
        """Minus the payoffs."""
        payoff = self._payoffs[_number(model), _number(attack)]
        return {"attacker": payoff, "defender": 0.0 - payoff}


def _number(name: str) -> int:
    return int(name.partition(" ")[2])
