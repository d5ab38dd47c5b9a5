"""Dropout: noise on the activations during training."""

from dataclasses import dataclass

from torch import nn

from arena.classification import Learner
from arena.fields import Share
from arena.learners.activations import hidden_activations


@dataclass(frozen=True)
class Dropout(Learner):
    """An architecture with dropout after each hidden activation (Srivastava et al., JMLR 2014).

    Dropout regularises, but fails against an adversary [F21]: the committed model drops nothing and
    shows the attacker a smooth, nearly linear function like any other model.

    Attributes:
        learner: The architecture; its activations must be modules.
        rate: Probability that a value is set to 0; the other values are divided by 1 - rate.
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
