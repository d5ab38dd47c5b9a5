"""A network with certificates: for which examples no attack can cause an error."""

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

_TOGETHER = 64  # examples per pass: CROWN keeps inputs x outputs coefficients for each


@dataclass(frozen=True)
class Certifying(Outermost):
    """Commits to another strategy's network, with a certificate for each example.

    The network is unchanged. An example is certified if `bound` proves that no legal move of the
    attacker changes its right answer. The share of the other examples is an upper bound on the
    error that any attack can reach. A mistake on a certified example stops the run.

    Attributes:
        of: The strategy that trains the network. A network trained for its bound is certified on
            more examples than others.
        bound: What proves the certificates: `Interval`, `Crown` or `ConvexPolytope`.
    """

    bound: Bound = field(default_factory=Crown)

    @property
    def needs(self) -> Mapping[str, type[View]]:
        """What the inner strategy needs, and at least a view of the attacker's declarations."""
        return {"attacker": View, **self.of.needs}

    def check(self, player: Player) -> None:
        """Raises ValueError if the inner strategy commits to no module, or does not fit."""
        check_within(self.of, self, player)

    def respond(self, turn: Turn) -> Classifier:
        """The inner strategy's network.

        Raises:
            ValueError: If there are no bounds over the attacker's declared space (before anything
                trains), or if the network is random.
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
                f"{type(model).__name__} of {type(self.of).__name__}; put Certifying inside it"
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
