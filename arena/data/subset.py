"""A part of other data: some of the classes, some of the examples."""

from dataclasses import dataclass, replace

import torch

from arena import chance
from arena.core import Labelled
from arena.data.source import Source
from arena.fields import Count, Whole


@dataclass(frozen=True)
class Subset(Source):
    """The examples of some classes, numbered from 0 in the order given.

    Attributes:
        of: The data.
        classes: Which classes to keep; None keeps all.
        train: The most training examples to keep, drawn at random; None keeps all.
        seed: Seed of that draw.
    """

    of: Source
    classes: tuple[Whole, ...] | None = None
    train: Count | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        kept = self.classes
        if kept is not None and (len(kept) < 2 or len(set(kept)) < len(kept)):
            raise ValueError(f"Subset.classes = {list(kept)} must name two classes or more, once")

    def load(self) -> tuple[Labelled, Labelled | None]:
        """The chosen part of both splits; `train` limits the training examples alone.

        Raises:
            ValueError: If the data do not have one of the classes, or no example is left.
        """
        train, test = self.of.load()
        train = self._kept(train, "training data")
        if self.train is not None:
            generator = torch.Generator().manual_seed(chance.seed_of(self.seed, "subset"))
            train = train[torch.randperm(len(train), generator=generator)[: self.train]]
        return train, None if test is None else self._kept(test, "test data")

    def _kept(self, data: Labelled, name: str) -> Labelled:
        if self.classes is None:
            return data
        if max(self.classes) >= data.classes:
            raise ValueError(
                f"Subset.classes = {list(self.classes)}, but the data have 0..{data.classes - 1}"
            )
        number = torch.full((data.classes,), -1)
        number[list(self.classes)] = torch.arange(len(self.classes))
        y = number[data.y]
        kept = replace(data, x=data.x[y >= 0], y=y[y >= 0], classes=len(self.classes))
        return kept.validated(f"{name} of classes {list(self.classes)}")
