"""Committing to a trained network together with a proof of where it cannot be fooled [F28]."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from arena.certificates.bound import Bound
from arena.core import ActionSpace, Classifier, Labelled, Turn
from arena.defenses.wrapped import Wrapper
from arena.knowledge import View
from arena.learners.classifiers import ModuleClassifier
from arena.learners.preprocessing import flips_coins

_TOGETHER = 256  # examples bounded at once


@dataclass(frozen=True)
class Certifying(Wrapper):
    """Another strategy's network as it is, with certificates by a bound; they are not sampled.

    Attributes:
        bound: What proves them; it must be able to read the network, and coins are no part of that.
    """

    bound: Bound

    @property
    def needs(self) -> Mapping[str, type[View]]:  # type: ignore[override]
        """What the inner strategy needs; at least to know what the attacker may do."""
        return {"attacker": View, **self.of.needs}

    def around(self, model: nn.Module, data: Labelled) -> nn.Module:
        """The model itself: nothing is put around it, and its state is the whole's."""
        return model

    def commit(self, module: nn.Module, data: Labelled) -> "CertifiedClassifier":
        """The model with its certificates.

        Raises:
            ValueError: If it flips coins.
        """
        if flips_coins(module):
            raise ValueError(
                f"{self.bound} proves nothing of a network that flips coins; train one without"
            )
        return CertifiedClassifier(module, data.classes, self.bound)

    def respond(self, turn: Turn) -> Classifier:
        """The inner strategy's model, certified.

        Raises:
            ValueError: If there are no bounds over the attacker's space (before anything trains,
                where it is known), or of a layer.
        """
        view = turn.look("attacker", View)
        if view.knows("task"):
            self.bound.check(view.task.actions)
        return super().respond(turn)

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> Classifier:
        """The inner strategy's, certified."""
        model: Classifier = self.of.restore(state, data)
        return self.commit(model.module, data)


class CertifiedClassifier(ModuleClassifier):
    """A committed module, and a bound that proves where it stands."""

    def __init__(self, module: nn.Module, classes: int, bound: Bound) -> None:
        super().__init__(module, classes)
        self._bound = bound

    def certified(self, given: Labelled, actions: ActionSpace) -> Tensor:
        """Whether [B] the bound proves that every legal output is answered `given.y`."""
        return self._bound.certified(self.module, given.x, given.y, actions, _TOGETHER)
