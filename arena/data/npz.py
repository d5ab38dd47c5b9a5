"""Images or features in NumPy's own files, such as CIFAR-10 saved as arrays."""

import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import (
    MAGIC_PREFIX,
    read_array,
    read_array_header_1_0,
    read_array_header_2_0,
    read_magic,
)
from torch import Tensor

from arena.core import Labelled
from arena.data.source import LIMIT, Source
from arena.fields import Count

# What damage to an archive may raise; RuntimeError is for one that is encrypted.
_UNREADABLE = (
    *(ValueError, OSError, EOFError, RuntimeError, struct.error, zlib.error),
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class Npz(Source):
    """`.npz` files that hold inputs `x` and labels `y`.

    Bytes (uint8) are divided by 255; other inputs must already lie in the box [0, 1]. Images with
    their channels last, [N, H, W, 1 or 3], are turned to [N, C, H, W]; images with their channels
    first, [N, 1 or 3, H, W], stay as they are.

    Attributes:
        train: The file of training examples.
        test: The file of test examples; None: the game sets some of the training examples aside.
        classes: Number of classes.
    """

    train: str
    test: str | None = None
    classes: Count = 10

    def load(self) -> tuple[Labelled, Labelled | None]:
        """The examples in the files. Pickled objects are refused, and arrays above `LIMIT`."""
        return self._read(self.train), None if self.test is None else self._read(self.test)

    def _read(self, name: str) -> Labelled:
        path = Path(name).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}; set data.train and data.test")
        with open(path, "rb") as file:
            if file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX:
                raise ValueError(
                    f"{path} is a .npy file, a single array; save inputs and labels together: "
                    "numpy.savez(file, x=x, y=y)"
                )
        try:
            with zipfile.ZipFile(path) as archive:
                x, y = (_array(archive, each) for each in ("x", "y"))
        except KeyError:
            raise ValueError(f"{path} needs arrays named x and y") from None
        except _UNREADABLE as error:
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(f"{path} cannot be read as a .npz of numbers: {why}") from None
        if y.ndim != 1 or y.dtype.kind not in "iu":
            raise ValueError(f"{path}: y is {y.dtype} {list(y.shape)}; give whole numbers [N]")
        labels = torch.from_numpy(y.astype(np.int64))
        return Labelled(_inputs(x, path), labels, self.classes).validated(str(path))


def _array(archive: zipfile.ZipFile, name: str) -> "np.ndarray[Any, Any]":
    """An array of a .npz, whose size is checked before room is made for it.

    Raises:
        KeyError: If there is none of this name.
        ValueError: If it is damaged, larger than `LIMIT`, or holds objects.
    """
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as file:
        version = read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name} is of version {version} of the format; versions 1 and 2 are")
        header = read_array_header_1_0 if version == (1, 0) else read_array_header_2_0
        shape, _, dtype = header(file)
        begin = file.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} holds pickled objects")
    promised, there = math.prod(shape) * dtype.itemsize, member.file_size - begin
    if max(promised, there) > LIMIT:
        raise ValueError(
            f"{name} would take {max(promised, there)} bytes, at most {LIMIT} are read"
        )
    if promised != there:
        raise ValueError(f"the header of {name} promises {promised} bytes, {there} are there")
    with archive.open(member) as file:
        found: np.ndarray[Any, Any] = read_array(file, allow_pickle=False)
    return found


def _inputs(x: "np.ndarray[Any, Any]", path: Path) -> Tensor:
    if x.dtype.kind not in "fiu":
        raise ValueError(f"{path}: x is {x.dtype}; give numbers")
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise ValueError(
            f"{path}: x is {x.dtype} {list(x.shape)}; give inputs [N, ...], one row per example"
        )
    with np.errstate(over="ignore"):  # what overflows is outside of the box, and so refused
        found = torch.from_numpy(x.astype(np.float32))
    if x.dtype == np.uint8:
        found = found.div_(255.0)
    if found.ndim == 4 and found.shape[3] in (1, 3) and found.shape[1] not in (1, 3):
        found = found.permute(0, 3, 1, 2)
    return found.contiguous()
