"""Files that are written completely or not at all, and locks between processes."""

import fcntl
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def packed(content: Mapping[str, Any]) -> bytes:
    """Tensors and plain data as the bytes of a file of torch's."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def unpacked(content: bytes, device: "torch.device | str" = "cpu") -> dict[str, Any]:
    """What was `packed`, its tensors on this device; loading it runs no code."""
    import torch

    found: dict[str, Any] = torch.load(io.BytesIO(content), device, weights_only=True)
    return found


def atomically(path: Path, content: bytes) -> None:
    """Replaces the content of `path`, completely or not at all.

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


def append(path: Path, at: int, content: bytes) -> None:
    """Writes content after the first `at` bytes of a file, in place of anything that follows them.

    Raises:
        OSError: If the disk is full, say; then these first bytes are all that is left.
    """
    with open(path, "ab", buffering=0) as file:
        file.truncate(at)
        left = memoryview(content)
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(at)
            raise


@contextmanager
def held(lock: Path, wait: bool = False) -> Iterator[None]:
    """Holds what `lock` stands for against other processes, and threads of this one.

    Args:
        lock: A file without content. It is made, with its folder, and removed again; a process
            that is killed leaves it behind, which does no harm.
        wait: Whether to wait for a process that holds it.

    Raises:
        BlockingIOError: If another process holds it, and `wait` is False.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with _locked(lock, wait):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def _locked(lock: Path, wait: bool) -> Iterator[None]:
    while True:
        with open(lock, "a") as file:  # closing it, or dying, releases it
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise BlockingIOError(
                    f"{lock.parent} is being written by another process; wait for it, or choose "
                    "another folder with hydra.run.dir=..."
                ) from None
            # Whoever held it has removed it: a third process may already hold its successor.
            if _is(lock, file.fileno()):
                yield
                return


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
