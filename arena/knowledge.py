"""What a player knows of another, and the views that enforce it [F9 of the keynote].

`Knowledge` is a declaration with one field per line of Figure 9. A strategy is handed a `View`: an
object that lacks what may not be seen. There is no flag to check and no rule to remember, because a
method that may not be called does not exist on the view.

    View > LabelView > ScoreView > WhiteBox      what an attacker may see of a defender
    View > SampleView                            what a defender may see of an attacker
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from arena import chance
from arena.declaration import Knowledge as Knowledge

REFUSED = -1
"""The label of an answer that is a refusal to classify [F8]."""

INVALID = -2
"""The label of an answer computed from NaN or infinite logits: no class, and no answer."""


class BudgetExceeded(Exception):
    """A probe was asked for an example whose budget is spent. Nothing was charged or answered."""


class Ledger:
    """What was asked about each of n examples: queries and gradients, int64 [n].

    The budget limits probes (`LabelView.labels`, `ScoreView.scores`). Passes of a white box are
    counted as queries too, but nobody can ration what a player does with its own copy.

    Args:
        n: How many examples there are.
        budget: The most probes of each; None: no limit.
        device: Where the books are.
        spent: Probes of each, int64 [n], that were asked before these books were opened and that
            count against the budget; None: none were.
        seed: Of the coins with which a random classifier answers.

    Attributes:
        unattributed: Inputs that passed through a module without an example being named.
    """

    def __init__(
        self,
        n: int,
        budget: int | None,
        device: torch.device | str = "cpu",
        spent: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        self.queries = torch.zeros(n, dtype=torch.int64, device=device)
        self.gradients = torch.zeros(n, dtype=torch.int64, device=device)
        self.budget = budget
        self.unattributed = 0
        self._spent = self.queries.clone() if spent is None else spent
        self._seed = seed

    @property
    def total(self) -> Tensor:
        """Probes and passes of each example, int64 [n], those asked before included."""
        return self._spent + self.queries

    def charge(self, rows: Tensor) -> None:
        """Charges one probe per entry of `rows` (an example may occur several times).

        Raises:
            BudgetExceeded: If any example would go over; then none is charged.
        """
        if self.budget is not None:
            asked = torch.bincount(rows, minlength=len(self.queries))
            over = (asked > 0) & (self.total + asked > self.budget)
            if bool(over.any()):
                i = int(over.nonzero()[0])
                raise BudgetExceeded(
                    f"example {i} has {self.budget - int(self.total[i])} of {self.budget} "
                    f"queries left and {int(asked[i])} were asked for"
                )
            self.queries += asked
        else:
            self.passed(rows)

    def passed(self, rows: Tensor) -> None:
        """Counts a pass per entry of `rows`, within budget or not; no host sync."""
        self.queries.index_add_(0, rows, torch.ones_like(rows))

    def differentiated(self, rows: Tensor) -> None:
        """Counts a gradient per entry of `rows`; no host sync."""
        self.gradients.index_add_(0, rows, torch.ones_like(rows))

    def passed_unnamed(self, n: int) -> None:
        """Counts a pass of `n` inputs of which nobody said whose they are."""
        self.unattributed += n

    def numbers(self, rows: Tensor) -> Tensor:
        """The number, from 0, of a query about each of `rows` [b], asked now and in their order.

        An example that occurs several times asks several queries, however they are batched.
        """
        order = rows.argsort(stable=True)
        sorted_ = rows[order]
        nth = torch.arange(len(rows), device=rows.device) - torch.searchsorted(sorted_, sorted_)
        return self.queries[rows] + torch.empty_like(rows).index_copy_(0, order, nth)

    def coins(self, rows: Tensor) -> Tensor:
        """A key, int64 [b], for each of these queries: of its example and its number."""
        return chance.fold(chance.keys_of(self._seed, rows), self.numbers(rows))

    def remaining(self, rows: Tensor) -> Tensor:
        """Queries left for each of `rows`, int64 (2^62 where there is no limit)."""
        if self.budget is None:
            return torch.full_like(rows, 1 << 62)
        return self.budget - self.total[rows]

    def on(self, rows: Tensor) -> "Ledger":
        """The same books for a caller who numbers `rows` of the examples from 0."""
        return _Extract(self, rows)


class _Extract(Ledger):
    """Some examples of a ledger, by numbers of their own; what is charged is charged there."""

    def __init__(self, whole: Ledger, rows: Tensor) -> None:
        self._whole, self._rows = whole, rows
        self.budget = whole.budget

    def charge(self, rows: Tensor) -> None:
        self._whole.charge(self._rows[rows])

    def passed(self, rows: Tensor) -> None:
        self._whole.passed(self._rows[rows])

    def passed_unnamed(self, n: int) -> None:
        self._whole.passed_unnamed(n)

    def differentiated(self, rows: Tensor) -> None:
        self._whole.differentiated(self._rows[rows])

    def numbers(self, rows: Tensor) -> Tensor:
        return self._whole.numbers(self._rows[rows])

    def coins(self, rows: Tensor) -> Tensor:
        return self._whole.coins(self._rows[rows])

    def remaining(self, rows: Tensor) -> Tensor:
        return self._whole.remaining(self._rows[rows])


class Meter:
    """Counts what passes through a module that a player looks into.

    It hooks the module and all its parts. Passes that a view makes are charged by the view to
    their examples (`charged`). Any other outermost call counts as unattributed.

    Args:
        ledger: Where they are counted.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._hooks: list[RemovableHandle] = []
        self._watched: set[int] = set()
        self._depth = 0
        self._charged = False

    def watch(self, module: nn.Module) -> nn.Module:
        """The module, its passes counted from now on until `stop`."""
        if id(module) not in self._watched:
            self._watched.add(id(module))
            for part in module.modules():
                self._hooks.append(part.register_forward_pre_hook(self._enter))
                self._hooks.append(part.register_forward_hook(self._leave, always_call=True))
        return module

    def stop(self) -> None:
        """Takes all hooks away."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._watched.clear()

    @contextmanager
    def charged(self) -> Iterator[None]:
        """Passes made within are charged by their caller."""
        before, self._charged = self._charged, True
        try:
            yield
        finally:
            self._charged = before

    def __deepcopy__(self, memo: Any) -> "Meter":
        """Itself: a copy of a module is metered as the module is."""
        return self

    def _enter(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        if self._depth == 0 and not self._charged and given and isinstance(given[0], Tensor):
            self._ledger.passed_unnamed(len(given[0]))
        self._depth += 1

    def _leave(self, module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        self._depth -= 1


class Answering(Protocol):
    """The part of a committed classifier that views use."""

    @property
    def classes(self) -> int:
        """Number of classes K."""

    def labels(self, x: Tensor) -> Tensor:
        """Answers, int64 [B]."""

    def logits(self, x: Tensor) -> Tensor:
        """Logits [B, K] or [B, K + 1]."""

    def published(self, logits: Tensor) -> Tensor:
        """The scores that it publishes for these logits."""

    @property
    def module(self) -> nn.Module:
        """The module behind it."""

    def rounded(self, dtype: torch.dtype) -> "Answering":
        """The same classifier in a coarser arithmetic; itself if it has none."""


@runtime_checkable
class Random(Protocol):
    """A committed classifier whose answers depend on coins."""

    def drawn(self, key: Tensor) -> Answering:
        """The classifier that answers with the coins `key` [B], one of `chance` for each input."""


class View:
    """What is known of an opponent without asking it anything.

    A fact that the knowledge does not grant, or that does not exist, raises `PermissionError` when
    read; `knows` says which are there.
    """

    def __init__(self, opponent: str, knowledge: Knowledge, facts: Mapping[str, Any]) -> None:
        self._opponent = opponent
        self.knowledge = knowledge
        self._facts = {
            name: fact for name, fact in facts.items() if getattr(knowledge, name, False)
        }

    def knows(self, name: str) -> bool:
        """Whether the fact of this name can be read."""
        return name in self._facts

    def _fact(self, name: str) -> Any:
        if name not in self._facts:
            why = (
                "has none to know"
                if getattr(self.knowledge, name)
                else f"is hidden: declare knowledge.{name}=true to grant it"
            )
            raise PermissionError(f"{name} of the {self._opponent} {why}")
        return self._facts[name]

    def on(self, rows: Tensor) -> Self:
        """The same view for a caller that numbers `rows` of the turn's examples from 0."""
        return self

    @property
    def task(self) -> Any:
        """`core.Task`: input shape, classes, box, the opponent's actions and cost."""
        return self._fact("task")

    @property
    def algorithm(self) -> Any:
        """The opponent's strategy as a value, its architecture left out."""
        return self._fact("algorithm")

    @property
    def architecture(self) -> Any:
        """The learner that the opponent trains."""
        return self._fact("architecture")

    @property
    def training_data(self) -> Any:
        """`core.Labelled`: what the opponent trains on."""
        return self._fact("training_data")


class LabelView(View):
    """A classifier that answers with a label only (a decision-based black box).

    Every probe names, for each input, the example that it serves (`rows`, indices into the turn's
    data), and that example pays. Answers carry no graph. A `Random` classifier answers every probe
    with fresh coins, which depend on the example and the number of passes that it has paid for; so
    they are the same however the examples are batched.
    """

    def __init__(
        self,
        opponent: str,
        knowledge: Knowledge,
        facts: Mapping[str, Any],
        answering: Answering,
        ledger: Ledger,
        meter: Meter | None = None,
    ) -> None:
        super().__init__(opponent, knowledge, facts)
        self._answering = answering
        self._ledger = ledger
        self._meter = meter or Meter(ledger)

    def on(self, rows: Tensor) -> Self:
        """The same view, whose probes of example i are charged to example `rows[i]`."""
        part = copy.copy(self)
        part._ledger = self._ledger.on(rows)
        return part

    def remaining(self, rows: Tensor) -> Tensor:
        """Probes left for each of `rows`, int64 [B]."""
        return self._ledger.remaining(rows)

    def _asked(self, x: Tensor, rows: Tensor) -> Answering:
        """The classifier that a pass of `x`, not yet charged to `rows`, meets.

        Raises:
            ValueError: If there is not one row for each input.
        """
        if rows.shape != (len(x),):
            raise ValueError(
                f"{len(x)} inputs came with rows of shape {list(rows.shape)}: name, for each "
                "input, the one example that it serves and that pays for it"
            )
        if not isinstance(self._answering, Random):
            return self._answering
        return self._answering.drawn(self._ledger.coins(rows))

    @torch.no_grad()
    def labels(self, x: Tensor, rows: Tensor) -> Tensor:
        """The labels of inputs `x` [B, ...], int64 [B]; `REFUSED` (-1) where it refuses.

        Raises:
            BudgetExceeded: If an example in `rows` [B] has no probe left; nothing is charged.
            ValueError: If there is not one row for each input.
        """
        asked = self._asked(x, rows)
        self._ledger.charge(rows)
        with self._meter.charged():
            return asked.labels(x.detach())


class ScoreView(LabelView):
    """A classifier that answers with a confidence for every class."""

    @torch.no_grad()
    def scores(self, x: Tensor, rows: Tensor) -> Tensor:
        """Log-probabilities [B, K] of inputs `x` [B, ...] (K + 1 columns if it may refuse).

        Raises:
            BudgetExceeded: If an example in `rows` [B] has no probe left; nothing is charged.
            ValueError: If there is not one row for each input.
        """
        asked = self._asked(x, rows)
        self._ledger.charge(rows)
        with self._meter.charged():
            return asked.published(asked.logits(x.detach()))


class WhiteBox(ScoreView):
    """The committed model itself: differentiable logits, and the module behind them.

    Passes are counted (each a query; each backward through them a gradient), never limited.
    """

    def logits(self, x: Tensor, rows: Tensor) -> Tensor:
        """Logits [B, K] (K + 1 with a refusal column, last) of `x`, differentiable in `x`.

        Raises:
            ValueError: If there is not one row for each input.
        """
        asked = self._asked(x, rows)
        self._ledger.passed(rows)
        with self._meter.charged():
            logits = asked.logits(x)
        if logits.requires_grad:
            count = partial(self._count_gradients, rows)
            logits.register_hook(count)
        return logits

    def _count_gradients(self, rows: Tensor, _: Tensor) -> None:
        self._ledger.differentiated(rows)

    def rounded(self, dtype: torch.dtype) -> Self:
        """The model in a coarser arithmetic, such as bfloat16: faster, but not what is scored.

        The same view if the model cannot be rounded. Its passes are counted like others.
        """
        coarse = copy.copy(self)
        coarse._answering = self._answering.rounded(dtype)
        return coarse

    @property
    def module(self) -> nn.Module:
        """The frozen module, for attacks that look inside.

        What passes through it, a part of it or a copy is counted as unattributed: it names no
        example. To have passes of parts charged to examples, make them with `over`.
        """
        return self._meter.watch(self._answering.module)

    def over(self, answering: Answering) -> Self:
        """A view of another classifier, such as the attacker's own; it charges the same ledger."""
        view = copy.copy(self)
        view._answering = answering
        return view


class SampleView(View):
    """What an attacker revealed: one labelled batch per round played, oldest first.

    Only what the game sets apart to be revealed is ever here; what is scored stays unseen.
    """

    def __init__(
        self,
        opponent: str,
        knowledge: Knowledge,
        facts: Mapping[str, Any],
        samples: tuple[Any, ...],
    ) -> None:
        super().__init__(opponent, knowledge, facts)
        self.samples = samples
