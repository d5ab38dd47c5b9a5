"""The command `arena`: reads a configuration, runs its study, and keeps the record.

Nothing heavy is imported before the configuration is known to be sound.
"""

import argparse
import errno
import hashlib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from arena.executors.executor import Exited
from arena.fields import Count, problem
from arena.schema import ConfigError, build, check, check_knowledge, derives, near, node
from arena.studies.leftovers import discard, forget

_TRACEBACK = "ARENA_TRACEBACK"
_SWEEP = "ARENA_SWEEP"  # in the environment, so that a launcher's worker processes agree
_USERS_MISTAKE = 2
_LINF = "arena.actions.lp.Linf"
_INTERRUPTED = 130  # as shells say of a process that SIGINT ended
PLAYERS = ("attacker", "defender")
CONF = next(
    path
    for path in (Path(__file__).parent / "conf", Path(__file__).parent.parent / "conf")
    if path.is_dir()
)


def run_name(overrides: Sequence[str]) -> str:
    """The name of a run's folder: its overrides, or `default`; short, and the same every time.

    A slash in a value, as in `eps=8/255`, becomes `_`: a dot would read as another number.
    """
    mine = [o for o in overrides if not o.lstrip("+~").startswith(("hydra", "study="))]
    slashed = (override.partition("=") for override in mine)
    plain = (key + equals + value.replace("/", "_") for key, equals, value in slashed)
    name = ",".join(re.sub(r"[^\w.,=+~-]+", ".", override) for override in plain) or "default"
    if len(name) <= 100:
        return name
    return f"{name[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def main() -> None:
    """Runs `arena` with the arguments of the process.

    A user's mistake is one or two lines on standard error and exit status 2, without a traceback
    (ARENA_TRACEBACK=1 shows it). A command that is refused leaves no folder. Ctrl-C leaves what
    was finished, and exit status 130.
    """
    forget()
    try:
        _start(sys.argv[1:])
    except KeyboardInterrupt:
        print("\narena: interrupted; start the same command again to go on", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except BaseException:
        discard()
        raise


def _start(arguments: Sequence[str]) -> None:
    import hydra
    from omegaconf import OmegaConf

    own = [a for a in arguments if not a.startswith("-") and "=" in a]
    os.environ[_SWEEP] = run_name(own)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("sweep_name", lambda: os.environ[_SWEEP], replace=True)
    # With this, hydra raises errors instead of printing them and exiting.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _failures.clear()
    try:
        _find_users_classes(_parsed(arguments).config_dir)
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(_task)()
    except _mistakes() as error:
        _refuse(error)
    if _failures:
        print(f"arena: {len(_failures)} of the sweep's runs failed:", file=sys.stderr)
        for name, why in _failures.items():
            print(f"  {name}: {why}", file=sys.stderr)
        sys.exit(_USERS_MISTAKE)


_failures: dict[str, str] = {}


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line as hydra will read it.

    Raises:
        ConfigError: On an option that hydra does not know (hydra would answer with its usage), and
            on a callback for hydra to call: hydra makes one of whatever it is given.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        known, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from None
    if unknown and unknown[0].startswith("-"):
        options = re.findall(r"--[\w-]+", parser.format_usage())
        raise ConfigError(f"no option {unknown[0]}{near(unknown[0], options)}")
    if unknown:
        raise ConfigError(f"{unknown[0]} stands after an option; put all options last")
    for override in known.overrides:
        if re.match(r"\+*hydra(\.callbacks[^=]*)?=", override):
            raise ConfigError(f"{override}: hydra.callbacks cannot be set from the command line")
    return known


def _find_users_classes(config_dir: str | None) -> None:
    """Makes importable what lies where the command is given, or beside the user's own yaml."""
    folders = [Path.cwd()]
    if config_dir:
        folders.append(Path(config_dir).resolve())
    sys.path[:0] = map(str, folders)


def _mistakes() -> tuple[type[Exception], ...]:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    found: tuple[type[Exception], ...] = (HydraException, OmegaConfBaseException, YAMLError)
    # A ValueError is about the configuration, a range, the data or an unplayable match; an OSError
    # about files and the disk.
    found += (ValueError, OSError, NotImplementedError, Exited)
    if "arena.core" in sys.modules:
        from arena.classification import Refuted
        from arena.core import IllegalMove

        found += (IllegalMove, Refuted)
    return found


def _refuse(error: BaseException) -> NoReturn:
    if os.environ.get(_TRACEBACK):
        raise error
    print(f"arena: {explain(error)}", file=sys.stderr)
    sys.exit(_USERS_MISTAKE)


def explain(error: BaseException) -> str:
    """The error in one or two lines, with near matches where a name was mistyped."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError

    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        text = f"{group} has no option {option}{near(option, error.options or [])}"
    elif isinstance(error.__cause__, ConfigAttributeError | ConfigKeyError):
        # The message names the override, but the wrong key may be inside its value.
        key = error.__cause__.full_key or text.split("'")[1]
        text = _unknown_key(key, error.__cause__.parent_node)
    elif isinstance(error, OverrideParseException):
        text = f"{error.override} cannot be read as KEY=VALUE: {text}"
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        text = "the disk is full; free some space and start again: finished rounds are kept"
    elif isinstance(error, OSError) and error.filename:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    lines = [line.strip() for line in text.splitlines() if line.strip(" ^")]
    return "\n       ".join(lines[:2]) or type(error).__name__


def _unknown_key(key: str, parent: Any) -> str:
    groups = {str(path.parent.relative_to(CONF)) for path in CONF.glob("*/**/*.yaml")}
    keys = _keys(parent._get_root(), "")
    return f"no option {key}{near(key, [*keys, *groups], [str(name) for name in parent])}"


def _keys(node: Any, prefix: str) -> list[str]:
    from omegaconf import DictConfig

    if not isinstance(node, DictConfig):
        return [prefix]
    found = [prefix] if prefix else []
    for key in node:
        value = node._get_node(key)
        found += _keys(value, f"{prefix}.{key!s}" if prefix else str(key))
    return found


# Everything that stands at the top of a configuration, with its type.
_ROOT: dict[str, Any] = {
    "game": node("arena.games.game.Game"),
    "data": node("arena.data.source.Source") | None,
    "learner": node("arena.classification.Learner") | None,
    "order": node("arena.core.MoveOrder"),
    "attacker": node("arena.core.Player"),
    "defender": node("arena.core.Player"),
    "study": node("arena.studies.study.Study"),
    "protocol": node("arena.empirical.protocol.Protocol") | None,
    "seed": int,
    "batch_size": Count,
    "threads": Count,
    "models": str | None,
    "epochs": Count,
}


def _checked(config: Any, choices: Mapping[str, Any]) -> dict[str, Any]:
    """The composed configuration as plain data, each of its values of its type.

    Raises:
        ConfigError: On a value of another type, or on a key that arena does not read, unless a
            group of the user's own (in `choices`) set it.
    """
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    own = {group.partition("/")[0] for group in choices if not (CONF / group).is_dir()}
    for key in plain:
        if key not in _ROOT and key not in own:
            raise ConfigError(f"no option {key}{near(key, _ROOT)}")
    for key, kind in _ROOT.items():
        if found := problem(plain.get(key), kind):
            raise ConfigError(f"{key}={plain.get(key)} {found}")
    checked = {key: check(value, key, _ROOT.get(key, Any)) for key, value in plain.items()}
    check_knowledge({name: checked[name] for name in PLAYERS})
    return checked


def _task(config: Any) -> None:
    """One run: checks and builds the match, claims the folder, runs the study."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    now = HydraConfig.get()
    folder = Path(now.runtime.output_dir)
    try:
        checked = _checked(config, now.runtime.choices)
        for question in _wide_balls(checked):
            print(f"arena: {question}", file=sys.stderr)
        _run(checked, folder, now)
    except KeyboardInterrupt:
        raise
    except BaseException as raised:  # whatever a player raises ends this run, and no other
        error = Exited.of(raised) if isinstance(raised, SystemExit) else raised
        mistaken = isinstance(error, _mistakes())
        if now.mode == RunMode.RUN and mistaken:
            _refuse(error)
        if now.mode == RunMode.RUN or os.environ.get(_TRACEBACK):
            raise
        # A run that fails must not cost the sweep its other runs.
        if not mistaken:
            traceback.print_exc()
        _failures[folder.name] = explain(error)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "failed.txt").write_text(explain(error) + "\n", encoding="utf-8")
        print(f"{folder.name} failed: {explain(error)}", file=sys.stderr)


def _wide_balls(value: Any, path: str = "") -> Iterator[str]:
    """A question about each L-inf ball in a checked configuration that reaches the whole box."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from _wide_balls(item, f"{path}[{i}]")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _wide_balls(item, f"{path}.{key}" if path else str(key))
        if derives(str(value.get("_target_")), _LINF):
            eps, (low, high) = value["eps"], value.get("box", (0.0, 1.0))
            if eps >= high - low:
                meant = f"; was {eps:g}/255 meant?" if eps < 255 * (high - low) else ""
                yield (
                    f"{path}.eps={eps:g} reaches every input of the box [{low:g}, {high:g}]{meant}"
                )


def _run(plain: dict[str, Any], folder: Path, now: Any) -> None:
    import torch

    from arena.arena import Arena

    torch.set_num_threads(plain["threads"])
    game, order = build(plain["game"]), build(plain["order"])
    players = {name: build(plain[name]) for name in PLAYERS}
    Arena(game, players, order)  # refuses an unplayable match before anything else is imported

    from arena.log import claim
    from arena.store import Store
    from arena.studies.study import Setup

    hparams = _hparams(now)
    setup = Setup(
        game=game,
        players=players,
        order=order,
        seed=plain["seed"],
        batch_size=plain["batch_size"],
        folder=folder,
        store=Store(Path(plain["models"])) if plain["models"] else None,
        config={key: plain[key] for key in plain if key not in ("study", "models", "protocol")},
        hparams=hparams,
    )
    study = build(plain["study"])
    with claim(folder, plain, list(now.overrides.task), hparams):
        (folder / "failed.txt").unlink(missing_ok=True)
        study.run(setup)


def _hparams(now: Any) -> dict[str, str]:
    """How a run differs from others of its sweep: chosen options of groups, and overridden keys."""
    groups = ("order", "threat", "data", "learner", "defender/strategy", "experiment")
    choices = {name: now.runtime.choices.get(name) for name in groups}
    found = {name: choice for name, choice in choices.items() if choice}
    for override in now.overrides.task:
        key, _, value = override.lstrip("+").partition("=")
        if "." in key:
            found[key] = value
    return found


if __name__ == "__main__":
    main()
