"""MNIST and Fashion-MNIST: the four original IDX files, else OpenML."""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from arena.core import Labelled
from arena.data.source import LIMIT, Source

_OPENML = {"mnist": "mnist_784", "fashion_mnist": "Fashion-MNIST"}


@dataclass(frozen=True)
class MNIST(Source):
    """60,000 + 10,000 images [1, 28, 28] in [0, 1], of 10 classes.

    Attributes:
        path: A folder with the four IDX files, gzipped or not. None downloads the data from OpenML
            with scikit-learn's `fetch_openml`, which caches them; the last 10,000 are the test set.
        name: Which of the two data sets OpenML is asked for. With a `path` it has no effect.
    """

    path: str | None = None
    name: Literal["mnist", "fashion_mnist"] = "mnist"

    def load(self) -> tuple[Labelled, Labelled]:
        """The original split."""
        if self.path is None:
            return self._from_openml()
        return self._from_folder("train"), self._from_folder("t10k")

    def _from_folder(self, part: str) -> Labelled:
        assert self.path is not None
        folder = Path(self.path).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{folder} is no folder; set data.path to one that holds the four IDX files, "
                "or leave data.path out to fetch them from OpenML"
            )
        x = read_idx(_find(folder, f"{part}-images-idx3-ubyte"), dimensions=3)
        y = read_idx(_find(folder, f"{part}-labels-idx1-ubyte"), dimensions=1)
        return _images(x, y, f"{folder} ({part})")

    def _from_openml(self) -> tuple[Labelled, Labelled]:
        from sklearn.datasets import fetch_openml

        try:
            x, y = fetch_openml(
                _OPENML[self.name], version=1, return_X_y=True, as_frame=False, parser="liac-arff"
            )
        except OSError as error:
            raise FileNotFoundError(
                f"{self.name} could not be fetched from OpenML ({error}); "
                "set data.path to a folder with the four IDX files"
            ) from None
        images = torch.from_numpy(np.asarray(x, dtype=np.uint8).reshape(-1, 28, 28))
        labels = torch.from_numpy(np.asarray(y, dtype=np.uint8))
        name = f"OpenML {self.name}"
        return _images(images[:-10000], labels[:-10000], name), _images(
            images[-10000:], labels[-10000:], name
        )


def _images(x: Tensor, y: Tensor, name: str) -> Labelled:
    return Labelled(x.unsqueeze(1).float().div_(255.0), y.long(), 10).validated(name)


def _find(folder: Path, name: str) -> Path:
    # Both spellings are in use: "train-images-idx3-ubyte" and "train-images.idx3-ubyte".
    for spelling in (name, name.replace("-idx", ".idx")):
        for suffix in ("", ".gz"):
            if (path := folder / f"{spelling}{suffix}").is_file():
                return path
    raise FileNotFoundError(f"{folder / name}[.gz] is missing; put the four IDX files there")


def read_idx(path: Path, dimensions: int) -> Tensor:
    """An IDX file of unsigned bytes as uint8 [...], gzipped if its name ends in .gz.

    The header is read first, and then no more than it promises: at most `LIMIT` bytes.

    Raises:
        ValueError: Naming the file, if it is damaged, too large or of another kind.
    """
    gzipped = path.suffix == ".gz"
    try:
        with gzip.open(path) if gzipped else open(path, "rb") as file:
            magic, *shape = struct.unpack(f">{1 + dimensions}I", file.read(4 * (1 + dimensions)))
            promised = math.prod(shape)
            body = b"" if promised > LIMIT else file.read(promised + 1)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise ValueError(f"{path} is damaged ({error}); fetch it again") from None
    if magic != 0x0800 + dimensions:
        raise ValueError(f"{path} is no IDX file of {dimensions} dimensions (magic {magic:#x})")
    if promised > LIMIT:
        raise ValueError(
            f"{path} is damaged or too large: its header promises {promised} bytes, "
            f"at most {LIMIT} are read"
        )
    if len(body) != promised:
        there = "more" if len(body) > promised else len(body)
        raise ValueError(
            f"{path} is damaged: its header promises {promised} bytes, {there} are there; "
            "fetch it again"
        )
    return torch.from_numpy(np.frombuffer(body, dtype=np.uint8).reshape(shape).copy())
