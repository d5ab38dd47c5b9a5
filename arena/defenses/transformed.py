"""A transformation of the input, put before a model that was trained without it."""

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

    The transformation acts only at test time: the model was trained on inputs as they are. To train
    behind the transformation as well, as in section 5.3 of the paper, use the learner
    `Preprocessing`. The composition declares its two halves (`Preprocessed`), so an attack may
    treat them differently (BPDA). A random transformation and a random model draw independently.

    Attributes:
        preprocess: Transformation of every input; it must keep the input's shape.
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
    """Raises ValueError if a transformation changes the shape that the model was trained on."""
    seen = transformation(data.x[:1], chance.keys(0, 1, data.x.device))
    if seen.shape[1:] != data.shape:
        raise ValueError(
            f"{defense} puts {transformation} before a model of inputs {list(data.shape)}, but it "
            f"returns {list(seen.shape[1:])}; train behind it instead, with the learner "
            "Preprocessing"
        )
