"""Where labelled data come from."""

from abc import ABC, abstractmethod

from arena.core import Labelled
from arena.fields import Declared

LIMIT = 2**30
"""The most bytes of numbers that are read from one file, after decompression: 1 GiB."""


class Source(Declared, ABC):
    """A labelled data set; `load` reads all of it, on the CPU."""

    @abstractmethod
    def load(self) -> tuple[Labelled, Labelled | None]:
        """The training and the test examples; None where there is no split of its own.

        Raises:
            FileNotFoundError: Naming the missing file and where it may come from.
            ValueError: Naming the damaged or oversized file, or the first unsound example.
        """
