"""Tables of numbers: a file of separated values, a row an example."""

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from arena.core import Labelled
from arena.data.source import Source


@dataclass(frozen=True)
class Table(Source):
    """A file of numbers with a column of whole labels; inputs [features] in [0, 1], no split.

    Each feature is scaled from its least to its largest value over all rows of the table, to 0 and
    1 (a feature that never varies becomes 0). The scale is thus a property of the table, known to
    both players, and not learned from the defender's share of it. Labels are numbered from 0 in
    ascending order: -1 and 1 become 0 and 1.

    Attributes:
        path: The file; None downloads the data set `openml` by scikit-learn's `fetch_openml` (and
            caches there).
        openml: What to ask OpenML for where there is no path.
        label: The label's column, by its name (then the file has a header) or its number from 0,
            negative from the end. From OpenML it is always the data set's own target.
        header: Whether the first row names the columns.
        delimiter: What separates values.
        binary: Whether all that counts of a value is whether it is above 0: features become 0, 1.
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
                f"Table.label = {self.label!r} names a column, but header=false says that the "
                "file has no names; set header=true or give the column's number"
            )
        if len(self.delimiter) != 1:
            raise ValueError(f"Table.delimiter = {self.delimiter!r} must be a single character")

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
        x = (features > 0).astype(float) if self.binary else _scaled(features)
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
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text ({error}); give separated values") from None
        rows = csv.reader(io.StringIO(text), delimiter=self.delimiter)
        filled = ((number, row) for number, row in enumerate(rows, 1) if row)
        names = next(filled, (0, []))[1] if self.header else []
        values = np.array(list(self._numbers(path, filled, names)))
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

    def _numbers(
        self, path: Path, rows: Iterator[tuple[int, list[str]]], names: list[str]
    ) -> Iterator[list[float]]:
        width = len(names) or None
        for number, row in rows:
            width = width or len(row)
            if len(row) != width:
                raise ValueError(
                    f"{path}, row {number}: {len(row)} values where {width} are wanted; "
                    f"is {self.delimiter!r} the delimiter?"
                )
            yield [_number(path, number, i, cell) for i, cell in enumerate(row)]

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
                "Table has neither path nor openml; set data.path to a file of separated values"
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
        raise ValueError(
            f"{path}, row {row}, column {column + 1}: {cell!r} is no finite number{hint}"
        )
    return value


def _scaled(features: np.ndarray) -> np.ndarray:
    low = features.min(0)
    width = features.max(0) - low
    scaled: np.ndarray = (features - low) / np.where(width == 0, 1.0, width)
    return scaled
