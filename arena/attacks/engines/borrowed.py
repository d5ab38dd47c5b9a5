"""Attacks of other libraries, as strategies: what the three adapters share.

The library gets a module that stands in for the view, so that every pass is metered. Its outputs
are judged as those of our own attacks are.
"""

import importlib
import inspect
import random
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from arena.actions.lp import L0, L1, L2, Linf, Lp
from arena.attacks.engines import losses
from arena.attacks.engines.spaces import serving
from arena.attacks.engines.walks import wide
from arena.classification import decide
from arena.core import Cost, IllegalMove, Player, Strategy, Turn, first
from arena.costs import ErrorRate, Negation, Targeted
from arena.fields import Count
from arena.knowledge import View, WhiteBox

ROUNDING = 1e-6
"""How far float32 rounding may take a value out of the space, as a share of the box's width."""

NORMS: dict[type[Lp], float] = {L0: 0, L1: 1, L2: 2, Linf: float("inf")}
"""The p of each geometry."""


class Facade(nn.Module):
    """Logits of a view for inputs in the unit box; each row is charged to an example.

    If a pass has as many inputs as there are examples, they are taken to be one per example, in
    order. Otherwise the total is still exact, and each input is charged to the example that is
    nearest in L2.
    """

    def __init__(self, view: WhiteBox, rows: Tensor, given: Tensor, box: tuple[float, float]):
        super().__init__()
        self._view, self._rows, self._given, self._box = view, rows, given, box
        # Libraries ask a model's parameters which device it is on.
        self.placed = nn.Parameter(torch.zeros((), device=given.device), requires_grad=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits [b, K] of `x` [b, ...]."""
        x = x.to(self._given.dtype)
        rows = self._rows
        if len(x) != len(rows):
            rows = rows[torch.cdist(x.detach().flatten(1), self._given.flatten(1)).argmin(1)]
        low, high = self._box
        return self._view.logits(low + x * (high - low), rows)


@dataclass(frozen=True)
class Job:
    """What a library is asked to do.

    Attributes:
        x: Inputs [b, ...] in the unit box.
        y: Their true classes [b].
        target: The class that the inputs are to be taken for; None if any class but `y` will do.
        eps: The radius, in units of the unit box.
        p: The p of its norm: 0, 1, 2 or infinity.
        classes: The number of classes.
    """

    x: Tensor
    y: Tensor
    target: int | None
    eps: float
    p: float
    classes: int

    @property
    def labels(self) -> Tensor:
        """The target [b] if there is one, else `y`: how most libraries take the goal."""
        return self.y if self.target is None else torch.full_like(self.y, self.target)


@dataclass(frozen=True)
class Borrowed(Strategy):
    """An attack of another library, refereed and metered like our own.

    The radius comes from the action space and the goal from the cost, never from the options. The
    library plays in the unit box, whatever the box of the data: its step sizes are shares of the
    box.

    Metering: every pass and every gradient of the library is counted in the total. With one example
    at a time (`together=1`) each example's share is exact, its random numbers are its own, and no
    other example can affect its result. More examples at a time are faster and lose these
    guarantees, see `Facade`. One more query per example finds out how the output is answered. The
    library sees the white box even if it asks for labels only.

    Refereeing: an output that leaves the space by rounding (`ROUNDING`) is projected; one further
    out is an `IllegalMove`. The given input is played where the library returned NaN or an input
    that is answered with NaN, where an attack that was told no eps ends outside the ball, and where
    the goal cannot be had (the example is of the target's class already).

    Attributes:
        attack: The class of the attack, with its module.
        options: The keyword options that the class is called with, in the library's words.
        together: How many examples the library gets at once, at most the turn's `batch_size`.
    """

    attack: str
    options: Mapping[str, Any] = field(default_factory=dict)
    together: Count = 1

    needs: ClassVar[Mapping[str, type[View]]] = {"defender": WhiteBox}

    @abstractmethod
    def made(self, model: nn.Module, job: Job) -> Any:
        """The library's attack on `model`.

        Raises:
            ValueError: If it cannot serve the job's geometry or goal.
        """

    @abstractmethod
    def run(self, attack: Any, model: nn.Module, job: Job) -> Tensor:
        """What the attack returns for the job, [b, ...]."""

    @abstractmethod
    def told(self, attack: Any) -> bool:
        """Whether the attack was told eps, and so promises to stay within it."""

    def check(self, player: Player) -> None:
        """Makes the attack once, without running it.

        Raises:
            ValueError: If the library or the attack is not there, or if the attack does not fit the
                options, the space or the cost.
        """
        space = serving(player, self.attack, tuple(NORMS))
        target = _target(player.cost, self.attack)
        if taken := {"eps", "targeted"} & set(self.options):
            raise ValueError(
                f"{self.attack} is given {', '.join(sorted(taken))} in its options; "
                "set attacker.actions.eps and attacker/cost instead"
            )
        x = torch.zeros(1, 1, 8, 8)
        y = torch.zeros(1, dtype=torch.int64)
        with secluded(x, seed=0):
            try:
                self.made(nn.Linear(8, 10), Job(x, y, target, _unit(space), _norm(space), 10))
            except TypeError as error:
                raise ValueError(f"{self.attack} cannot be made: {error}") from None

    def respond(self, turn: Turn) -> Tensor:
        """What the library plays, [B, ...].

        Raises:
            IllegalMove: If an output leaves the space by more than rounding.
        """

        def attack(rows: Tensor) -> Tensor:
            few = [rows[at : at + self.together] for at in range(0, len(rows), self.together)]
            return torch.cat([self._played(turn, rows) for rows in few])

        return turn.each_batch(attack)

    def _played(self, turn: Turn, rows: Tensor) -> Tensor:
        """What is played for `rows`: the library's outputs, where the goal can be had at all."""
        played, target = turn.data.x[rows].clone(), _target(turn.player.cost, self.attack)
        able = turn.data.y[rows] != (-1 if target is None else target)
        if bool(able.any()):
            played[able] = self._judged(turn, rows[able], target)
        return played

    def _judged(self, turn: Turn, rows: Tensor, target: int | None) -> Tensor:
        """The library's outputs for `rows`; the given inputs where an output is no legal move."""
        given, view = turn.data[rows], turn.see("defender", WhiteBox)
        space = serving(turn.player, self.attack, tuple(NORMS))
        low, high = space.box
        unit = (given.x - low) / (high - low)
        model = Facade(view, rows, unit, space.box)
        job = Job(unit.clone(), given.y, target, _unit(space), _norm(space), given.classes)
        with secluded(unit, seed=int(turn.keys[rows[0]])):
            attack = self.made(model, job)
            x = self.run(attack, model, job).detach().to(unit)
        if x.shape != unit.shape:
            raise IllegalMove(f"{self.attack} gave {list(x.shape)} for {list(unit.shape)}")
        x = low + x * (high - low)
        legal = space.project(given.x, x)
        lost = ~x.flatten(1).isfinite().all(1)
        beyond = (x - legal).abs().flatten(1).amax(1) > ROUNDING * (high - low)
        if not self.told(attack):
            lost |= beyond
        elif (i := first(beyond & ~lost)) is not None:
            why = space.explain(given.x[i : i + 1], x[i : i + 1])
            raise IllegalMove(
                f"{self.attack} left {space} with input {int(rows[i])} of its turn: {why}"
            )
        x = torch.where(wide(lost, x), given.x, legal)
        with torch.no_grad():
            answered = decide(view.logits(x, rows), given.classes)
        barren = losses.barren(turn.player.cost, answered, given.y)
        return torch.where(wide(barren, x), given.x, x)


def options_of(make: Any, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The `wanted` options that a class takes."""
    known = inspect.signature(make).parameters
    return {name: value for name, value in wanted.items() if name in known}


def load(path: str, library: str) -> Any:
    """The class named by `path`, from a library that is an optional extra.

    Raises:
        ValueError: If the library is not installed, or has no such class.
    """
    module, _, name = path.rpartition(".")
    if module.split(".")[0] != library:
        raise ValueError(
            f"attack={path} is no class of {library}; give its full name, {library}...."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # raised by what they import
            importlib.import_module(library)
            return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise ValueError(f"attack={path} cannot be loaded: {error}") from None
        raise ValueError(
            f"attack={path} needs the library {library}, which is not installed\n"
            "pip install 'arena[peers]'"
        ) from None
    except AttributeError:
        raise ValueError(f"attack={path}: {module} has no {name}") from None


@contextmanager
def secluded(x: Tensor, seed: int) -> Iterator[None]:
    """Seeds the global generators that libraries read, and restores them afterwards."""
    kept = np.random.get_state(), random.getstate()
    with torch.random.fork_rng([x.device] if x.is_cuda else [], device_type="cuda"):
        torch.default_generator.manual_seed(seed)
        if x.is_cuda:
            with torch.cuda.device(x.device):
                torch.cuda.manual_seed(seed)
        np.random.seed(seed % (1 << 32))
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(kept[0])
            random.setstate(kept[1])


def _target(cost: Cost, attack: str) -> int | None:
    """The class that is wanted; None if any class but the true one will do."""
    if isinstance(cost, Targeted):
        return cost.target
    if isinstance(cost, Negation) and isinstance(cost.of, ErrorRate):
        return None
    raise ValueError(
        f"{attack} can aim at errors or at one class, not at cost={cost}; "
        "use cost=negation of error_rate, or targeted"
    )


def _norm(space: Lp) -> float:
    return next(p for kind, p in NORMS.items() if isinstance(space, kind))


def _unit(space: Lp) -> float:
    """The radius in the unit box. An L0 radius is a number of features in any box."""
    return space.eps if isinstance(space, L0) else space.eps / (space.box[1] - space.box[0])
