"""A transformation of the input in front of a model that was trained without it."""

from dataclasses import dataclass

from torch import nn

from arena import chance
from arena.classification import Classifier
from arena.core import Labelled, Turn
from arena.defenses.wrapped import Wrapper
from arena.learners.preprocessing import Preprocessed
from arena.transformations.transformation import Transformation


@dataclass(frozen=True)
class Transformed(Wrapper):
    """Guo et al. 2018 (1711.00117), section 4: transforms the input of a trained model.

    At test time only: the model has learned from inputs as they are. To train behind the
    transformation as well, as that paper does in its section 5.3, use the learner `Preprocessing`.
    The whole declares its two halves (`Preprocessed`), so an attack may treat them differently
    (BPDA). The coins of a random transformation and of a model that flips its own are independent.

    Attributes:
        preprocess: What is done to every input; it must keep the input's shape.
    """

    preprocess: Transformation

    def respond(self, turn: Turn) -> Classifier:
        """The inner strategy's model behind the transformation.

        Raises:
            ValueError: Before anything trains, if the transformation changes the input's shape.
        """
        check_shape(self.preprocess, turn.data, "Transformed")
        return super().respond(turn)

    def around(self, model: nn.Module, data: Labelled) -> Preprocessed:
        """The composition."""
        return Preprocessed(self.preprocess, model)


def check_shape(transformation: Transformation, data: Labelled, defense: str) -> None:
    """Raises ValueError if a transformation cannot stand before a model of untouched inputs."""
    seen = transformation(data.x[:1], chance.keys(0, 1, data.x.device))
    if seen.shape[1:] != data.shape:
        raise ValueError(
            f"{defense} puts {transformation} before a model of inputs {list(data.shape)}, but it "
            f"returns {list(seen.shape[1:])}; train behind it instead, with the learner "
            "Preprocessing"
        )
