"""Moves that were made, as values: what meets in cross-play."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arena.classification import Classifier
from arena.core import Labelled, Strategy
from arena.files import atomically
from arena.log import read_checkpoint
from arena.store import code, fingerprint


@dataclass(frozen=True, eq=False)
class Model:
    """A defender's move.

    Attributes:
        strategy: What makes the classifier of its state.
        state: Its `Classifier.state`.
    """

    strategy: Strategy
    state: Mapping[str, Tensor]

    @cached_property
    def digest(self) -> bytes | None:
        """A hash of all of it; None where the strategy has no stable description."""
        described = repr(self.strategy)
        if " at 0x" in described:
            return None
        names = sorted(self.state)
        tensors = fingerprint(*(self.state[name] for name in names))
        whole = described, code([self.strategy]), names, tensors
        return hashlib.sha256(repr(whole).encode()).digest()

    def restored(self, like: Labelled) -> Classifier:
        """The classifier, for data like these and where they are."""
        classifier: Classifier = self.strategy.restore(self.state, like)
        return classifier


@dataclass(frozen=True, eq=False)
class Crafted:
    """An attacker's move, and what it took.

    Attributes:
        x: Inputs [B, ...], one for each that was dealt.
        queries: Asked about each, [B].
        gradients: Taken of each, [B].
    """

    x: Tensor
    queries: Tensor
    gradients: Tensor

    @cached_property
    def digest(self) -> bytes:
        """A hash of all of it."""
        return bytes.fromhex(fingerprint(self.x, self.queries, self.gradients))


@dataclass(frozen=True)
class Failed:
    """A move that could not be made, and why."""

    why: str


def standing(folder: Path, strategy: Strategy) -> tuple[Model, Crafted]:
    """The moves that stand at the end of a match of evasion, from its folder.

    Args:
        folder: The match's.
        strategy: Its defender's.

    Raises:
        ValueError: If its checkpoint is damaged.
    """
    return _moves(read_checkpoint(folder)["state"], strategy)


def keep_moves(folder: Path, number: int, state: Mapping[str, Any]) -> None:
    """Keeps the moves that stand at the end of a round, of an arena's `state_dict`."""
    content = io.BytesIO()
    torch.save({name: state[name] for name in ("standing", "ledgers")}, content)
    path = _kept(folder, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomically(path, content.getvalue())


def kept_moves(folder: Path, number: int, strategy: Strategy) -> tuple[Model, Crafted]:
    """The moves of a round of evasion that were kept.

    Args:
        folder: The match's.
        number: Of the round.
        strategy: Its defender's.

    Raises:
        ValueError: If they were not kept, or their file is damaged.
    """
    path = _kept(folder, number)
    if not path.is_file():
        raise ValueError(
            f"{folder} holds a round {number} whose moves were not kept; remove it to play anew"
        )
    try:
        return _moves(torch.load(path, weights_only=True), strategy)
    except Exception as error:  # whatever a damaged file makes the unpickler raise
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}); remove {folder} to play anew"
        ) from None


def _kept(folder: Path, number: int) -> Path:
    return folder / "moves" / f"round-{number}.pt"


def _moves(state: Mapping[str, Any], strategy: Strategy) -> tuple[Model, Crafted]:
    book = state["ledgers"]["attacker"]
    attack = Crafted(state["standing"]["attacker"]["x"], book["queries"], book["gradients"])
    return Model(strategy, state["standing"]["defender"]), attack
