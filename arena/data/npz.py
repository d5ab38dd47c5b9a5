"""Images or features in NumPy's own files, such as CIFAR-10 saved as arrays."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arena.core import Labelled
from arena.data.source import Source
from arena.fields import Count


@dataclass(frozen=True)
class Npz(Source):
    """`.npz` files that hold inputs `x` and labels `y`.

    Bytes (uint8) are divided by 255; other inputs must lie in the box [0, 1] already. Images are
    taken with their channels last, [N, H, W, 1 or 3], and turned to [N, C, H, W]; what has the
    channels first, [N, 1 or 3, H, W], stays.

    Attributes:
        train: The file of training examples.
        test: The file of test examples; None: the game keeps some of the training file's.
        classes: Number of classes.
    """

    train: str
    test: str | None = None
    classes: Count = 10

    def load(self) -> tuple[Labelled, Labelled | None]:
        """What the files hold; pickled objects in them are refused."""
        return self._read(self.train), None if self.test is None else self._read(self.test)

    def _read(self, name: str) -> Labelled:
        path = Path(name).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}; set data.train and data.test")
        try:
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                x, y = file["x"], file["y"]
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} cannot be read as a .npz of numbers: {error}") from None
        except KeyError:
            raise ValueError(f"{path} needs arrays named x and y") from None
        if y.ndim != 1 or y.dtype.kind not in "iu":
            raise ValueError(f"{path}: y is {y.dtype} {list(y.shape)}; give whole numbers [N]")
        labels = torch.from_numpy(y.astype(np.int64))
        return Labelled(_inputs(x, path), labels, self.classes).validated(str(path))


def _inputs(x: "np.ndarray[Any, Any]", path: Path) -> Tensor:
    if x.dtype.kind not in "fiu":
        raise ValueError(f"{path}: x is {x.dtype}; give numbers")
    found = torch.from_numpy(x.astype(np.float32))
    if x.dtype == np.uint8:
        found = found.div_(255.0)
    if found.ndim == 4 and found.shape[3] in (1, 3) and found.shape[1] not in (1, 3):
        found = found.permute(0, 3, 1, 2)
    return found.contiguous()
