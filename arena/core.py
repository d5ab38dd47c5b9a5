"""The vocabulary: what any game is made of [F8, F9, F15 of the keynote].

A player is what it declares (actions, cost, knowledge) plus a strategy. A strategy turns a `Turn`
into a move. The turn holds views of the opponents, and a view lacks what may not be seen. Moves
are values. What games about classifiers share is in `classification`.

Shapes: B examples, K classes; inputs [B, ...] float32; labels [B] int64.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from arena import chance
from arena.fields import Declared
from arena.knowledge import Knowledge, View
from arena.store import Store

Move = Any
"""A strategy's return value; the game defines which values are legal."""

V = TypeVar("V", bound=View)


class IllegalMove(Exception):
    """A strategy returned what its player's action space does not contain."""


@dataclass(frozen=True)
class Labelled:
    """Inputs `x` [B, ...] inside `box`, with true labels `y` [B] in 0 .. classes - 1."""

    x: Tensor
    y: Tensor
    classes: int
    box: tuple[float, float] = (0.0, 1.0)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: Tensor | slice) -> "Labelled":
        return replace(self, x=self.x[rows], y=self.y[rows])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x.shape[1:])

    def to(self, device: torch.device | str) -> "Labelled":
        """The same data on another device."""
        return replace(self, x=self.x.to(device), y=self.y.to(device))

    def validated(self, name: str) -> "Labelled":
        """Returns the data if they are sound; called once, where data enter.

        Raises:
            ValueError: On wrong shapes, no examples, unequal lengths, NaN, inputs outside the box
                or labels outside the classes, naming the first such example.
        """
        if self.x.ndim < 2 or self.y.ndim != 1:
            raise ValueError(
                f"{name}: inputs have shape {list(self.x.shape)} and labels {list(self.y.shape)}; "
                "give inputs [B, ...], of at least one axis each, and labels [B]"
            )
        if len(self.x) != len(self.y):
            raise ValueError(f"{name}: {len(self.x)} inputs but {len(self.y)} labels")
        if len(self) == 0:
            raise ValueError(f"{name}: no examples; give at least one")
        if (i := first(~self.x.flatten(1).isfinite().all(1))) is not None:
            raise ValueError(f"{name}: input {i} holds NaN or infinity; drop or repair it")
        low, high = self.box
        if (i := first(((self.x < low) | (self.x > high)).flatten(1).any(1))) is not None:
            found = self.x[i]
            raise ValueError(
                f"{name}: input {i} has values in [{float(found.min()):.4g}, "
                f"{float(found.max()):.4g}], outside the box [{low:g}, {high:g}]; rescale the data"
            )
        if (i := first((self.y < 0) | (self.y >= self.classes))) is not None:
            raise ValueError(
                f"{name}: label {int(self.y[i])} of example {i} is outside "
                f"0..{self.classes - 1}; relabel it or raise the number of classes"
            )
        return self


def first(flags: Tensor) -> int | None:
    """The index of the first True in `flags` [B], or None."""
    return int(flags.int().argmax()) if bool(flags.any()) else None


class ActionSpace(Declared, ABC):
    """For each given input, the outputs that a player may return."""

    def truth(self, given: Labelled, output: Any) -> Tensor:
        """The true labels [B] of legal outputs: by default those of the given inputs.

        Norm balls propagate labels to nearby points [F14]; a space for which that is wrong
        overrides this.
        """
        return given.y

    @abstractmethod
    def contains(self, given: Any, output: Any) -> Tensor:
        """Whether each output is legal, bool [B]. Never calls `project`."""

    def permits(self, given: Labelled, output: Any) -> Tensor:
        """Whether each output is legal, bool [B], if that depends on the true class.

        By default `contains`; a space in which some classes may not be changed overrides this.
        """
        return self.contains(given.x, output)

    def price(self, given: Labelled, output: Any) -> Tensor:
        """The price of making each legal output, float32 [B], in the space's own units.

        By default 0; `costs.MovePrice` makes a player pay it.
        """
        return torch.zeros(len(given), device=given.x.device)

    @abstractmethod
    def sample(self, given: Any, key: Tensor) -> Any:
        """A random legal output for each given one; `key` [B] as in `chance`."""

    def explain(self, given: Any, output: Any) -> str:
        """Why a single output (B = 1) is illegal, and by how much, for the error message."""
        return f"not in {self}"


class Cost(Declared, ABC):
    """What a player wants to be small; its payoff is minus the mean. Each player has its own."""

    @abstractmethod
    def __call__(self, outcome: Any) -> Tensor:
        """The cost of each unit, [B]: what is scored. In evasion, `outcome` is an `Outcome`."""

    def answered(self, labels: Tensor, y: Tensor) -> Tensor:
        """The cost [B] of answers `labels` [B] to attacked inputs of true class `y` [B].

        Without the price of queries: it is what an attacker who sees a label can compute.

        Raises:
            NotImplementedError: If the cost does not follow from answers.
        """
        raise NotImplementedError

    def surrogate(self, logits: Tensor, y: Tensor, classes: int | None = None) -> Tensor:
        """A differentiable surrogate [B] that falls as the cost does: for search, never scored.

        `logits` may be log-probabilities. With `classes` given, a column beyond them is the
        refusal's; otherwise every column is a class.

        Raises:
            NotImplementedError: If the cost cannot be searched.
        """
        raise NotImplementedError

    def check(self, classes: int) -> None:
        """Checks the cost against the number of classes.

        Raises:
            ValueError: If it names a class that is not there.
        """
        return None


@dataclass(frozen=True)
class Task:
    """The facts about the task that a player may know [F9].

    They are the input and output space, and the opponent's declared actions and cost.
    """

    shape: tuple[int, ...]
    classes: int
    box: tuple[float, float]
    actions: ActionSpace
    cost: Cost


class Strategy(Declared, ABC):
    """How a player moves: a frozen set of hyperparameters that keeps no state between rounds."""

    requires: ClassVar[tuple[str, ...]] = ()
    """Modules that it imports and that only an extra of arena installs."""

    @property
    def needs(self) -> Mapping[str, type[View]]:
        """The views that `respond` asks for, by opponent; checked before anything trains."""
        return {}

    @property
    def exposes(self) -> type[View]:
        """The view that could show the most of its moves, whatever knowledge grants."""
        return View

    def facts(self) -> dict[str, Any]:
        """The facts about it that others may know [F9]: its `algorithm` and `architecture`."""
        return {}

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> Move:
        """The move of this state, such as a `Classifier.state`, on data like these.

        Raises:
            NotImplementedError: If its moves have no state.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot restore a move from its state")

    def check(self, player: "Player") -> None:
        """Checks that the strategy can serve its player's actions and cost.

        Raises:
            ValueError: Saying what does not fit and what would.
        """
        return None

    @abstractmethod
    def respond(self, turn: "Turn") -> Move:
        """The move, which depends on the turn alone."""


@dataclass(frozen=True)
class Idle(Strategy):
    """Lets its move stand as it is: before the first round, the game's opening."""

    def respond(self, turn: "Turn") -> Move:
        """The move that stands.

        Raises:
            ValueError: If none does: the game has no opening for this player.
        """
        if turn.last is None:
            raise ValueError(
                "no move stands that an idle player could keep; give the game an opening for it, "
                "or name another strategy in its `idle`"
            )
        return turn.last


@dataclass(frozen=True)
class Player(Declared):
    """The four declarations of the keynote's game [F8, F9]; the order is the arena's."""

    actions: ActionSpace
    cost: Cost
    knowledge: Knowledge
    strategy: Strategy


@dataclass(frozen=True)
class Turn:
    """Everything that a strategy knows when it moves.

    Attributes:
        player: Its own declarations.
        round: From 0; -1 for an opening move, before the first round.
        data: What it was dealt: an attacker's inputs to perturb, a defender's training data.
        aside: The attacker's own training data, from the same source as the defender's and
            disjoint from them; None if there are none.
        last: Its own previous move, None at first.
        seed: Seed of all its randomness: a one-way function of the match's secret, the round, the
            stage and the player.
        batch_size: The most examples that it should put through a model at once.
        look: The arena's answer to `see`.
        closing: Whether this round will be scored with the opponents' moves that it sees: they have
            moved and will not move again.
        which: In part of a turn (`on`), the numbers of its examples in the whole turn.
        store: Where trained models are kept; None if nowhere.
        kept: The inputs that `keep` was given.
    """

    player: Player
    round: int
    data: Labelled
    aside: Labelled | None
    last: Move | None
    seed: int
    batch_size: int
    look: Callable[[str, type[View]], View]
    closing: bool = False
    which: Tensor | None = None
    store: Store | None = None
    kept: list[tuple[Tensor, Tensor]] = field(default_factory=list, repr=False)

    def see(self, opponent: str, kind: type[V]) -> V:
        """The view of an opponent's standing move.

        Raises:
            PermissionError: If the player's knowledge does not grant that kind of view.
        """
        view = self.look(opponent, kind)
        assert isinstance(view, kind)
        return view

    def keep(self, rows: Tensor, x: Tensor) -> None:
        """Puts aside inputs `x` [b, ...] found for `rows` [b] of the data.

        If the strategy runs into its budget (`BudgetExceeded`), it plays these, and its standing
        move of this round, or the inputs as dealt, for all other rows.
        """
        self.kept.append((rows if self.which is None else self.which[rows], x.detach()))

    def on(self, rows: Tensor) -> "Turn":
        """The part of the turn that is about `rows`, for a strategy that serves some examples.

        Every example has the same key, pays for its own probes and keeps its own inputs.
        """
        return replace(
            self,
            data=self.data[rows],
            last=self.last[rows] if isinstance(self.last, Tensor) else self.last,
            look=lambda opponent, kind: self.look(opponent, kind).on(rows),
            which=rows if self.which is None else self.which[rows],
        )

    @property
    def generator(self) -> torch.Generator:
        """A fresh CPU generator, seeded by the turn."""
        return torch.Generator().manual_seed(self.seed)

    @property
    def keys(self) -> Tensor:
        """A random key [B] for each example of `data`, see `chance`."""
        if self.which is not None:
            return chance.keys_of(self.seed, self.which)
        return chance.keys(self.seed, len(self.data), self.data.x.device)

    def batches(self) -> Iterator[Tensor]:
        """The row numbers of `data`, at most `batch_size` at a time."""
        rows = torch.arange(len(self.data), device=self.data.x.device)
        yield from torch.split(rows, self.batch_size)

    def each_batch(self, attack: Callable[[Tensor], Tensor]) -> Tensor:
        """Applies `attack` (rows -> outputs) batch by batch and puts the outputs together."""
        return torch.cat([attack(rows) for rows in self.batches()])


@dataclass(frozen=True)
class MoveOrder(Declared):
    """Who moves when: stages in turn, the players of a stage at once [F9, F15].

    A stage sees the standing moves: those of this round for earlier stages, those of the previous
    round for its own and later stages.

    Raises:
        ValueError: On no stages, an empty stage or a player twice in a stage.
    """

    stages: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stages:
            raise ValueError("MoveOrder.stages is empty; give at least one stage of players")
        for stage in self.stages:
            if not stage or len(set(stage)) < len(stage):
                raise ValueError(f"MoveOrder: stage {list(stage)} must name each player once")

    def __str__(self) -> str:
        return ", then ".join(" with ".join(stage) for stage in self.stages)

    @classmethod
    def attacker_first(cls) -> "MoveOrder":
        """The attacker moves, the defender answers."""
        return cls((("attacker",), ("defender",)))

    @classmethod
    def defender_first(cls) -> "MoveOrder":
        """The defender commits, the attacker answers."""
        return cls((("defender",), ("attacker",)))

    @classmethod
    def simultaneous(cls) -> "MoveOrder":
        """Both move at once, seeing only the last round."""
        return cls((("attacker", "defender"),))
