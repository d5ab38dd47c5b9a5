"""Where labelled data come from."""

from abc import ABC, abstractmethod

from arena.core import Labelled
from arena.fields import Declared


class Source(Declared, ABC):
    """A labelled data set; `load` reads it whole, on the CPU."""

    @abstractmethod
    def load(self) -> tuple[Labelled, Labelled | None]:
        """The training and the test examples; None where there is no split of its own.

        Raises:
            FileNotFoundError: Naming the missing file and where it may come from.
            ValueError: Naming the damaged file, or the first unsound example.
        """
