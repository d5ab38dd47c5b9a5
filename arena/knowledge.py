"""What a player knows of another, and the views that enforce it [F9 of the keynote].

`Knowledge` is a declaration with one field per line of Figure 9. A strategy is handed a `View`: an
object that lacks what may not be seen. There is no flag to check and no rule to remember, because a
method that may not be called does not exist on the view.

    View > LabelView > ScoreView > WhiteBox      what an attacker may see of a defender
    View > SampleView                            what a defender may see of an attacker
"""

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from arena.declaration import Knowledge as Knowledge
from arena.ledger import Ledger, Meter

REFUSED = -1
"""The label of an answer that is a refusal to classify [F8]."""

INVALID = -2
"""The label of an answer computed from NaN or infinite logits: no class, and no answer."""


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


def _one_each(answers: Tensor, x: Tensor, axes: int) -> Tensor:
    """The answers, [B] or [B, K], one for each input.

    Raises:
        ValueError: If they are of another shape: inputs with an axis more would get more answers
            than are paid for.
    """
    if answers.ndim != axes or len(answers) != len(x):
        raise ValueError(
            f"{len(x)} inputs of shape {list(x.shape[1:])} got answers of shape "
            f"{list(answers.shape)}; ask about inputs of the shape that the task says"
        )
    return answers


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
            return _one_each(asked.labels(x.detach()), x, 1)


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
            return _one_each(asked.published(asked.logits(x.detach())), x, 2)


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
            logits = _one_each(asked.logits(x), x, 2)
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
