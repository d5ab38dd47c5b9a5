"""Trained models, kept by what made them: none is trained twice, and none from the start again."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arena.checksums import opened, opened_tensors, sealed, sealed_tensors
from arena.files import atomically, held, packed, unpacked
from arena.identity import digest, sources
from arena.modules import UNKNOWN

_EVERY = 30.0  # seconds between two writes of a training's progress
_AGAIN = "remove it to train again"


class Place:
    """Where one training keeps its results; this one keeps nothing.

    Attributes:
        finished: The trained tensors, if this training was finished before.
        begun: The last progress that was kept, if it was interrupted.
        path: The file of its progress, if there is one.
    """

    finished: Mapping[str, Tensor] | None = None
    begun: Mapping[str, Any] | None = None
    path: Path | None = None

    def keep(self, progress: Callable[[], Mapping[str, Any]]) -> None:
        """Offers what the training would continue from.

        Args:
            progress: Makes it when it is wanted: plain data, and tensors that nothing changes.
        """

    def finish(self, state: Mapping[str, Tensor]) -> None:
        """Makes the trained tensors permanent."""


@dataclass(frozen=True)
class Store:
    """A folder of trained models, one `<hash>.safetensors` each.

    The hash is of everything that decides the model's bits: the recipe (the `repr` of each of its
    parts, data by their `fingerprint`), the code that the recipe's classes use (`identity`),
    torch's version and number of threads, and the kind of device. The file's header holds them as
    text. While a model trains, `<hash>.progress.pt` holds its last good epoch. A training that was
    interrupted continues from there.
    """

    folder: Path

    @contextmanager
    def place(self, recipe: Mapping[str, Any], device: torch.device) -> Iterator[Place]:
        """The place of this recipe; other processes wait until it is free.

        Nothing is kept for a recipe that cannot be told from another one: where a value has no
        description of its own (a plain object), or a class has no file (in a notebook).

        Args:
            recipe: Everything that decides what is trained, by name.
            device: Where tensors are loaded to.

        Raises:
            ValueError: Naming the file, if what was kept is damaged.
        """
        told = {name: described(value) for name, value in recipe.items()}
        text = {name: each for name, each in told.items() if each is not None}
        used = sources(recipe.values())
        if len(text) < len(told) or UNKNOWN in used.values():
            yield Place()
            return
        text |= {
            "code": digest(used),
            "torch": torch.__version__,
            "device": device.type,
        }
        text["threads"] = str(torch.get_num_threads())
        name = hashlib.sha256(repr(sorted(text.items())).encode()).hexdigest()[:24]
        with held(self.folder / f".{name}.lock", wait=True):
            place = _Kept(self.folder / name, text, device)
            try:
                yield place
            finally:
                place.settle()


@dataclass
class _Kept(Place):
    stem: Path
    recipe: Mapping[str, str]
    device: torch.device
    _latest: Mapping[str, Any] | None = field(default=None, init=False)
    _written: float = field(default_factory=time.monotonic, init=False)

    def __post_init__(self) -> None:
        from safetensors.torch import load

        self.path = self.stem.with_suffix(".progress.pt")
        self._model = self.stem.with_suffix(".safetensors")
        if self._model.is_file():
            tensors = load(opened_tensors(self._model, _AGAIN)[0])
            self.finished = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        elif self.path.is_file():
            self.begun = unpacked(opened(self.path, _AGAIN), self.device)

    def keep(self, progress: Callable[[], Mapping[str, Any]]) -> None:
        self._latest = progress()
        if time.monotonic() - self._written > _EVERY:
            self.settle()

    def settle(self) -> None:
        """Writes the latest progress, if it is not written yet."""
        if self._latest is None or self.path is None:
            return
        atomically(self.path, sealed(packed(self._latest)))
        self._latest, self._written = None, time.monotonic()

    def finish(self, state: Mapping[str, Tensor]) -> None:
        from safetensors.torch import save

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        atomically(self._model, sealed_tensors(save(tensors, dict(self.recipe))))
        self._latest = None
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def described(value: Any) -> str | None:
    """The `repr` of a value; None where that does not tell it from every other one.

    A plain object's says where it is in memory; that of a tensor or array is rounded and cut.
    """
    text = repr(value)
    return None if any(mark in text for mark in (" at 0x", "tensor(", "array(", "...")) else text


def fingerprint(*tensors: Tensor) -> str:
    """A hash of the shapes, types and values of tensors, on whatever device they are."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
