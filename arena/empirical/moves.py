"""Moves as values that can be kept in files and meet in cross-play."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arena.checksums import opened, sealed
from arena.core import Player, Strategy
from arena.files import atomically, packed, unpacked
from arena.games.game import Board, Entry
from arena.identity import code
from arena.log import read_checkpoint
from arena.store import described, fingerprint


@dataclass(frozen=True, eq=False)
class KeptMove:
    """A player's move as tensors, what it took, and the strategy that can make it of them again.

    Attributes:
        player: Whose it is.
        strategy: What made it.
        packed: The move, as `Board.pack` gave it.
        queries: Asked about each example that the player worked on, int64 [n].
        gradients: Taken of each, int64 [n].
    """

    player: str
    strategy: Strategy
    packed: Mapping[str, Tensor]
    queries: Tensor
    gradients: Tensor

    @classmethod
    def of(cls, player: str, strategy: Strategy, packed: Mapping[str, Tensor]) -> "KeptMove":
        """A move that took nothing."""
        nothing = torch.zeros(0, dtype=torch.int64)
        return cls(player, strategy, packed, nothing, nothing)

    @cached_property
    def digest(self) -> bytes | None:
        """A hash of all of it; None where the strategy has no stable description."""
        text = described(self.strategy)
        if text is None:
            return None
        names = sorted(self.packed)
        took = [each for each in (self.queries, self.gradients) if bool(each.any())]
        tensors = fingerprint(*(self.packed[name] for name in names), *took)
        whole = self.player, text, code([self.strategy]), names, len(took), tensors
        return hashlib.sha256(repr(whole).encode()).digest()

    def entry(self, board: Board) -> Entry:
        """The move on a board, ready to be scored."""
        move = board.unpack(self.player, self.packed, self.strategy)
        return Entry(move, self.queries, self.gradients)


@dataclass(frozen=True)
class Failed:
    """A move that could not be made, with the reason."""

    why: str


def standing(folder: Path, players: Mapping[str, Player]) -> dict[str, KeptMove]:
    """The moves that stand at the end of a match, by player, from its folder.

    Args:
        folder: The match's folder.
        players: The match's players.

    Raises:
        ValueError: If its checkpoint is damaged.
    """
    return _moves(read_checkpoint(folder)["state"], players)


def keep_moves(folder: Path, number: int, state: Mapping[str, Any]) -> None:
    """Keeps the moves that stand at the end of a round.

    Args:
        folder: The match's folder.
        number: The round's.
        state: The arena's `state_dict` after the round.
    """
    path = _kept(folder, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomically(path, sealed(packed({name: state[name] for name in ("standing", "ledgers")})))


def kept_moves(folder: Path, number: int, players: Mapping[str, Player]) -> dict[str, KeptMove]:
    """The moves of a round that were kept, by player.

    Args:
        folder: The match's folder.
        number: The round's.
        players: The match's players.

    Raises:
        ValueError: If they were not kept, or their file is damaged.
    """
    path = _kept(folder, number)
    if not path.is_file():
        raise ValueError(
            f"{folder} holds a round {number} whose moves were not kept; remove it to play anew"
        )
    return _moves(unpacked(opened(path, f"remove {folder} to play anew")), players)


def _kept(folder: Path, number: int) -> Path:
    return folder / "moves" / f"round-{number}.pt"


def _moves(state: Mapping[str, Any], players: Mapping[str, Player]) -> dict[str, KeptMove]:
    return {
        name: KeptMove(
            name,
            player.strategy,
            state["standing"][name],
            state["ledgers"][name]["queries"],
            state["ledgers"][name]["gradients"],
        )
        for name, player in players.items()
    }
