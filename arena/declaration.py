"""What a player declares that it knows [F9 of the keynote]; the views in `knowledge` enforce it.

Imports nothing heavy, so that the shell can refuse a match before torch is imported.
"""

from dataclasses import dataclass
from typing import Literal

from arena.fields import Declared, Whole

_ORDER = ("View", "LabelView", "ScoreView", "WhiteBox")
_WIDEST = {"none": "View", "labels": "LabelView", "scores": "ScoreView"}
_GRANTED_BY = {
    "LabelView": "probe=labels",
    "ScoreView": "probe=scores",
    "WhiteBox": "parameters=true",
}


@dataclass(frozen=True)
class Knowledge(Declared):
    """What a player knows of its opponents, one field per line of Figure 9.

    Attributes:
        task: Input space, output space, the opponent's action space and cost.
        algorithm: How the opponent makes its move (its strategy, less the architecture).
        architecture: Which learner it trains.
        parameters: Everything: the committed model itself, with gradients (white box).
        training_data: The data it trains on.
        probe: What a query answers: nothing, a label, or scores.
        queries: How many queries per example; None is unlimited.
        queries_per: Whether that many may be asked in each round, or in the whole match.
        samples: Whether a defender sees what was played, or that part of it which the game sets
            apart to be revealed.
    """

    task: bool = True
    algorithm: bool = False
    architecture: bool = False
    parameters: bool = False
    training_data: bool = False
    probe: Literal["none", "labels", "scores"] = "none"
    queries: Whole | None = None
    queries_per: Literal["round", "match"] = "round"
    samples: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.queries is not None and self.probe == "none":
            raise ValueError(
                f"Knowledge.queries = {self.queries} without a probe: "
                "say probe=labels or probe=scores, or drop queries"
            )

    @classmethod
    def white_box(cls) -> "Knowledge":
        """Everything. Implies that the opponent moved first [F9]."""
        return cls(True, True, True, True, True, "scores")

    @classmethod
    def gray_box(cls) -> "Knowledge":
        """The recipe but not the result: algorithm, architecture and data, no parameters."""
        return cls(True, True, True, False, True)

    @classmethod
    def black_box(
        cls, probe: Literal["labels", "scores"], queries: int | None = None
    ) -> "Knowledge":
        """The task and a probe; say which probe, since papers mean different things [F9]."""
        return cls(probe=probe, queries=queries)

    @classmethod
    def no_box(cls) -> "Knowledge":
        """The task alone: what is left is transfer from a model of one's own [F12]."""
        return cls()

    def withholds(self, kind: str) -> str | None:
        """Why a view of a committed model, by its name, is not granted; None if it is.

        Views of other names are not this declaration's to grant or to withhold.
        """
        if kind == "SampleView":
            return None if self.samples else "declare knowledge.samples=true"
        widest = "WhiteBox" if self.parameters else _WIDEST[self.probe]
        if kind not in _GRANTED_BY or _ORDER.index(kind) <= _ORDER.index(widest):
            return None
        return f"its knowledge grants {widest}; declare knowledge.{_GRANTED_BY[kind]}"
