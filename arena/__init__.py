"""Arena: adversarial machine learning as a game.

The public names are loaded when first used, so that `import arena` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "ActionSpace": "core",
    "Arena": "arena",
    "Board": "games.game",
    "BudgetExceeded": "ledger",
    "Classifier": "classification",
    "Cost": "core",
    "EmpiricalGame": "empirical.game",
    "Game": "games.game",
    "IllegalMove": "core",
    "Knowledge": "knowledge",
    "LabelView": "knowledge",
    "Labelled": "core",
    "Learner": "classification",
    "MoveOrder": "core",
    "Outcome": "classification",
    "Perturbations": "classification",
    "Player": "core",
    "Record": "record",
    "SampleView": "knowledge",
    "ScoreView": "knowledge",
    "Strategy": "core",
    "Turn": "core",
    "Unplayable": "arena",
    "View": "knowledge",
    "WhiteBox": "knowledge",
}

if TYPE_CHECKING:
    from arena.arena import Arena, Unplayable
    from arena.classification import Classifier, Learner, Outcome, Perturbations
    from arena.core import (
        ActionSpace,
        Cost,
        IllegalMove,
        Labelled,
        MoveOrder,
        Player,
        Strategy,
        Turn,
    )
    from arena.empirical.game import EmpiricalGame
    from arena.games.game import Board, Game
    from arena.knowledge import Knowledge, LabelView, SampleView, ScoreView, View, WhiteBox
    from arena.ledger import BudgetExceeded
    from arena.record import Record

__all__ = [
    "ActionSpace",
    "Arena",
    "Board",
    "BudgetExceeded",
    "Classifier",
    "Cost",
    "EmpiricalGame",
    "Game",
    "IllegalMove",
    "Knowledge",
    "LabelView",
    "Labelled",
    "Learner",
    "MoveOrder",
    "Outcome",
    "Perturbations",
    "Player",
    "Record",
    "SampleView",
    "ScoreView",
    "Strategy",
    "Turn",
    "Unplayable",
    "View",
    "WhiteBox",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'arena' has no attribute {name!r}")
    return getattr(importlib.import_module(f"arena.{_HOMES[name]}"), name)
