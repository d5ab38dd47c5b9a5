"""What is left of a game where other libraries take it."""

import sys

import numpy as np
import pytest
from test_empirical_values import PENNIES, SPLIT

from arena.empirical.conversions import normal_form, to_nashpy, to_openspiel
from arena.solvers.nfg import read, write


def test_means_with_their_names():
    form = normal_form(SPLIT, "split")
    assert (form.title, form.players) == ("split", ("defender", "attacker"))
    assert (form.rows, form.columns) == (("m0", "m1"), ("a0", "a1"))
    assert form.payoffs[0].tolist() == [[-0.5, 0], [0, -0.5]]
    assert form.payoffs[1].tolist() == [[0.5, 0], [0, 0.5]]


def test_through_a_file_and_back():
    form = normal_form(PENNIES)
    back = read(write(form))
    assert (back.rows, back.columns) == (form.rows, form.columns)
    assert all(map(np.array_equal, back.payoffs, form.payoffs))


@pytest.mark.parametrize(
    ("convert", "module", "package"),
    [(to_nashpy, "nashpy", "nashpy"), (to_openspiel, "pyspiel", "open_spiel")],
)
def test_what_is_not_installed_is_named(convert, module, package, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"pip install {package}, or write the game to a file"):
        convert(PENNIES)
