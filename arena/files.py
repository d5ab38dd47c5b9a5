"""Files that are written wholly or not at all, and folders that one process writes at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def atomically(path: Path, content: bytes) -> None:
    """Replaces what `path` holds: wholly or not at all.

    Raises:
        OSError: If the disk is full, say; the old file stays.
    """
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        with open(scratch, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


@contextmanager
def held(lock: Path, wait: bool = False) -> Iterator[None]:
    """Holds what `lock` stands for against other processes; its folder is made if it is not there.

    Args:
        lock: A file of no content.
        wait: Whether to wait for a process that holds it.

    Raises:
        BlockingIOError: If another process holds it, and `wait` is False.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a") as file:  # closing it, or dying, lets go
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise BlockingIOError(
                f"{lock.parent} is being written by another process; wait for it, or choose "
                "another folder with hydra.run.dir=..."
            ) from None
        yield
