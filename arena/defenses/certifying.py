"""A network that says of which examples it is proved that nobody can make it err."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from arena.certificates.bound import Bound
from arena.certificates.crown import Crown
from arena.classification import Classifier
from arena.core import ActionSpace, Labelled, Player, Turn
from arena.defenses.wrapped import Outermost, check_within
from arena.knowledge import View
from arena.training.classifiers import ModuleClassifier

_TOGETHER = 64  # examples bounded at once: CROWN's coefficients are as many as inputs times outputs


@dataclass(frozen=True)
class Certifying(Outermost):
    """Commits to another strategy's network, with a certificate for each example.

    The network is as it was; what is added is the part of the examples for which `bound` proves
    that no legal move of the attacker changes the right answer. It stands beside the error that an
    attack reached as an upper bound on what any attack can reach, and a mistake on a certified
    example stops the run.

    Attributes:
        of: The strategy that trains the network; any, but trained for its bound it proves more.
        bound: What proves: `Interval`, `Crown` or `ConvexPolytope`.
    """

    bound: Bound = field(default_factory=Crown)

    @property
    def needs(self) -> Mapping[str, type[View]]:
        """What the inner strategy needs; at least to know what the attacker may do."""
        return {"attacker": View, **self.of.needs}

    def check(self, player: Player) -> None:
        """Raises ValueError if the inner strategy does not commit to a module, or does not fit."""
        check_within(self.of, self, player)

    def respond(self, turn: Turn) -> Classifier:
        """The inner strategy's network.

        Raises:
            ValueError: If there are no bounds over the attacker's declared space (before anything
                trains), or if the network flips coins.
        """
        view = turn.see("attacker", View)
        if view.knows("task"):
            self.bound.check(view.task.actions)
        return self._certified(self.of.respond(turn))

    def restore(self, state: Mapping[str, Tensor], data: Labelled) -> Classifier:
        """The network with this state."""
        return self._certified(self.of.restore(state, data))

    def _certified(self, model: Classifier) -> Classifier:
        if type(model) is not ModuleClassifier:
            raise ValueError(
                f"Certifying bounds a network that is a function of its input, not the "
                f"{type(model).__name__} of {type(self.of).__name__}; put it inside what is around"
            )
        return _Certified(model.module, model.classes, self.bound)


class _Certified(ModuleClassifier):
    def __init__(self, module: nn.Module, classes: int, bound: Bound) -> None:
        super().__init__(module, classes)
        self._bound = bound

    def certified(self, given: Labelled, actions: ActionSpace) -> Tensor:
        self._bound.check(actions, self._module)
        proven = self._bound.certified(self._module, given.x, given.y, actions, _TOGETHER)
        with torch.no_grad():
            return proven & (self.labels(given.x) == given.y)
