"""Exact games, given by payoff matrices: the truth against which the schedule is tested.

Players and orders are those of every other game, so `order=attacker_first` means the same here. The
defender's actions are rows and the attacker's columns. A move is a mixture over a player's actions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from arena import chance
from arena.core import ActionSpace, Cost, IllegalMove, Labelled, Move, Player, Strategy, Task, Turn
from arena.fields import Count
from arena.games.game import Board, Entry, Game, Past, Scores
from arena.knowledge import View
from arena.ledger import Ledger, Meter
from arena.solvers.stackelberg import mixed_commitment, pure_commitment

_SUM_TOLERANCE = 1e-9


class Commitment(View):
    """The opponent's standing mixture [n], seen whole (not the action drawn from it)."""

    def __init__(self, opponent: str, knowledge: Any, facts: Any, mixture: Tensor) -> None:
        super().__init__(opponent, knowledge, facts)
        self.mixture = mixture


@dataclass(frozen=True)
class Mixtures(ActionSpace):
    """Probability vectors, float64 [n]; `pure` allows a single action only."""

    n: Count
    pure: bool = False

    def contains(self, given: Any, output: Tensor) -> Tensor:
        """Whether the vector is a distribution (sums to 1 within 1e-9); bool [1]."""
        legal = output.shape == (self.n,) and bool((output >= 0).all())
        legal = legal and abs(float(output.sum()) - 1.0) <= _SUM_TOLERANCE
        if self.pure:
            legal = legal and bool(((output == 0) | (output == 1)).all())
        return torch.tensor([legal])

    def sample(self, given: Any, key: Tensor) -> Tensor:
        """A pure action drawn uniformly."""
        return torch.eye(self.n, dtype=torch.float64)[int(chance.integers(key, self.n)[0])]


@dataclass(frozen=True)
class MatrixCost(Cost):
    """The player's cost, [defender's action][attacker's action]: minus its payoff matrix."""

    matrix: tuple[tuple[float, ...], ...]

    @classmethod
    def of_payoffs(cls, payoffs: Any) -> "MatrixCost":
        """From payoffs instead of costs."""
        return cls(tuple(tuple(-float(entry) for entry in row) for row in payoffs))

    def tensor(self) -> Tensor:
        """The matrix, float64 [rows, columns]."""
        return torch.tensor(self.matrix, dtype=torch.float64)

    def __call__(self, outcome: "Mixed") -> Tensor:
        """The expected cost x' M y, [1]."""
        return (outcome.defender @ self.tensor() @ outcome.attacker).reshape(1)


@dataclass(frozen=True)
class Mixed:
    """Both standing mixtures."""

    defender: Tensor
    attacker: Tensor


@dataclass(frozen=True)
class MatrixGame(Game):
    """The rules: each player commits to a mixture, and knowledge says whether it is seen.

    `knowledge.parameters` grants sight of the opponent's mixture (`Commitment`). Uniform mixtures
    stand before the first round.
    """

    players: ClassVar[tuple[str, ...]] = ("attacker", "defender")

    def grants(self, viewer: Player, opponent: Player, kind: type[View]) -> str | None:
        """Everybody may have facts, `parameters` the mixture."""
        if kind is View:
            return None
        if kind is not Commitment:
            return "a matrix game shows a Commitment and nothing else"
        return None if viewer.knowledge.parameters else "declare knowledge.parameters=true"

    def deal(self, players: Mapping[str, Player], seed: int) -> "MatrixBoard":
        """Checks that costs and actions have one shape.

        Raises:
            ValueError: If they do not.
        """
        shape = tuple(_mixtures(players[name]).n for name in ("defender", "attacker"))
        for name, player in players.items():
            found = _matrix(player).tensor().shape
            if tuple(found) != shape:
                raise ValueError(f"{name}'s cost matrix is {tuple(found)}, the actions {shape}")
        return MatrixBoard(players)


def _mixtures(player: Player) -> Mixtures:
    if not isinstance(player.actions, Mixtures):
        raise ValueError(f"a matrix game is played with Mixtures, not {player.actions}")
    return player.actions


def _matrix(player: Player) -> MatrixCost:
    if not isinstance(player.cost, MatrixCost):
        raise ValueError(f"a matrix game is scored by MatrixCost, not {player.cost}")
    return player.cost


@dataclass(frozen=True)
class MatrixBoard(Board):
    """A matrix game, ready to play."""

    players: Mapping[str, Player]

    @property
    def units(self) -> int:
        """One: the play itself."""
        return 1

    def data(self, player: str, past: Past) -> Labelled:
        """A single example without content: there are no data."""
        return Labelled(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64), 1)

    def opening(self, player: str) -> Move:
        """The uniform mixture; the first action, where only pure ones are allowed."""
        space = _mixtures(self.players[player])
        if space.pure:
            return torch.eye(space.n, dtype=torch.float64)[0]
        return torch.full((space.n,), 1.0 / space.n, dtype=torch.float64)

    def check(self, player: str, move: Move) -> Move:
        """Checks that the move is a mixture of the right size."""
        space = _mixtures(self.players[player])
        if not isinstance(move, Tensor) or not bool(space.contains(None, move)):
            raise IllegalMove(f"{player}'s move {move} is not in {space}")
        return move

    def view(
        self,
        viewer: str,
        opponent: str,
        kind: type[View],
        past: Past,
        ledger: Ledger,
        meter: Meter,
    ) -> View:
        """Facts, or facts and the mixture."""
        player = self.players[opponent]
        task = Task((1,), 1, (0.0, 1.0), player.actions, player.cost)
        knowledge = self.players[viewer].knowledge
        if kind is View:
            return View(opponent, knowledge, {"task": task})
        return Commitment(opponent, knowledge, {"task": task}, past.standing[opponent])

    def score(self, moves: Mapping[str, Entry]) -> Scores:
        """Expected costs of the mixtures."""
        outcome = Mixed(moves["defender"].move, moves["attacker"].move)
        return Scores({name: player.cost(outcome) for name, player in self.players.items()})

    def content(self) -> list[tuple[ActionSpace, Cost]]:
        """The declared actions and costs."""
        return [(player.actions, player.cost) for player in self.players.values()]

    def pack(self, player: str, move: Move) -> dict[str, Tensor]:
        """The mixture."""
        return {"mixture": move}

    def unpack(self, player: str, packed: Mapping[str, Tensor], strategy: Strategy) -> Move:
        """The mixture."""
        return packed["mixture"]


@dataclass(frozen=True)
class Mix(Strategy):
    """Always plays a given mixture."""

    weights: tuple[float, ...]

    def respond(self, turn: Turn) -> Tensor:
        """The mixture [n]."""
        return torch.tensor(self.weights, dtype=torch.float64)


def _payoffs(cost: Any, player: str) -> Tensor:
    """Payoffs with the player's own actions as rows."""
    matrix: Tensor = -cost.tensor()
    return matrix if player == "defender" else matrix.T


@dataclass(frozen=True)
class AttackerBestReplies(Strategy):
    """The attacker's best pure reply to the mixture it sees; ties in the defender's favour.

    That is the reply of the strong Stackelberg equilibrium; its first best action among ties.
    """

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": Commitment}

    def respond(self, turn: Turn) -> Tensor:
        """A pure mixture [n]."""
        return _best_reply(turn, "attacker", "defender")


@dataclass(frozen=True)
class DefenderBestReplies(Strategy):
    """The defender's best pure reply to the mixture it sees; ties in the attacker's favour."""

    needs: ClassVar[Mapping[str, type[View]]] = {"attacker": Commitment}

    def respond(self, turn: Turn) -> Tensor:
        """A pure mixture [n]."""
        return _best_reply(turn, "defender", "attacker")


def _best_reply(turn: Turn, seat: str, other: str) -> Tensor:
    view = turn.see(other, Commitment)
    own = _payoffs(turn.player.cost, seat) @ view.mixture
    theirs = _payoffs(view.task.cost, other).T @ view.mixture
    # Ties up to rounding: a mixture that makes the follower indifferent is exact in theory only.
    best = own >= own.max() - 1e-9
    reply = int(torch.where(best, theirs, -torch.inf).argmax())
    return torch.eye(len(own), dtype=torch.float64)[reply]


@dataclass(frozen=True)
class DefenderCommits(Strategy):
    """The defender commits to what is best against an attacker who plays a best reply.

    A mixture (Conitzer & Sandholm 2006), or the best pure action where its space allows no other.
    """

    needs: ClassVar[Mapping[str, type[View]]] = {"attacker": View}

    def respond(self, turn: Turn) -> Tensor:
        """The mixture [n] to commit to."""
        own = _payoffs(turn.player.cost, "defender")
        theirs = _payoffs(turn.see("attacker", View).task.cost, "defender")
        if not _mixtures(turn.player).pure:
            return torch.from_numpy(mixed_commitment(own, theirs).mixture)
        return torch.from_numpy(pure_commitment(own, theirs).mixture)
