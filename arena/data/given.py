"""Data that are already in memory: a user's own tensors."""

from dataclasses import dataclass

from arena.core import Labelled
from arena.data.source import Source


@dataclass(frozen=True)
class Given(Source):
    """The given examples, checked (box, labels, finite values) when the game is dealt.

    Attributes:
        train: What defender and attacker train on; without `test`, also what is dealt.
        test: What is dealt to the attacker.
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
