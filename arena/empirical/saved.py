"""An empirical game as a file of tensors, so that other programs can compute with it."""

import json
from pathlib import Path

import numpy as np

from arena.checksums import opened_tensors, sealed_tensors
from arena.empirical.game import PLAYERS, EmpiricalGame
from arena.files import atomically


def save(game: EmpiricalGame, path: Path) -> None:
    """Writes a game as a safetensors file.

    Its tensors are `attacker` and `defender` [D, A, E]; `most` [D, E], if that is known; and
    `answers` [models, P], of the models whose answers are known, if there are any. Its metadata
    holds names and missing cells, as JSON.
    """
    from safetensors.numpy import save as packed

    tensors = {player: np.ascontiguousarray(game.costs[player]) for player in PLAYERS}
    if game.most is not None:
        tensors["most"] = np.ascontiguousarray(game.most)
    answered = [model for model in game.models if model in game.answers]
    if answered:
        tensors["answers"] = np.stack([game.answers[model] for model in answered])
    metadata = {
        "models": json.dumps(game.models),
        "attacks": json.dumps(game.attacks),
        "against": json.dumps(game.against),
        "answered": json.dumps(answered),
        "missing": json.dumps([[*cell, why] for cell, why in game.missing.items()]),
    }
    atomically(path, sealed_tensors(packed(tensors, metadata)))


def load(path: Path) -> EmpiricalGame:
    """Reads a file that `save` wrote.

    Raises:
        ValueError: If the file is damaged, naming it.
    """
    from safetensors.numpy import load as unpacked

    content, metadata = opened_tensors(path, "run the study again to replace it")
    tensors = unpacked(content)
    names = {key: tuple(json.loads(metadata[key])) for key in ("models", "attacks", "against")}
    answered = json.loads(metadata["answered"])
    return EmpiricalGame(
        **names,
        costs={player: tensors[player] for player in PLAYERS},
        most=tensors.get("most"),
        missing={(model, attack): why for model, attack, why in json.loads(metadata["missing"])},
        answers=dict(zip(answered, tensors.get("answers", ()), strict=True)),
    )
