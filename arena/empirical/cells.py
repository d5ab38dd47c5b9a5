"""Costs of played cells, by the hash of everything that decides them, so none is played twice.

The cells are in one SQLite file. A write is complete or absent whenever a process is killed, and
several processes may share the file. Where each row of an array has at most two values, as error
rates do, an entry takes one bit: 200 x 200 cells of 1,000 examples for two players are 15 MB.
"""

import errno
import os
import sqlite3
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Costs = NDArray[Any]
"""Costs [P, E] or [P, F, E] of P players: int8 if all are small whole numbers, else float64."""

_HEAD = struct.Struct("<I?BI")  # checksum, two-valued, rows P, examples E
_WAIT = 60.0  # seconds to wait while another process writes


@dataclass(frozen=True)
class Found:
    """The cells that a file holds, of those asked for.

    Attributes:
        which: The positions [F] of the keys that were found, ascending.
        costs: Their costs [P, F, E].
    """

    which: NDArray[np.int64]
    costs: Costs


@dataclass(frozen=True)
class Cells:
    """A file of arrays [P, E] by key; in cross-play, one row per player.

    Attributes:
        path: The file, which is made with its folder when the first cells are kept.
    """

    path: Path

    @classmethod
    def beside(cls, models: Path) -> "Cells":
        """The file in a folder of trained models."""
        return cls(models / "cells.sqlite")

    def find(self, keys: Sequence[bytes]) -> Found | None:
        """The arrays kept under these keys; None if there are none.

        Raises:
            ValueError: If the file is damaged, with its name, or the arrays differ in shape.
            OSError: If the file cannot be opened or is in use for too long.
        """
        if not keys or not self.path.is_file():
            return None
        with self._opened() as file:
            file.execute("CREATE TEMP TABLE wanted (i INTEGER PRIMARY KEY, key BLOB)")
            file.executemany("INSERT INTO wanted VALUES (?, ?)", enumerate(keys))
            rows = file.execute("SELECT i, costs FROM wanted JOIN cells USING (key) ORDER BY i")
            numbers, packed = [], []
            for number, blob in rows:
                numbers.append(number)
                packed.append(blob)
        if not numbers:
            return None
        try:
            costs = _unpacked(packed)
        except (ValueError, struct.error, zlib.error, TypeError) as error:
            raise self._damaged(error) from None
        return Found(np.array(numbers), costs)

    def keep(self, cells: Mapping[bytes, Costs]) -> None:
        """Keeps arrays [P, E], either all of them or none; keys that are there already stay.

        Raises:
            ValueError: If the file is damaged, with its name.
            OSError: If the file cannot be written, for example because the disk is full.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [(key, _pack(costs)) for key, costs in cells.items()]
        with self._opened() as file:
            file.executemany("INSERT OR IGNORE INTO cells VALUES (?, ?)", rows)
            file.commit()

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT)) as file:
                file.execute("PRAGMA temp_store = MEMORY")
                file.execute(
                    "CREATE TABLE IF NOT EXISTS cells (key BLOB PRIMARY KEY, costs BLOB NOT NULL) "
                    "WITHOUT ROWID"
                )
                yield file
        except sqlite3.OperationalError as error:
            code = {
                sqlite3.SQLITE_FULL: errno.ENOSPC,
                sqlite3.SQLITE_BUSY: errno.EBUSY,
                sqlite3.SQLITE_CANTOPEN: errno.EACCES,
                sqlite3.SQLITE_READONLY: errno.EROFS,
                sqlite3.SQLITE_IOERR: errno.EIO,
            }.get(error.sqlite_errorcode & 0xFF)
            if code is None:
                raise self._damaged(error) from None
            raise OSError(code, f"{os.strerror(code)} ({error})", str(self.path)) from None
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(
            f"{self.path} is damaged ({error}); remove it, and its cells will be played again"
        )


def _pack(costs: Costs) -> bytes:
    """Costs [P, E] as a head with a checksum, and a body: ends and bits, or compressed floats."""
    costs = np.asarray(costs, dtype=np.float64)
    rows, examples = costs.shape
    low, high = costs.min(1, keepdims=True), costs.max(1, keepdims=True)
    if ((costs == low) | (costs == high)).all():  # False with NaN
        ends = np.hstack([low, high])
        body = ends.tobytes() + np.packbits(costs == high, axis=1).tobytes()
        two_valued = True
    else:
        body, two_valued = zlib.compress(costs.tobytes(), 1), False
    shape = struct.pack("<?BI", two_valued, rows, examples)
    return struct.pack("<I", zlib.crc32(shape + body)) + shape + body


def _unpacked(packed: Sequence[bytes]) -> Costs:
    """The arrays [P, F, E] of F packed ones.

    Raises:
        ValueError: If a checksum does not fit, or the arrays differ in shape.
    """
    heads = [_HEAD.unpack_from(each) for each in packed]
    if any(zlib.crc32(each[4:]) != head[0] for each, head in zip(packed, heads, strict=True)):
        raise ValueError("a checksum does not fit")
    shapes = {head[2:] for head in heads}
    if len(shapes) > 1:
        raise ValueError(f"arrays of shapes {sorted(shapes)} in one game")
    ((rows, examples),) = shapes
    bodies = [each[_HEAD.size :] for each in packed]
    two_valued = np.array([head[1] for head in heads])
    bits = [body for body, two in zip(bodies, two_valued, strict=True) if two]
    ends, values = _from_bits(bits, rows, examples)
    if len(bits) == len(packed) and whole(ends):
        return values
    costs = np.empty((rows, len(packed), examples))
    costs[:, two_valued] = values
    for number in np.flatnonzero(~two_valued):
        real = np.frombuffer(zlib.decompress(bodies[number]))
        costs[:, number] = real.reshape(rows, examples)
    return costs.astype(np.int8) if whole(costs) else costs


def _from_bits(bodies: Sequence[bytes], rows: int, examples: int) -> tuple[Costs, Costs]:
    """The lowest and highest value of each row, [F, P, 2], and all values, [P, F, E]."""
    length = 16 * rows
    ends = np.frombuffer(b"".join(body[:length] for body in bodies)).reshape(-1, rows, 2)
    packed = np.frombuffer(b"".join(body[length:] for body in bodies), np.uint8)
    packed = packed.reshape(len(bodies), rows, -(-examples // 8)).transpose(1, 0, 2)
    bits = np.unpackbits(packed, axis=2, count=examples).view(np.int8)
    low, high = ends.astype(np.int8 if whole(ends) else np.float64).transpose(2, 1, 0)[..., None]
    if low.dtype == np.int8:
        bits *= high - low
        bits += low
        return ends, bits
    return ends, np.where(bits, high, low)


def whole(values: Costs) -> bool:
    """Whether all values are whole numbers that fit an int8, and so do their differences."""
    return bool((np.abs(values) < 64).all() and (values == np.rint(values)).all())
