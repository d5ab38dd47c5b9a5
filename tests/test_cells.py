"""What is kept of cells that were played: to the bit, in little room, and whatever is killed."""

import sqlite3
import time
from dataclasses import dataclass

import numpy as np
import pytest
from damage import each_flipped
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from arena.empirical.cells import Cells
from arena.executors.processes import Processes

REALS = st.floats(allow_nan=True, allow_infinity=True)
FEW = st.sampled_from([0.0, 1.0, -1.0, 0.25, 100.0])


def kept(path, costs):
    cells = Cells(path)
    cells.keep({bytes([i]): one for i, one in enumerate(costs)})
    return cells.find([bytes([i]) for i in range(len(costs))])


@given(
    costs=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 20)).flatmap(
        lambda shape: st.one_of(arrays(float, shape, elements=each) for each in (REALS, FEW))
    )
)
def test_what_is_kept_is_found_again(tmp_path_factory, costs):
    found = kept(tmp_path_factory.mktemp("cells") / "cells", costs)
    assert found.which.tolist() == list(range(len(costs)))
    np.testing.assert_array_equal(found.costs, costs.transpose(1, 0, 2))


@pytest.mark.parametrize("values", [(0, 1), (-1, 0), (3, 3)])
def test_two_values_take_a_bit_an_entry(tmp_path, values):
    costs = np.random.default_rng(0).choice(values, size=(100, 2, 1000)).astype(float)
    found = kept(tmp_path / "cells", costs)
    assert found.costs.dtype == np.int8
    # Two bits for each of 1,000 examples are 250 bytes; 100 for the rest, and a page of SQLite's
    # is a quarter empty at most on the average.
    assert (tmp_path / "cells").stat().st_size < 100 * (250 + 100) * 4 / 3 + 3 * 4096


def test_only_what_is_there_is_found(tmp_path):
    cells = Cells(tmp_path / "deep" / "cells")
    assert cells.find([b"a"]) is None and not (tmp_path / "deep").exists()
    cells.keep({b"b": np.ones((1, 2)), b"c": np.zeros((1, 2))})
    found = cells.find([b"a", b"c", b"b", b"c"])
    assert found.which.tolist() == [1, 2, 3]
    assert found.costs.tolist() == [[[0, 0], [1, 1], [0, 0]]]
    assert cells.find([b"a"]) is None and cells.find([]) is None


def test_what_is_there_already_stays(tmp_path):
    cells = Cells(tmp_path / "cells")
    cells.keep({b"a": np.ones((1, 2))})
    cells.keep({b"a": np.zeros((1, 2)), b"b": np.zeros((1, 2))})
    assert cells.find([b"a", b"b"]).costs.tolist() == [[[1, 1], [0, 0]]]


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut off":
        content = content[: len(content) // 2]
    elif how == "no database":
        content = b"something else\n" * 100
    elif how == "another database":
        path.unlink()
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE cells (name TEXT)")
        other.close()
        return
    else:  # a bit of the last costs
        content[content.rindex(b"\xaa" * 60) + 30] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut off", "no database", "another database", "a bit"])
def test_damage_is_found_and_named(tmp_path, how):
    path = tmp_path / "cells"
    costs = np.tile([1.0, 0.0], (50, 1, 500))  # in bits, 10101010
    kept(path, costs)
    damage(path, how)
    with pytest.raises(ValueError, match=r"cells is damaged \(.*\); remove it, and its cells"):
        Cells(path).find([bytes([i]) for i in range(50)])


def test_no_flipped_bit_gives_other_costs(tmp_path):
    """A cell whose key is damaged is not found, and is played again; no other costs are."""
    path = tmp_path / "cells"
    costs = np.random.default_rng(0).choice([0.0, 1.0], size=(20, 2, 300))
    costs[1::2] += 0.25 * np.arange(300)
    keys = [bytes([i] * 32) for i in range(len(costs))]
    Cells(path).keep(dict(zip(keys, costs, strict=True)))
    refused = 0
    for _ in each_flipped(path, samples=400):
        try:
            found = Cells(path).find(keys)
        except (ValueError, OSError) as error:
            assert "cells" in str(error)
            refused += 1
        else:
            which = [] if found is None else found.which
            assert all(np.array_equal(found.costs[:, n], costs[i]) for n, i in enumerate(which))
    assert refused > 100  # many pages have room left, in which a bit says nothing


def test_a_folder_that_cannot_be_written_is_an_error_of_the_system(tmp_path):
    (tmp_path / "cells").mkdir()
    with pytest.raises(OSError, match="cells"):
        Cells(tmp_path / "cells").keep({b"a": np.ones((1, 2))})


@dataclass(frozen=True)
class Keep:
    """Begins to keep when two of them are there."""

    cells: Cells

    def __call__(self, number):
        self.cells.path.with_name(f"here {number}").touch()
        while len(list(self.cells.path.parent.glob("here *"))) < 2:
            time.sleep(0.01)
        for i in range(60):
            self.cells.keep({b"%d %d" % (number, i): np.full((1, 8), number)})


def test_processes_share_a_file(tmp_path):
    cells = Cells(tmp_path / "cells")
    assert len(list(Processes(2).results(Keep(cells), [0, 1]))) == 2
    found = cells.find([b"%d %d" % (number, i) for number in range(2) for i in range(60)])
    assert found.costs[0, :, 0].tolist() == np.repeat([0, 1], 60).tolist()
