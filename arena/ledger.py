"""What was asked, and about which example: the books that budgets and metrics are made from."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from arena import chance


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
