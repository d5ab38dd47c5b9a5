"""Dropout: noise on the activations, in training only."""

from dataclasses import dataclass

from torch import nn

from arena.classification import Learner
from arena.fields import Share
from arena.learners.activations import hidden_activations


@dataclass(frozen=True)
class Dropout(Learner):
    """An architecture with dropout after each hidden activation (Srivastava et al., JMLR 2014).

    It regularises: against an adversary it fails [F21], since the model that is committed drops
    nothing and shows the attacker a smooth, nearly linear function like any other.

    Attributes:
        learner: The architecture; its activations must be modules.
        rate: Probability that an activation is set to 0; the others are divided by 1 - rate.
    """

    learner: Learner
    rate: Share = 0.5

    def layers(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The module.

        Raises:
            ValueError: If the architecture has no hidden activation among its modules.
        """
        module = self.learner.layers(shape, classes)
        for name, activation in hidden_activations(module, "Dropout").items():
            module.set_submodule(name, nn.Sequential(activation, nn.Dropout(self.rate)))
        return module
