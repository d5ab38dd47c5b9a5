"""Data that are already in memory, such as a user's own tensors."""

from dataclasses import dataclass

from arena.core import Labelled
from arena.data.source import Source


@dataclass(frozen=True)
class Given(Source):
    """The given examples. Box, labels and finite values are checked when the game is dealt.

    Attributes:
        train: The examples that both players train on; without `test`, some are dealt instead.
        test: The examples that are dealt to the attacker.
    """

    train: Labelled
    test: Labelled | None = None

    def load(self) -> tuple[Labelled, Labelled | None]:
        """The examples as they are.

        Raises:
            ValueError: Naming the first unsound example.
        """
        test = None if self.test is None else self.test.validated("test data")
        return self.train.validated("training data"), test
