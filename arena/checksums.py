"""Checksums of what is kept: damaged files are refused, and never read as something else.

Each format carries its own: a trailer after bytes, a comment after YAML, a last key in each line of
JSON, an entry in the header of safetensors. All but records remain readable by other programs.
"""

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_MAGIC = b"\x00arena\x00\x01"
_DIGEST = 16  # bytes
_LENGTH = struct.Struct("<Q")
_ENTRY = re.compile(rb'"checksum":"([0-9a-f]{%d})"' % (2 * _DIGEST))
_BLANK = "0" * (2 * _DIGEST)
_CRC = re.compile(rb'(.*), "crc": "([0-9a-f]{8})"\}', re.DOTALL)


def damaged(path: Path, why: object, remedy: str) -> ValueError:
    """The error that names a damaged file and says what to do."""
    return ValueError(f"{path} is damaged ({why}); {remedy}")


def sealed(content: bytes) -> bytes:
    """The content with its checksum after it; `torch.load` overlooks that."""
    return content + _MAGIC + _hash(content)


def opened(path: Path, remedy: str) -> bytes:
    """What a file holds that was written as `sealed(content)`.

    Args:
        path: The file.
        remedy: What a user should do if it is damaged.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, naming it and the remedy.
    """
    try:
        return _verified(path.read_bytes())
    except _Mismatch as error:
        raise damaged(path, error, remedy) from None


def sealed_yaml(text: str) -> bytes:
    """The text, which ends its last line, with its checksum in a comment after it."""
    content = text.encode()
    return content + b"# checksum: %s\n" % _hash(content).hex().encode()


def opened_yaml(path: Path, remedy: str) -> str:
    """The text of a file that was written as `sealed_yaml(text)`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, naming it and the remedy.
    """
    content = path.read_bytes()
    text = content[: content.rfind(b"# checksum: ")]
    if not text or content != sealed_yaml(text.decode(errors="replace")):
        raise damaged(path, "it does not fit its checksum", remedy)
    return text.decode()


def sealed_record(content: bytes) -> bytes:
    """The content as one of many in a file that grows, see `opened_records`."""
    return sealed(_LENGTH.pack(len(content)) + content)


def opened_records(path: Path, length: int, remedy: str) -> Iterator[bytes]:
    """The contents of the records in the first `length` bytes of a file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, or ends before `length`, naming it and the remedy.
    """
    with open(path, "rb") as file:
        whole = file.read(length)
    if len(whole) < length:
        raise damaged(path, f"it ends after {len(whole)} of {length} bytes", remedy)
    begin = 0
    while begin < length:
        try:
            content, begin = _record(whole, begin)
        except _Mismatch as error:
            raise damaged(path, f"{error}, from byte {begin} on", remedy) from None
        yield content


def _record(whole: bytes, begin: int) -> tuple[bytes, int]:
    """The content of the record that begins there, and where it ends."""
    size = int.from_bytes(whole[begin : begin + _LENGTH.size], "little")
    end = begin + _LENGTH.size + size + len(_MAGIC) + _DIGEST
    return _verified(whole[begin:end])[_LENGTH.size :], end


def sealed_line(line: Mapping[str, Any]) -> bytes:
    """A line of JSON whose last key, `crc`, is the checksum of what stands before it."""
    text = json.dumps(line).encode().removesuffix(b"}")
    return text + b', "crc": "%08x"}\n' % zlib.crc32(text)


def opened_lines(path: Path, remedy: str) -> list[dict[str, Any]]:
    """The lines of a file of `sealed_line`s, without their checksums.

    The last line is dropped if it is torn: not written to its end when its writer was killed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is damaged, naming the file, the line's number and the remedy.
    """
    *lines, last = path.read_bytes().split(b"\n")
    if _CRC.fullmatch(last[:-1]):  # whole but for what should be the end of the line
        lines.append(last)
    found = []
    for number, line in enumerate(lines, 1):
        parts = _CRC.fullmatch(line)
        if parts is None or zlib.crc32(parts[1]) != int(parts[2], 16):
            raise damaged(path, f"line {number} does not fit its checksum", remedy)
        found.append(json.loads(parts[1] + b"}"))
    return found


def sealed_tensors(packed: bytes) -> bytes:
    """The bytes of a safetensors file with a checksum of all of them in its metadata."""
    header, begin = _header(packed)
    metadata = {**header.pop("__metadata__", {}), "checksum": _BLANK}
    header = {"__metadata__": dict(sorted(metadata.items())), **header}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    head = _LENGTH.pack(len(text)) + text
    start, end = _checksum_in(head)
    checksum = _hash(head, packed[begin:]).hex().encode()
    return b"".join((head[:start], checksum, head[end:], packed[begin:]))


def opened_tensors(path: Path, remedy: str) -> tuple[bytes, dict[str, str]]:
    """The bytes of a safetensors file that was written as `sealed_tensors`, and its metadata.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, naming it and the remedy.
    """
    packed = path.read_bytes()
    start, end = _checksum_in(packed)
    if start == end:
        raise damaged(path, "it has no checksum", remedy)
    whole = memoryview(packed)
    if _hash(whole[:start], _BLANK.encode(), whole[end:]).hex().encode() != packed[start:end]:
        raise damaged(path, "it does not fit its checksum", remedy)
    metadata: dict[str, str] = _header(packed)[0]["__metadata__"]
    return packed, metadata


def _checksum_in(packed: bytes) -> tuple[int, int]:
    """Where the checksum of a safetensors file begins and ends; both are 0 if there is none."""
    entry = _ENTRY.search(packed)
    return (0, 0) if entry is None else entry.span(1)


def _header(packed: bytes) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its tensors begin."""
    (length,) = _LENGTH.unpack_from(packed)
    begin = _LENGTH.size + length
    return json.loads(packed[_LENGTH.size : begin]), begin


class _Mismatch(Exception):
    pass


def _verified(whole: bytes) -> bytes:
    """The content of sealed bytes."""
    content, trailer = whole[: -len(_MAGIC) - _DIGEST], whole[-len(_MAGIC) - _DIGEST :]
    if not trailer.startswith(_MAGIC):
        raise _Mismatch("it is cut off, or of an older version")
    if trailer != _MAGIC + _hash(content):
        raise _Mismatch("it does not fit its checksum")
    return content


def _hash(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for part in parts:
        digest.update(part)
    return digest.digest()
