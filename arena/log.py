"""A run's folder: what was played, safe against being killed at any moment.

The checkpoint is the truth. It is replaced atomically once a round, and holds the lines and costs
of all rounds beside what the next one depends on; the readable files are made from it. A run that
is killed loses the round it was playing and nothing else.
"""

import fcntl
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
from torch import Tensor

from arena.arena import Record
from arena.events import Events

CHECKPOINT = "checkpoint.pt"


def identity(config: Mapping[str, Any]) -> str:
    """A hash of a configuration: what a run's folder belongs to."""
    text = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Replaces `path` by what `write` puts into a file: wholly or not at all."""
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        write(scratch)
        with open(scratch, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


class RunLog:
    """The folder of one match, held by one process at a time.

    Args:
        folder: Made if it is not there.
        config: The match's whole configuration, plain data: a folder belongs to one.
        hparams: What a sweep compares, for TensorBoard's HParams tab.

    Raises:
        ValueError: If the folder belongs to another configuration, or its checkpoint is damaged.
        BlockingIOError: If another process holds it.
    """

    def __init__(
        self, folder: Path, config: Mapping[str, Any], hparams: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = folder
        self.identity = identity(config)
        self.hparams = dict(hparams or {})
        self.lines: list[dict[str, Any]] = []
        self.costs: dict[str, Tensor] = {}
        self.exhibit: dict[str, Tensor] = {}
        self.state: dict[str, Any] | None = None
        self._lock: IO[str] | None = None
        self._events: Events | None = None

    def __enter__(self) -> "RunLog":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.folder / ".lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise BlockingIOError(
                f"{self.folder} is being written by another process; wait for it, or choose "
                "another folder with hydra.run.dir=..."
            ) from None
        try:
            self._load()
        except BaseException:
            self._lock.close()
            raise
        return self

    def _load(self) -> None:
        path = self.folder / CHECKPOINT
        if not path.exists():
            return
        try:
            saved = torch.load(path, weights_only=True)
            found = saved["identity"]
        except Exception as error:  # whatever a damaged file makes the unpickler raise
            raise ValueError(
                f"{path} is damaged ({type(error).__name__}); remove the folder to start anew"
            ) from None
        if found != self.identity:
            raise ValueError(
                f"{self.folder} holds a run of another configuration ({found}, this one is "
                f"{self.identity}); choose another folder with hydra.run.dir=... or remove it"
            )
        self.lines, self.costs = saved["lines"], saved["costs"]
        self.exhibit, self.state = saved["exhibit"], saved["state"]
        self._write_readable()

    def write(self, record: Record, state: dict[str, Any]) -> None:
        """Makes a round permanent.

        Raises:
            OSError: If the disk is full, say; earlier rounds stay.
        """
        # Before the checkpoint: a round that is played again replaces its events, while one whose
        # events were lost would be missing for ever.
        if self._events is None:
            self._events = Events(self.folder, record.round, self.hparams)
        self._events.round(record)
        self.lines = [*self.lines, record.line()]
        self.costs = {
            name: torch.cat([self.costs.get(name, cost.new_empty(0, len(cost))), cost[None]])
            for name, cost in record.costs.items()
        }
        self.exhibit = record.exhibit
        self.state = state
        saved = {
            "identity": self.identity,
            "lines": self.lines,
            "costs": self.costs,
            "exhibit": self.exhibit,
            "state": state,
        }
        atomically(self.folder / CHECKPOINT, lambda path: torch.save(saved, path))
        self._write_readable()

    def _write_readable(self) -> None:
        from safetensors.torch import save_file

        text = "".join(json.dumps(plain(line)) + "\n" for line in self.lines)
        atomically(self.folder / "rounds.jsonl", lambda path: _write_text(path, text))
        atomically(
            self.folder / "outcomes.safetensors", lambda path: save_file(self.costs, str(path))
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._events is not None:
            self._events.close()
        if self._lock is not None:
            self._lock.close()


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def plain(value: Any) -> Any:
    """The value with NaN as null, which JSON has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def read_rounds(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's `rounds.jsonl`; a torn last line is dropped.

    Raises:
        FileNotFoundError: If the folder holds no run.
    """
    path = folder / "rounds.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no run: there is no {path.name}")
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def claim(
    folder: Path,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    hparams: Mapping[str, Any],
) -> None:
    """Writes the configuration, and what a sweep compares, into the folder's `.hydra`, once.

    Raises:
        ValueError: If the folder belongs to another configuration; nothing is changed then.
    """
    import yaml

    path = folder / ".hydra" / "config.yaml"
    if path.is_file():
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError:
            raise ValueError(f"{path} is damaged; remove the folder to start anew") from None
        if identity(found) != identity(config):
            raise ValueError(
                f"{folder} holds a run of another configuration; choose another folder with "
                "hydra.run.dir=... or remove it"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("overrides.yaml", list(overrides)),
        ("hparams.yaml", dict(hparams)),
        ("config.yaml", dict(config)),
    ):
        text = yaml.safe_dump(content, sort_keys=False)
        atomically(path.with_name(name), partial(_write_text, text=text))
