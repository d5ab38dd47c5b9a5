"""Tables of numbers: a file of separated values, one row per example."""

import csv
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from arena.core import Labelled
from arena.data.source import Source

_LARGEST = 2**28  # bytes of text
_SHOWN = 40  # characters of a wrong value in an error


@dataclass(frozen=True)
class Tabular(Source):
    """A file of numbers with a column of whole labels; inputs [features] in [0, 1], no split.

    Each feature is scaled so that its smallest value over all rows becomes 0 and its largest 1; a
    feature that never varies becomes 0. The scale is a property of the table and known to both
    players; it is not learned from the defender's share. Labels are numbered from 0 in ascending
    order: -1 and 1 become 0 and 1.

    Attributes:
        path: The file, of 256 MiB at most. None downloads the data set `openml` with scikit-learn's
            `fetch_openml`, which caches it.
        openml: The name of the data set at OpenML, used if there is no path.
        label: The label's column: its name, if the file has a header, or its number from 0;
            negative numbers count from the end. OpenML says itself which column is the label.
        header: Whether the first row names the columns.
        delimiter: The character between values.
        binary: Whether features become 1 where they are above 0, and 0 elsewhere.
    """

    path: str | None = None
    openml: str | None = None
    label: int | str = -1
    header: bool = False
    delimiter: str = ","
    binary: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.label, str) and not self.header:
            raise ValueError(
                f"Tabular.label = {self.label!r} names a column, but header=false says that the "
                "file has no names; set header=true or give the column's number"
            )
        if len(self.delimiter) != 1:
            raise ValueError(f"Tabular.delimiter = {self.delimiter!r} must be a single character")

    def load(self) -> tuple[Labelled, None]:
        """All rows.

        Raises:
            FileNotFoundError: If there is no such file, or OpenML cannot be reached.
            ValueError: Naming row and column of a value that is no number or no whole label, rows
                of unequal length, or a table with a single class.
        """
        name, features, labels = self._from_openml() if self.path is None else self._from_file()
        distinct, y = np.unique(labels, return_inverse=True)
        if len(distinct) < 2:
            raise ValueError(
                f"{name}: every label is {distinct[0]:g}; a game needs at least two classes, "
                "is label the right column?"
            )
        x = (features > 0).astype(float) if self.binary else _scaled(name, features)
        data = Labelled(torch.from_numpy(x).float(), torch.from_numpy(y), len(distinct))
        return data.validated(name), None

    def _from_file(self) -> tuple[str, np.ndarray, np.ndarray]:
        assert self.path is not None
        path = Path(self.path).expanduser()
        if not path.is_file():
            otherwise = f", or leave it out to fetch {self.openml} from OpenML"
            raise FileNotFoundError(
                f"{path} is no file; set data.path to a file of separated values"
                f"{otherwise if self.openml else ''}"
            )
        if (size := path.stat().st_size) > _LARGEST:
            raise ValueError(
                f"{path} has {size} bytes, at most {_LARGEST} are read; save it as .npz and use "
                "data=npz"
            )
        names, values = self._read(path)
        if values.size == 0:
            raise ValueError(f"{path} holds no rows of numbers")
        label = self._column(path, names, values.shape[1])
        labels = values[:, label]
        if (odd := np.flatnonzero(labels != np.round(labels))).size:
            raise ValueError(
                f"{path}: label {labels[odd[0]]:g} of example {odd[0]} is no whole number; "
                f"is column {self.label} the label?"
            )
        return str(path), np.delete(values, label, axis=1), labels

    def _read(self, path: Path) -> tuple[list[str], np.ndarray]:
        """The names of the columns, if there are any, and the numbers [N, columns]."""
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.reader(file, delimiter=self.delimiter)
            filled = ((number, row) for number, row in enumerate(rows, 1) if row)
            try:
                names = next(filled, (0, []))[1] if self.header else []
                return names, np.array(list(self._numbers(path, filled, names)))
            except UnicodeDecodeError as error:
                raise ValueError(f"{path} is no text ({error}); give separated values") from None
            except csv.Error as error:
                raise ValueError(
                    f"{path}, line {rows.line_num}: {error}; is a quotation mark left open?"
                ) from None

    def _numbers(
        self, path: Path, rows: Iterator[tuple[int, list[str]]], names: list[str]
    ) -> Iterator["array[float]"]:
        width = len(names) or None
        for number, row in rows:
            width = width or len(row)
            if len(row) != width:
                raise ValueError(
                    f"{path}, row {number}: {len(row)} values where {width} are wanted; "
                    f"is {self.delimiter!r} the delimiter?"
                )
            yield array("d", (_number(path, number, i, cell) for i, cell in enumerate(row)))

    def _column(self, path: Path, names: list[str], width: int) -> int:
        if isinstance(self.label, str):
            if self.label not in names:
                raise ValueError(f"{path} has no column {self.label!r}; it has {', '.join(names)}")
            return names.index(self.label)
        if not -width <= self.label < width or width < 2:
            raise ValueError(
                f"{path} has {width} columns, so label={self.label} leaves nothing to use; "
                f"is {self.delimiter!r} the delimiter?"
            )
        return self.label % width

    def _from_openml(self) -> tuple[str, np.ndarray, np.ndarray]:
        if self.openml is None:
            raise FileNotFoundError(
                "Tabular has neither path nor openml; set data.path to a file of separated values"
            )
        from sklearn.datasets import fetch_openml

        try:
            x, y = fetch_openml(
                self.openml, version=1, return_X_y=True, as_frame=False, parser="liac-arff"
            )
        except OSError as error:
            raise FileNotFoundError(
                f"{self.openml} could not be fetched from OpenML ({error}); "
                "set data.path to a file of separated values"
            ) from None
        return f"OpenML {self.openml}", np.asarray(x, float), np.asarray(y, float)


def _number(path: Path, row: int, column: int, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        hint = "; set header=true if this row names the columns" if row == 1 else ""
        shown = repr(cell) if len(cell) <= _SHOWN else f"{cell[:_SHOWN]!r}..."
        raise ValueError(
            f"{path}, row {row}, column {column + 1}: {shown} is no finite number{hint}"
        )
    return value


def _scaled(name: str, features: np.ndarray) -> np.ndarray:
    low = features.min(0)
    with np.errstate(over="ignore"):
        width = features.max(0) - low
    if (wide := np.flatnonzero(np.isinf(width))).size:
        raise ValueError(
            f"{name}: feature {wide[0]} reaches from {low[wide[0]]:g} to "
            f"{features[:, wide[0]].max():g}, too far to be scaled; rescale it"
        )
    scaled: np.ndarray = (features - low) / np.where(width == 0, 1.0, width)
    return scaled
