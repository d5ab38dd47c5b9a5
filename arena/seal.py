"""What a strategy may look at and must not change: compared by content, before and after a turn.

A version counter misses what is changed through a numpy view, `.data` or a hook, and says nothing
of a module's mode. So a seal hashes content: every tensor and array that can be reached, and of
every module its mode, its hooks, its type, its settings and what its parameters require.
"""

import hashlib
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_PLAIN = (str, bytes, int, float, complex, bool, type(None), type, range, slice)
_CONTAINERS = {dict, list, tuple, set, OrderedDict}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class _Content:
    """What a value held at one moment.

    Attributes:
        value: The value.
        digests: A hash of each tensor and array in it, and of each module's mode, by identity.
        objects: All objects in it, held lest another takes their identity.
    """

    value: Any
    digests: Mapping[int, bytes]
    objects: Mapping[int, Any]

    def kept(self, now: "_Content") -> bool:
        """Whether all of it is still there: unchanged, or moved to another object."""
        anywhere = set(now.digests.values())
        return all(
            now.digests[which] == digest if which in now.digests else digest in anywhere
            for which, digest in self.digests.items()
        )


class Seal:
    """Remembers the content of named values, and tells which of them have changed since.

    What has been added does not count: a model or a board may make itself a cache.
    """

    def __init__(self) -> None:
        self._known: dict[str, _Content] = {}

    def close(self, values: Mapping[str, Any]) -> None:
        """Seals values: tensors, arrays, modules, and objects that hold any of these.

        An object that was sealed under its name before is not read again.
        """
        known = self._known
        self._known = {
            name: known[name] if name in known and known[name].value is value else _content(value)
            for name, value in values.items()
        }

    def broken(self) -> list[str]:
        """The names of sealed values of which anything has changed or is gone."""
        return [
            name
            for name, content in self._known.items()
            if not content.kept(_content(content.value))
        ]


def _content(value: Any) -> _Content:
    """What a value holds now.

    Of a module, its parameters, buffers, parts and mode. Its other attributes may be what it
    remembers of its last pass. Whole numbers and text outside tensors do not count either: a
    model may count its own calls.
    """
    digests: dict[int, bytes] = {}
    objects: dict[int, Any] = {}
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if _hollow(part) or id(part) in objects:
            continue
        objects[id(part)] = part
        if isinstance(part, Tensor):
            if not is_lazy(part):
                kind = tuple(part.shape), part.dtype, part.requires_grad
                digests[id(part)] = _hash(kind, _bytes(part))
        elif isinstance(part, np.ndarray):
            if part.dtype != object:
                content = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
                digests[id(part)] = _hash((part.shape, part.dtype), content)
        else:
            if isinstance(part, nn.Module):
                digests[id(part)] = _hash(_mode(part), b"")
            waiting.extend(_parts(part))
    return _Content(value, digests, objects)


def _hash(kind: object, content: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(repr(kind).encode())
    digest.update(content)
    return digest.digest()


def _hollow(value: Any) -> bool:
    """Whether there is nothing to hash in a value: most parts of a module are empty."""
    if isinstance(value, _PLAIN):
        return True
    return type(value) in _CONTAINERS and not value


def _bytes(tensor: Tensor) -> bytes | memoryview:
    try:
        plain = tensor.detach().to_dense().cpu().contiguous()
        return plain.reshape(-1).view(torch.uint8).numpy().data
    except (RuntimeError, ValueError):  # it has no values yet, or none that can be read
        return b""


def _mode(module: nn.Module) -> tuple[object, ...]:
    """What decides how a module passes, besides its tensors."""
    own = vars(module)
    hooks = [sorted(map(id, own.get(name, {}).values())) for name in _HOOKS]
    numbers = sorted((name, each) for name, each in own.items() if isinstance(each, float))
    try:
        settings = module.extra_repr()
    except Exception:  # a user's own may fail; then it tells nothing
        settings = ""
    return type(module), module.training, hooks, "forward" in own, numbers, settings


def _parts(value: Any) -> Iterator[Any]:
    """The objects that a value holds."""
    if isinstance(value, nn.Module):
        for held in (value._parameters, value._buffers, value._modules):
            yield from held.values()
    elif isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif isinstance(value, partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, types.MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, types.FunctionType):
        yield from map(_held, value.__closure__ or ())
        yield value.__defaults__
    elif not isinstance(value, types.ModuleType):
        yield from _state(value)


def _held(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet bound
        return None


def _state(value: Any) -> Iterator[Any]:
    """The attributes of an object; of one that keeps them in C, what it would pickle.

    Of a dataclass the fields: what it has cached besides follows from them.
    """
    if is_dataclass(value):
        yield from (getattr(value, each.name, None) for each in fields(value))
        return
    found = getattr(value, "__dict__", None)
    if found is None:
        try:
            found = value.__getstate__()
        except Exception:  # an object that refuses to tell its state has none to compare
            return
    if isinstance(found, Mapping):
        yield from list(found.values())
    elif isinstance(found, tuple):
        yield from found


def _reseed(state: bytes) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))


def _deterministic(on: bool) -> None:
    torch.use_deterministic_algorithms(on)


def _on(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _tf32(on: bool) -> None:
    torch.backends.cudnn.allow_tf32 = on


def _benchmark(on: bool) -> None:
    torch.backends.cudnn.benchmark = on


_SETTINGS: Mapping[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "default device": (torch.get_default_device, _on),
    "number of threads": (torch.get_num_threads, torch.set_num_threads),
    "deterministic algorithms": (torch.are_deterministic_algorithms_enabled, _deterministic),
    "matmul precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "cuDNN's TF32": (lambda: torch.backends.cudnn.allow_tf32, _tf32),
    "cuDNN's benchmark mode": (lambda: torch.backends.cudnn.benchmark, _benchmark),
    "random state": (lambda: torch.get_rng_state().numpy().tobytes(), _reseed),
}
"""What every computation in the process depends on: by name, how it is read and how it is set."""


@dataclass(frozen=True)
class TorchState:
    """torch's global settings at one moment.

    Attributes:
        values: By the names of `_SETTINGS`.
    """

    values: Mapping[str, Any]

    @classmethod
    def now(cls) -> "TorchState":
        """What they are."""
        return cls({name: read() for name, (read, _) in _SETTINGS.items()})

    def restore(self) -> list[str]:
        """Sets them as they were, and names those that were different."""
        now = TorchState.now().values
        changed = [name for name, value in self.values.items() if now[name] != value]
        for name in changed:
            _SETTINGS[name][1](self.values[name])
        return changed
