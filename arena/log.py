"""A run's folder: what was played, safe against being killed at any moment.

The checkpoint is the truth. It is replaced atomically once a round, and holds the lines and costs
of all rounds beside what the next one depends on; the readable files are made from it. A run that
is killed loses the round it was playing and nothing else.
"""

import hashlib
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from arena.arena import Record
from arena.events import Events
from arena.files import atomically, held

CHECKPOINT = "checkpoint.pt"


def identity(config: Mapping[str, Any]) -> str:
    """A hash of a configuration: what a run's folder belongs to."""
    text = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """What a match's checkpoint holds.

    Raises:
        ValueError: Naming the file, if it is damaged.
    """
    path = folder / CHECKPOINT
    try:
        saved: dict[str, Any] = torch.load(path, weights_only=True)
        missing = {"identity", "lines", "outcomes", "exhibit", "state"} - saved.keys()
    except Exception as error:  # whatever a damaged file makes the unpickler raise
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}); remove the folder to start anew"
        ) from None
    if missing:
        raise ValueError(f"{path} is damaged (no {', '.join(sorted(missing))}); remove the folder")
    return saved


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
        self.outcomes: dict[str, Tensor] = {}
        self.exhibit: dict[str, Tensor] = {}
        self.state: dict[str, Any] | None = None
        self._hold = ExitStack()
        self._events: Events | None = None

    def __enter__(self) -> "RunLog":
        self._hold.enter_context(held(self.folder / ".lock"))
        try:
            self._load()
        except BaseException:
            self._hold.close()
            raise
        return self

    def _load(self) -> None:
        if not (self.folder / CHECKPOINT).exists():
            return
        saved = read_checkpoint(self.folder)
        if saved["identity"] != self.identity:
            raise ValueError(
                f"{self.folder} holds a run of another configuration; choose another folder with "
                "hydra.run.dir=... or remove it"
            )
        self.lines, self.outcomes = saved["lines"], saved["outcomes"]
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
        self.outcomes = {
            name: torch.cat([self.outcomes.get(name, each.new_empty(0, len(each))), each[None]])
            for name, each in record.outcomes().items()
        }
        self.exhibit = record.exhibit
        self.state = state
        saved = {
            "identity": self.identity,
            "lines": self.lines,
            "outcomes": self.outcomes,
            "exhibit": self.exhibit,
            "state": state,
        }
        content = io.BytesIO()
        torch.save(saved, content)
        atomically(self.folder / CHECKPOINT, content.getvalue())
        self._write_readable()

    def _write_readable(self) -> None:
        from safetensors.torch import save

        text = "".join(json.dumps(plain(line)) + "\n" for line in self.lines)
        atomically(self.folder / "rounds.jsonl", text.encode())
        atomically(self.folder / "outcomes.safetensors", save(self.outcomes))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hold.close()


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
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


@contextmanager
def claim(
    folder: Path,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    hparams: Mapping[str, Any],
) -> Iterator[None]:
    """Holds a run's folder, with the configuration and what a sweep compares in its `.hydra`.

    A folder belongs to its first configuration from its first finished round on. The study's own
    options may change: a match is gone on with for more rounds.

    Raises:
        ValueError: If the folder belongs to another configuration; nothing is changed then.
        BlockingIOError: If another process holds it.
    """
    import yaml

    def match(config: Any) -> str:
        played = {**config, "study": config["study"]["_target_"], "models": None, "protocol": None}
        return identity(played)

    home = folder / ".hydra"
    with held(folder / ".run.lock"):
        if (home / "config.yaml").is_file() and any(folder.rglob(CHECKPOINT)):
            try:
                found = match(yaml.safe_load((home / "config.yaml").read_text(encoding="utf-8")))
            except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError):
                raise ValueError(
                    f"{home / 'config.yaml'} is damaged; remove the folder to start anew"
                ) from None
            if found != match(config):
                raise ValueError(
                    f"{folder} holds a run of another configuration; choose another folder with "
                    "hydra.run.dir=... or remove it"
                )
        home.mkdir(exist_ok=True)
        for name, content in (
            ("overrides.yaml", list(overrides)),
            ("hparams.yaml", dict(hparams)),
            ("config.yaml", dict(config)),
        ):
            text = yaml.safe_dump(content, sort_keys=False)
            atomically(home / name, text.encode())
        yield
