"""A run's folder: the record of what was played, safe if its process is killed at any moment.

Two files are the truth. `checkpoint.log` grows by one record per round: what the round added. Then
`checkpoint.pt`, which is replaced atomically, takes up the round: it holds what the next round
depends on, and how much of the log belongs to it. The readable files, `rounds.jsonl` and
`outcomes.safetensors`, are made from these two. A run that is killed loses the round that it was
playing and nothing else. What is written in a round does not grow with the number of rounds.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from arena.checksums import (
    damaged,
    opened,
    opened_lines,
    opened_records,
    opened_yaml,
    sealed,
    sealed_line,
    sealed_record,
    sealed_tensors,
    sealed_yaml,
)
from arena.events import Events
from arena.files import append, atomically, held, packed, unpacked
from arena.identity import changes
from arena.record import Record

CHECKPOINT = "checkpoint.pt"
LOG = "checkpoint.log"

_ANEW = "remove the folder to start anew"
_ELSEWHERE = "choose another folder with hydra.run.dir=... or remove it"
_GROWS = "revealed"  # in an arena's state, by player: a list to which rounds add


def identity(config: Mapping[str, Any]) -> str:
    """A hash of a configuration: what a run's folder belongs to."""
    text = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """A match as it was kept after its last finished round.

    Returns:
        The `identity` of its configuration; the `sources` that played it; the `lines` of all rounds
        and their `outcomes`, [n] by name; the last round's `exhibit`; the arena's `state`; and
        `length`, the bytes of the log that belong to it.

    Raises:
        ValueError: Naming the file, if one is damaged.
    """
    path = folder / CHECKPOINT
    saved = unpacked(opened(path, _ANEW))
    log = folder / LOG
    if not log.is_file():
        raise damaged(path, f"there is no {LOG} beside it", _ANEW)
    lines, outcomes, grown = [], [], saved["state"][_GROWS]
    for record in map(unpacked, opened_records(log, saved["length"], _ANEW)):
        lines.append(record["line"])
        outcomes.append(record["outcomes"])
        for name, added in record["added"].items():
            grown[name] += added
    return {**saved, "lines": lines, "outcomes": outcomes}


class RunLog:
    """The folder of one match, held by one process at a time.

    Args:
        folder: Made if it is not there.
        config: The match's whole configuration, plain data: a folder belongs to one.
        hparams: The options that a sweep compares, for TensorBoard's HParams tab.
        sources: The code that plays the match, see `identity.sources`: a folder belongs to one.

    Attributes:
        lines: A line for each finished round.
        exhibit: What the last round shows, by name.
        state: The arena's `state_dict` after the last round; None before the first.

    Raises:
        ValueError: If the folder belongs to another configuration or to other code, or one of its
            files is damaged.
        BlockingIOError: If another process holds it.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        hparams: Mapping[str, Any] | None = None,
        sources: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.identity = identity(config)
        self.hparams = dict(hparams or {})
        self.sources = dict(sources or {})
        self.lines: list[dict[str, Any]] = []
        self.exhibit: dict[str, Tensor] = {}
        self.state: dict[str, Any] | None = None
        self._outcomes: list[dict[str, Tensor]] = []
        self._length = 0  # of the log
        self._readable = 0  # the length of rounds.jsonl
        self._hold = ExitStack()
        self._events: Events | None = None

    @property
    def outcomes(self) -> dict[str, Tensor]:
        """What is known example by example, [rounds, n], by the last round's names."""
        names = self._outcomes[-1] if self._outcomes else ()
        return {
            name: torch.stack([each[name] for each in self._outcomes if name in each])
            for name in names
        }

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
            raise ValueError(f"{self.folder} holds a run of another configuration; {_ELSEWHERE}")
        if changed := changes(saved["sources"], self.sources):
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise ValueError(
                f"{self.folder} holds a run of other code: {', '.join(changed[:3])}{more} changed "
                f"since; {_ELSEWHERE}"
            )
        self.lines, self._outcomes = saved["lines"], saved["outcomes"]
        self.exhibit, self.state = saved["exhibit"], saved["state"]
        self._length = saved["length"]
        text = b"".join(sealed_line(plain(line)) for line in self.lines)
        self._readable = len(text)
        _repair(self.folder / "rounds.jsonl", text)
        self._write_outcomes()

    def write(self, record: Record, state: dict[str, Any]) -> None:
        """Makes a round permanent.

        Args:
            record: The round's.
            state: The arena's `state_dict` after it. Its `revealed` only grows from round to round.

        Raises:
            OSError: If the disk is full, say; earlier rounds stay.
        """
        # Events come before the checkpoint: a round that is played again replaces its events, but
        # events lost with a kill would be missing from a round that counts as played.
        if self._events is None:
            self._events = Events(self.folder, record.round, self.hparams)
        self._events.round(record)
        line, outcomes = record.line(), record.outcomes()
        content = {"line": line, "outcomes": outcomes, "added": self._added(state)}
        self._commit(sealed_record(packed(content)), record.exhibit, state)
        self.lines.append(line)
        self._outcomes.append(outcomes)
        self.exhibit, self.state = record.exhibit, state
        readable = sealed_line(plain(line))
        append(self.folder / "rounds.jsonl", self._readable, readable)
        self._readable += len(readable)

    def _commit(self, entry: bytes, exhibit: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Writes a record to the log, and the checkpoint that takes it up."""
        append(self.folder / LOG, self._length, entry)
        length = self._length + len(entry)
        checkpoint = {
            "identity": self.identity,
            "sources": self.sources,
            "exhibit": exhibit,
            "state": {**state, _GROWS: {name: [] for name in state[_GROWS]}},
            "length": length,
        }
        atomically(self.folder / CHECKPOINT, sealed(packed(checkpoint)))
        self._length = length

    def _added(self, state: Mapping[str, Any]) -> dict[str, list[Any]]:
        """What the last round added to the part of the state that grows."""
        before = {} if self.state is None else self.state[_GROWS]
        return {
            name: batches[len(before.get(name, ())) :] for name, batches in state[_GROWS].items()
        }

    def _write_outcomes(self) -> None:
        from safetensors.torch import save

        _repair(self.folder / "outcomes.safetensors", sealed_tensors(save(self.outcomes)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._hold:
            if self.lines:
                self._write_outcomes()


def _repair(path: Path, content: bytes) -> None:
    """Makes the content of `path` what it should be; a file that is right is left alone."""
    if not path.is_file() or path.read_bytes() != content:
        atomically(path, content)


def plain(value: Any) -> Any:
    """The value with null in place of NaN and infinity, which JSON cannot express."""
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
        ValueError: If a line is damaged, naming it.
    """
    path = folder / "rounds.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no run: there is no {path.name}")
    return opened_lines(path, "start the run again to make it from the checkpoint")


@contextmanager
def claim(
    folder: Path,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    hparams: Mapping[str, Any],
) -> Iterator[None]:
    """Holds a run's folder; writes the configuration and what a sweep compares to its `.hydra`.

    From its first finished round on, a folder belongs to one configuration. The study's own options
    may change, so that a match can be continued for more rounds.

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
            found = yaml.safe_load(opened_yaml(home / "config.yaml", _ANEW))
            if match(found) != match(config):
                raise ValueError(f"{folder} holds a run of another configuration; {_ELSEWHERE}")
        home.mkdir(exist_ok=True)
        for name, content in (
            ("overrides.yaml", list(overrides)),
            ("hparams.yaml", dict(hparams)),
            ("config.yaml", dict(config)),
        ):
            atomically(home / name, sealed_yaml(yaml.safe_dump(content, sort_keys=False)))
        yield
