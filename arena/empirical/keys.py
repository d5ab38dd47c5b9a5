"""The key that a cell's costs are kept by: a hash of all that decides them, and of nothing else.

Names play no part, nor does the study that the cell was played for. Where a value has no stable
description (a plain object among the declarations), there is no key, and nothing is kept.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from arena.empirical.moves import KeptMove
from arena.games.game import Board
from arena.identity import code
from arena.store import described, fingerprint


@dataclass(frozen=True)
class Keys:
    """The keys of cells on one board.

    Attributes:
        board: Its rules score them.
    """

    board: Board

    def cell(self, model: KeptMove, attack: KeptMove) -> bytes | None:
        """The key of an attack's costs on a model, 32 bytes."""
        return None if attack.digest is None else self._key(model, attack.digest)

    def facts(self, model: KeptMove) -> bytes | None:
        """The key of what is known of a model alone, 32 bytes."""
        return self._key(model, b"facts and answers")

    def _key(self, model: KeptMove, more: bytes) -> bytes | None:
        if model.digest is None or self._rules is None:
            return None
        return hashlib.sha256(model.digest + self._rules + more).digest()

    @cached_property
    def _rules(self) -> bytes | None:
        """A hash of what decides costs besides the moves.

        That is the board's content, the code of the game and of the declarations, and what decides
        the last bits of an answer.
        """
        content = list(_flat(self.board.content()))
        declared = [each for each in content if not isinstance(each, Tensor)]
        texts = list(map(described, declared))
        if None in texts:
            return None
        parts = (
            fingerprint(*(each for each in content if isinstance(each, Tensor))),
            texts,
            code([type(self.board), *declared]),
            (torch.__version__, torch.get_num_threads(), _devices(content)),
        )
        return hashlib.sha256(repr(parts).encode()).digest()


def _devices(content: Sequence[Any]) -> list[str]:
    return sorted({each.device.type for each in content if isinstance(each, Tensor)})


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _flat(part)
    else:
        yield value
