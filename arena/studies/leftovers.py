"""Folders that hydra makes for a command before anybody knows whether it can be run.

Hydra tells its callbacks before it makes them, and `arena` discards them if the command is refused.
"""

from contextlib import suppress
from pathlib import Path

_NAMES = {"failed.txt", "multirun.yaml", ".lock", ".run.lock"}
_made: list[Path] = []


def expect(folder: Path) -> None:
    """Notes which folders a command is about to make: `folder` and those around it."""
    folder = folder.absolute()
    _made[:] = [each for each in (folder, *folder.parents) if not each.exists()]


def forget() -> None:
    """Leaves what was noted as it is."""
    _made.clear()


def discard() -> None:
    """Removes the noted folders if they hold nothing but configurations, locks and refusals.

    A folder that was there before the command stays, and so does everything in it.
    """
    if _made and all(_is_leftover(path) for path in _made[0].rglob("*") if not path.is_dir()):
        below = sorted(_made[0].rglob("*"), reverse=True)  # what a folder holds before the folder
        for path in (*below, *_made):
            # Another process may have begun to use it.
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
    forget()


def _is_leftover(path: Path) -> bool:
    return path.name in _NAMES or path.parent.name == ".hydra"
