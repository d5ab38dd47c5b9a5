"""What all executors do, and the one that needs no other process."""

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from arena.fields import Declared

T = TypeVar("T")
R = TypeVar("R")


class Exited(RuntimeError):
    """Code that was called wanted to end the process, as `sys.exit()` does."""

    @classmethod
    def of(cls, end: SystemExit) -> "Exited":
        """The same as an error of one line, with the place where it was raised."""
        place = traceback.extract_tb(end.__traceback__)[-1]
        return cls(f"sys.exit({end.code!r}) was called in {place.filename}, line {place.lineno}")


def done(work: Callable[[T], R], item: T) -> R:
    """What `work` makes of the item.

    Raises:
        Exited: If it calls `sys.exit()`: an item of work is not to end the process that does it.
    """
    try:
        return work(item)
    except SystemExit as end:
        raise Exited.of(end) from end


class Executor(Declared, ABC):
    """Takes items of work and yields their results as they finish."""

    @abstractmethod
    def results(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Yields the number of each item with `work` of it, in the order in which they finish.

        Items are begun in their order. `work` is sent to every worker once, so it is the place for
        what all items need. If workers are other processes, it must be possible to pickle it. An
        error in `work` is raised here, and no more items are begun.

        Raises:
            Exited: If `work` calls `sys.exit()`.
            ChildProcessError: If a worker died; what it had finished was yielded before.
            ValueError: If there are no workers to be had, or the work cannot be sent to them.
        """


@dataclass(frozen=True)
class Serial(Executor):
    """Does all work in this process, one item after the other."""

    def results(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Yields each item's result, in order."""
        for number, item in enumerate(items):
            yield number, done(work, item)
