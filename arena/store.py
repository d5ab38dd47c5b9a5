"""Trained models by what they are made of: none is trained twice, none from the start again."""

import hashlib
import importlib
import inspect
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from arena.files import atomically, held

_EVERY = 30.0  # seconds between two writes of a training's progress

_MADE_OF = (
    "actions",
    "attacks",
    "certificates",
    "defenses",
    "learners",
    "training",
    "transformations",
)
_AND = ("chance", "classification", "core", "costs", "declaration", "fields", "knowledge")


class Place:
    """Where one training leaves what it makes; this one forgets everything.

    Attributes:
        finished: The trained tensors, if the training was done before.
        begun: What it last kept, if it was broken off.
        path: Where its progress is, if it is anywhere.
    """

    finished: Mapping[str, Tensor] | None = None
    begun: Mapping[str, Any] | None = None
    path: Path | None = None

    def keep(self, progress: Callable[[], Mapping[str, Any]]) -> None:
        """Offers what the training would go on from: tensors of its own and plain data."""

    def finish(self, state: Mapping[str, Tensor]) -> None:
        """Makes the trained tensors permanent."""


@dataclass(frozen=True)
class Store:
    """A folder of trained models: `<hash>.safetensors` each.

    The hash is of the recipe (the `repr` of all that decides what is trained, data by their
    `fingerprint`), of the sources that train it, and of torch's version, its threads and the kind
    of device, which decide the last bits. The recipe stands in the file's own header. While it
    trains, `<hash>.progress.pt` is what a training that was broken off, or that diverged, goes on
    from: its last good epoch.
    """

    folder: Path

    @contextmanager
    def place(self, recipe: Mapping[str, Any], device: torch.device) -> Iterator[Place]:
        """The place of this recipe, held against other processes (they wait).

        A recipe that has no stable description (a plain object among its values) has no place:
        what is kept for it could not be told from what another object made.
        """
        text = {name: repr(value) for name, value in recipe.items()}
        if any(" at 0x" in part for part in text.values()):
            yield Place()
            return
        text |= {
            "code": code(list(recipe.values())),
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
        from safetensors.torch import load_file

        self.path = self.stem.with_suffix(".progress.pt")
        self._model = self.stem.with_suffix(".safetensors")
        try:
            if self._model.is_file():
                self.finished = load_file(self._model, device=str(self.device))
            elif self.path.is_file():
                self.begun = torch.load(self.path, map_location=self.device, weights_only=True)
        except Exception as error:  # whatever a damaged file makes the reader raise
            damaged = self._model if self._model.is_file() else self.path
            raise ValueError(
                f"{damaged} is damaged ({type(error).__name__}); remove it to train again"
            ) from None

    def keep(self, progress: Callable[[], Mapping[str, Any]]) -> None:
        self._latest = progress()
        if time.monotonic() - self._written > _EVERY:
            self.settle()

    def settle(self) -> None:
        """Writes the latest progress, if any is unwritten."""
        if self._latest is None or self.path is None:
            return
        content = io.BytesIO()
        torch.save(dict(self._latest), content)
        atomically(self.path, content.getvalue())
        self._latest, self._written = None, time.monotonic()

    def finish(self, state: Mapping[str, Tensor]) -> None:
        from safetensors.torch import save

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        atomically(self._model, save(tensors, metadata=dict(self.recipe)))
        self._latest = None
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def fingerprint(*tensors: Tensor) -> str:
    """A hash of tensors: of their shapes, types and values, wherever they are."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def code(values: Sequence[Any], rooms: Sequence[str] = _MADE_OF) -> str:
    """A hash of arena's sources in these rooms, and of the classes of values from elsewhere."""
    modules = {type(value).__module__ for value in _parts(list(values))}
    own = {name for name in modules if name.partition(".")[0] not in ("arena", "builtins")}
    digest = hashlib.sha256(_arenas_code(tuple(rooms)))
    for name in sorted(own):
        try:
            digest.update(inspect.getsource(importlib.import_module(name)).encode())
        except (OSError, TypeError):  # no source to be had: its name is all there is to go by
            digest.update(name.encode())
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[Any]:
    """The declarations in a value, and in their fields."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item)
    elif is_dataclass(value) and not isinstance(value, type):
        yield value
        for each in fields(value):
            yield from _parts(getattr(value, each.name))


@cache
def _arenas_code(rooms: tuple[str, ...]) -> bytes:
    root = Path(__file__).parent
    paths = [root / f"{name}.py" for name in _AND]
    paths += [path for room in rooms for path in (root / room).rglob("*.py")]
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.digest()
