"""An empirical game as a file of tensors, for whoever computes with it elsewhere."""

import json
from pathlib import Path

import numpy as np

from arena.empirical.game import PLAYERS, EmpiricalGame
from arena.files import atomically


def save(game: EmpiricalGame, path: Path) -> None:
    """Writes a safetensors file: `attacker` and `defender` [D, A, E]; `most` [D, E], if known.

    And `answers`, [models, P], of those models whose answers are known, if there are any.

    Names and what is missing are in its metadata, as JSON.
    """
    from safetensors.numpy import save as packed

    tensors = {player: np.ascontiguousarray(game.costs[player]) for player in PLAYERS}
    if game.most is not None:
        tensors["most"] = np.ascontiguousarray(game.most)
    if game.answers:
        tensors["answers"] = np.stack(list(game.answers.values()))
    metadata = {
        "models": json.dumps(game.models),
        "attacks": json.dumps(game.attacks),
        "against": json.dumps(game.against),
        "answered": json.dumps(list(game.answers)),
        "missing": json.dumps([[*cell, why] for cell, why in game.missing.items()]),
    }
    atomically(path, packed(tensors, metadata))


def load(path: Path) -> EmpiricalGame:
    """Reads what `save` wrote.

    Raises:
        ValueError: If the file is damaged, naming it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        names = {key: tuple(json.loads(metadata[key])) for key in ("models", "attacks", "against")}
        missing = {(model, attack): why for model, attack, why in json.loads(metadata["missing"])}
        costs = {player: tensors[player] for player in PLAYERS}
        answers = dict(
            zip(json.loads(metadata.get("answered", "[]")), tensors.get("answers", ()), strict=True)
        )
        return EmpiricalGame(
            **names, costs=costs, most=tensors.get("most"), missing=missing, answers=answers
        )
    except (SafetensorError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({error}); run the study again to replace it"
        ) from None
