"""What all executors do, and the one that needs nothing."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from arena.fields import Declared

T = TypeVar("T")
R = TypeVar("R")


class Executor(Declared, ABC):
    """Takes items of work and gives their results as they finish."""

    @abstractmethod
    def results(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Yields the number of each item with `work` of it, in the order in which they finish.

        Items are begun in their order. `work` goes to every worker once, so that what all items
        need is best kept in it; where workers are other processes, it can be pickled. What `work`
        raises is raised here, and no more items are begun then.

        Raises:
            ChildProcessError: If a worker died; what it had finished was yielded before.
            ValueError: If the workers cannot be had, or the work not be sent to them.
        """


@dataclass(frozen=True)
class Serial(Executor):
    """Does everything itself, one item after the other."""

    def results(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Yields each item's result, in order."""
        for number, item in enumerate(items):
            yield number, work(item)
