"""The shell's `arena`: configuration, then a study, then its record.

Nothing heavy is imported until the configuration is known to be sound.
"""

import errno
import hashlib
import os
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from arena.schema import build, check, near

_SWEEP = "ARENA_SWEEP"  # in the environment, so that a launcher's worker processes agree
_USERS_MISTAKE = 2
CONF = next(
    path
    for path in (Path(__file__).parent / "conf", Path(__file__).parent.parent / "conf")
    if path.is_dir()
)


def run_name(overrides: Sequence[str]) -> str:
    """A folder's name for a run: its overrides, or `default`; short, and the same every time."""
    mine = [o for o in overrides if not o.lstrip("+~").startswith("hydra")]
    name = ",".join(re.sub(r"[^\w.,=+~-]+", ".", override) for override in mine) or "default"
    if len(name) <= 100:
        return name
    return f"{name[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def main() -> None:
    """Runs `arena` with the arguments of the process.

    A user's mistake is one or two lines on standard error and exit status 2, without a traceback
    (ARENA_TRACEBACK=1 shows it).
    """
    import hydra
    from omegaconf import OmegaConf

    arguments = sys.argv[1:]
    own = [a for a in arguments if not a.startswith("-") and "=" in a]
    os.environ[_SWEEP] = run_name(own)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("sweep_name", lambda: os.environ[_SWEEP], replace=True)
    # A user's own classes lie where the command is given, or beside their yaml.
    for flag, value in pairwise(arguments):
        if flag in ("--config-dir", "-cd"):
            sys.path.insert(0, str(Path(value).resolve()))
    sys.path.insert(0, str(Path.cwd()))
    # Hydra then raises what it would otherwise print in its own way, and exit.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(_task)()
    except _mistakes() as error:
        if os.environ.get("ARENA_TRACEBACK"):
            raise
        print(f"arena: {explain(error)}", file=sys.stderr)
        sys.exit(_USERS_MISTAKE)
    except KeyboardInterrupt:
        sys.exit("\narena: interrupted; start the same command again to go on")
    if _failures:
        print(f"arena: {len(_failures)} runs failed:", file=sys.stderr)
        for name, why in _failures.items():
            print(f"  {name}: {why}", file=sys.stderr)
        sys.exit(_USERS_MISTAKE)


_failures: dict[str, str] = {}


def _mistakes() -> tuple[type[Exception], ...]:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    found: tuple[type[Exception], ...] = (HydraException, OmegaConfBaseException)
    # ValueError covers configuration, ranges, data and unplayable matches; OSError files and disk.
    found += (ValueError, OSError, PermissionError, NotImplementedError)
    if "arena.core" in sys.modules:
        from arena.core import IllegalMove

        found += (IllegalMove,)
    return found


def explain(error: Exception) -> str:
    """The error in one or two lines, with near matches where a name was mistyped."""
    text = str(error).strip()
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(match.group(1))
    if match := re.search(r"In '([^']+)': Could not find '([^']+)'", text):
        group, _, option = match.group(2).rpartition("/")
        group = group.removeprefix("conf/")
        return f"{group} has no option {option}{near(option, _options(group))}"
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, option = match.group(1).rpartition("/")
        return f"{group} has no option {option}{near(option, _options(group))}"
    if match := re.search(r"key '([^']+)'", text, re.IGNORECASE):
        text = text.splitlines()[0]
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        text = "the disk is full; free some room and start again: finished rounds are kept"
    elif isinstance(error, OSError) and error.filename:
        text = os.fsdecode(error.filename) + f": {error.strerror}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n       ".join(lines[:2]) or type(error).__name__


def _options(group: str) -> list[str]:
    return [path.stem for path in (CONF / group).glob("*.yaml")]


def _unknown_key(key: str) -> str:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config: Any = compose("config")
    known = sorted(_keys(config, ""))
    groups = [str(path.parent.relative_to(CONF)) for path in CONF.glob("**/*.yaml")]
    return f"no option {key}{near(key, [*known, *groups])}"


def _keys(node: Any, prefix: str) -> list[str]:
    from omegaconf import DictConfig

    if not isinstance(node, DictConfig):
        return [prefix]
    found = [prefix] if prefix else []
    for key in node:
        value = node._get_node(key)
        found += _keys(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _task(config: Any) -> None:
    """One run: check, claim the folder, build, study."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    now = HydraConfig.get()
    folder = Path(now.runtime.output_dir)
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        check(plain)
        _run(plain, folder, now)
    except _mistakes() as error:
        if now.mode == RunMode.RUN or os.environ.get("ARENA_TRACEBACK"):
            raise
        # One unplayable corner of a sweep must not lose the others.
        _failures[folder.name] = explain(error)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "failed.txt").write_text(explain(error) + "\n", encoding="utf-8")
        print(f"{folder.name} failed: {explain(error)}", file=sys.stderr)


def _run(plain: dict[str, Any], folder: Path, now: Any) -> None:
    import torch

    from arena.log import claim
    from arena.studies.study import Setup

    torch.set_num_threads(plain["threads"])
    made = {key: build(plain[key]) for key in ("game", "order", "attacker", "defender", "study")}
    groups = ("order", "threat", "data", "learner", "defender/strategy", "experiment")
    chosen = {name: now.runtime.choices.get(name) for name in groups}
    hparams = {name: choice for name, choice in chosen.items() if choice}
    for override in now.overrides.task:
        key, _, value = override.lstrip("+").partition("=")
        if "." in key:
            hparams[key] = value
    setup = Setup(
        game=made["game"],
        players={"attacker": made["attacker"], "defender": made["defender"]},
        order=made["order"],
        seed=plain["seed"],
        batch_size=plain["batch_size"],
        folder=folder,
        config={key: value for key, value in plain.items() if key != "study"},
        hparams=hparams,
    )
    setup.arena()  # refuses an unplayable match before anything is written
    claim(folder, plain, list(now.overrides.task), hparams)
    (folder / "failed.txt").unlink(missing_ok=True)
    made["study"].run(setup)


if __name__ == "__main__":
    main()
