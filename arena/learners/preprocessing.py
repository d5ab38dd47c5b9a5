"""Classifiers that transform their inputs first, and declare the transformation.

A defense that transforms its inputs is a composition `model(transformation(x))`. An attack that
knows this may treat the two halves differently (BPDA). So the composition is declared, not hidden
in a forward pass: a `Preprocessed` module has a `preprocess` and a `model`. To play your own, write
the `Transformation` and commit to `Fixed(Preprocessed(MyTransformation(), my_model))`, or train
behind it with the learner `Preprocessing`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arena import chance
from arena.classification import Learner
from arena.transformations.transformation import Transformation


class Preprocessed(nn.Module):
    """The composition of a transformation and a model.

    Attributes:
        preprocess: The transformation; it runs first, both in training and in use.
        model: A module from transformed inputs to logits [B, K]; it may be random itself.
    """

    def __init__(self, preprocess: Transformation, model: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.model = model

    @property
    def random(self) -> bool:
        """Whether the logits depend on coins, see `RandomClassifier`."""
        return self.preprocess.random or flips_coins(self.model)

    def forward(self, x: Tensor, key: Tensor | None = None) -> Tensor:
        """Logits [B, K], by the coins `key` [B]; without them, by those of the input itself.

        In training mode these differ from pass to pass, lest an input meet one draw for ever.
        """
        if key is None:
            key = coins(x, self.training)
        seen = self.preprocess(x, key)
        return answered(self.model, seen, chance.fold(key, 1))


def flips_coins(module: nn.Module) -> bool:
    """Whether a module declares itself random; it is then called as `module(x, key)`."""
    return getattr(module, "random", False) is True


def answered(module: nn.Module, x: Tensor, key: Tensor) -> Tensor:
    """The logits [B, K] of a module for inputs `x` [B, ...]; `key` [B] is used if it is random."""
    logits: Tensor = module(x, key) if flips_coins(module) else module(x)
    return logits


def coins(x: Tensor, training: bool) -> Tensor:
    """The coins [B] of inputs that come without: their own; in training, new ones a pass.

    The new ones are drawn from torch's generator, which a training seeds.
    """
    own = chance.of(x.detach())
    return chance.fold(own, int(torch.randint(1 << 62, ()))) if training else own


@dataclass(frozen=True)
class Preprocessing(Learner):
    """An architecture behind a transformation of its inputs.

    Attributes:
        learner: The architecture; it must accept the output of the transformation.
        preprocess: The transformation.
    """

    learner: Learner
    preprocess: Transformation

    def layers(self, shape: tuple[int, ...], classes: int) -> Preprocessed:
        """The composition. The architecture is built for the shape of the transformed inputs."""
        seen = self.preprocess(torch.zeros(1, *shape), chance.keys(0, 1))
        return Preprocessed(self.preprocess, self.learner.layers(tuple(seen.shape[1:]), classes))
