"""What games about classifiers share: answers, committed classifiers and outcomes of attacks.

Shapes: B examples, K classes; inputs [B, ...] float32; labels [B] int64.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from arena.core import ActionSpace, Labelled
from arena.fields import Declared
from arena.knowledge import INVALID, REFUSED, View, WhiteBox


class Refuted(Exception):
    """A mistake was found where a certificate excludes any: one of the two is wrong."""


@dataclass(frozen=True)
class Answers:
    """A defender's actions [F8]: labels [B] and, if it publishes them, scores [B, K].

    A label is a class, `REFUSED` (-1), or `INVALID` (-2) where the logits were not finite.
    """

    labels: Tensor
    scores: Tensor | None = None

    def __getitem__(self, rows: Tensor) -> "Answers":
        return Answers(self.labels[rows], None if self.scores is None else self.scores[rows])


class Classifier(ABC):
    """A defender's move: a frozen, committed map from inputs to answers.

    `widest` is the view that shows the most of it: `WhiteBox` if `logits` is differentiable,
    `ScoreView` if it only gives scores, `LabelView` if it only gives labels.
    """

    widest: type[View] = WhiteBox
    classes: int

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Logits [B, K] of `x` [B, ...]; a column K, if there is one, is the refusal's."""

    def labels(self, x: Tensor) -> Tensor:
        """Answers [B]: the class of the largest logit, `REFUSED` for column K."""
        return decide(self.logits(x), self.classes)

    @torch.no_grad()
    def answer(self, x: Tensor) -> Answers:
        """Labels and scores (log-probabilities) in one pass."""
        logits = self.logits(x)
        return Answers(decide(logits, self.classes), self.published(logits))

    def published(self, logits: Tensor) -> Tensor:
        """The scores [B, K or K + 1], log-probabilities, that it publishes for these logits."""
        return logits.log_softmax(dim=1)

    def certified(self, given: Labelled, actions: "ActionSpace") -> Tensor | None:
        """Which inputs are certified, bool [B]: every legal output for them is answered `given.y`.

        None if this classifier proves nothing.

        Raises:
            ValueError: If it proves something, but nothing about such `actions`.
        """
        return None

    def rounded(self, dtype: torch.dtype) -> "Classifier":
        """The same classifier in a coarser arithmetic, for search; itself if it has none."""
        return self

    @property
    def module(self) -> nn.Module:
        """The module behind it.

        Raises:
            PermissionError: If there is none.
        """
        raise PermissionError(f"{type(self).__name__} has no module to look into")

    def to(self, device: torch.device) -> "Classifier":
        """The same classifier on the device of the game's inputs."""
        return self

    def state(self) -> dict[str, Tensor]:
        """The tensors that tell this classifier from others that its strategy can make."""
        return {}


def decide(logits: Tensor, classes: int) -> Tensor:
    """Labels [B] of logits [B, K or K + 1]: the argmax, `REFUSED` for column K.

    `INVALID` if any entry is NaN or plus infinity. Minus infinity is an ordinary score, log 0.
    """
    label = logits.argmax(dim=1)
    label = torch.where(label == classes, REFUSED, label)
    broken = (logits.isnan() | (logits == float("inf"))).any(1) | logits.isneginf().all(1)
    return torch.where(broken, INVALID, label)


class Perturbations(ActionSpace):
    """An attacker's space: inputs near a given one, in a geometry of its own.

    Shapes: `given` and `output` are [B, ...]. `eps` is the radius, `box` the data's.
    """

    eps: float
    box: tuple[float, float]

    @abstractmethod
    def project(self, given: Tensor, output: Tensor) -> Tensor:
        """The legal output nearest to `output` in L2. Idempotent; legal outputs stay."""

    def projection(self, given: Tensor) -> Callable[[Tensor], Tensor]:
        """`project` around the same inputs, for repeated use: what is constant is computed once."""
        return partial(self.project, given)

    @abstractmethod
    def steepest(self, gradient: Tensor) -> Tensor:
        """The displacement of unit size, in this geometry, along which `gradient` rises most.

        Zero where the gradient is zero.
        """

    @abstractmethod
    def size(self, given: Tensor, output: Tensor) -> Tensor:
        """The size [B] of the displacement, in the units of the space's radius."""

    @abstractmethod
    def shortened(self, displacement: Tensor, size: Tensor) -> Tensor:
        """The displacement nearest in L2 of at most `size` [B], one radius per example.

        Eps and the box play no part: a search may not know yet how far it must go.
        """

    @abstractmethod
    def shrunk(self, share: float) -> "Perturbations":
        """The same space with a share, in [0, 1], of its radius."""


@dataclass(frozen=True)
class Outcome:
    """How a round ended on the scored examples; costs are computed from it. All fields are [B]."""

    y: Tensor
    clean: Answers
    """The defender's answers to the inputs as they were dealt."""
    attacked: Answers
    """Its answers to what the attacker played."""
    changed: Tensor
    """bool: whether the attacker changed the input at all."""
    queries: Tensor
    gradients: Tensor
    price: Tensor = field(default_factory=lambda: torch.zeros(()))
    """What the attacker's outputs cost to make: `ActionSpace.price` of its space."""


class Learner(Declared, ABC):
    """An architecture: everything about a model but its parameters."""

    @abstractmethod
    def layers(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """A freshly initialised module from inputs [B, *shape] to logits [B, classes]."""

    def build(self, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
        """The module whose initial parameters are a function of the seed (drawn on the CPU)."""
        # torch's initialisers read the global generator; the fork gives it back as it was. That is
        # the CPU's alone: torch.manual_seed would seed, and leave seeded, every accelerator too.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.layers(shape, classes)
