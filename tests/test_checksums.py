"""Damage to what is kept is found, wherever the bit is, and the file named."""

import json

import numpy as np
import pytest
import torch
import yaml
from damage import each_flipped
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load, load_file, save

from arena.checksums import (
    opened,
    opened_lines,
    opened_records,
    opened_tensors,
    opened_yaml,
    sealed,
    sealed_line,
    sealed_record,
    sealed_tensors,
    sealed_yaml,
)


@given(content=st.binary(max_size=100))
def test_what_is_sealed_is_opened(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("sealed") / "file"
    path.write_bytes(sealed(content))
    assert opened(path, "") == content


@given(contents=st.lists(st.binary(max_size=20)), more=st.binary(max_size=40))
def test_records_are_read_as_far_as_they_count(tmp_path_factory, contents, more):
    path = tmp_path_factory.mktemp("sealed") / "file"
    records = b"".join(map(sealed_record, contents))
    path.write_bytes(records + more)
    assert list(opened_records(path, len(records), "")) == contents


@given(
    lines=st.lists(
        st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.lists(st.text()))).filter(
            lambda line: line and "crc" not in line
        )
    )
)
def test_lines_are_json_with_a_last_key(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("sealed") / "file"
    path.write_bytes(b"".join(map(sealed_line, lines)))
    assert opened_lines(path, "") == lines
    for text, line in zip(path.read_text().splitlines(), lines, strict=True):
        read = json.loads(text)
        assert list(read)[-1] == "crc" and read.pop("crc") and read == line


TENSORS = {"b": np.arange(6, dtype=np.int8).reshape(2, 3), "a": np.array([0.5, np.nan])}
SAID = {"z": "\n", "what": '"checksum":"00000000000000000000000000000000"', "name": "Größe"}


def test_others_read_sealed_tensors(tmp_path):
    path = tmp_path / "file.safetensors"
    path.write_bytes(sealed_tensors(save(TENSORS, SAID)))
    content, said = opened_tensors(path, "")
    assert {key: said[key] for key in SAID} == SAID and set(said) == {*SAID, "checksum"}
    with safe_open(path, "numpy") as file:
        assert file.metadata() == said
    for found in (load_file(path), load(content)):
        assert found.keys() == TENSORS.keys()
        assert all(
            np.array_equal(found[k], TENSORS[k], equal_nan=True) for k in TENSORS if k == "a"
        )
        assert np.array_equal(found["b"], TENSORS["b"])
    # safetensors orders metadata by chance; sealed tensors are the same bytes every time.
    assert len({sealed_tensors(save(TENSORS, SAID)) for _ in range(20)}) == 1


def test_others_read_sealed_yaml(tmp_path):
    path = tmp_path / "file.yaml"
    for text in ("a: é # checksum: none\nb: []\n", "[]\n"):
        path.write_bytes(sealed_yaml(text))
        assert opened_yaml(path, "") == text
        assert yaml.safe_load(path.read_text()) == yaml.safe_load(text)


def test_torch_reads_a_sealed_file(tmp_path):
    path = tmp_path / "file.pt"
    torch.save({"x": torch.ones(3)}, path)
    path.write_bytes(sealed(path.read_bytes()))
    assert torch.load(path, weights_only=True)["x"].tolist() == [1.0, 1.0, 1.0]


FORMATS = {
    "bytes": (sealed(b"content"), opened),
    "records": (
        sealed_record(b"one") + sealed_record(b"another"),
        lambda path, remedy: list(opened_records(path, len(FORMATS["records"][0]), remedy)),
    ),
    "lines": (sealed_line({"a": 1}) + sealed_line({"b": "é"}), opened_lines),
    "tensors": (sealed_tensors(save(TENSORS, SAID)), opened_tensors),
    "yaml": (sealed_yaml("a: é # checksum: none\nb: []\n"), opened_yaml),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_no_flipped_bit_goes_unnoticed(tmp_path, kind):
    content, reader = FORMATS[kind]
    path = tmp_path / "file"
    path.write_bytes(content)
    for _ in each_flipped(path, samples=800):
        with pytest.raises(ValueError, match=r"file is damaged \(.+\); make it again"):
            reader(path, "make it again")
    reader(path, "make it again")


@pytest.mark.parametrize("kind", set(FORMATS) - {"lines"})  # which may be torn
def test_no_missing_byte_goes_unnoticed(tmp_path, kind):
    content, reader = FORMATS[kind]
    path = tmp_path / "file"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"file is damaged \(.+\); make it again"):
            reader(path, "make it again")


def test_what_never_had_a_checksum_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(save(TENSORS, SAID))
    for reader in (opened, opened_tensors):
        with pytest.raises(ValueError, match="file is damaged"):
            reader(path, "make it again")
