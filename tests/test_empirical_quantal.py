"""Quantal responses of an empirical game: the path, its residuals, and where it ends early."""

import numpy as np
import pytest
from test_empirical_values import game

from arena.empirical.quantal import quantal_path

PLAYED = game(np.array([[0.0, 1.0], [0.5, 0.25]])[:, :, None].repeat(4, 2))


def test_each_point_answers_itself_up_to_its_residual():
    found = quantal_path([PLAYED], (20, 0, 2, 2))
    assert [point.rationality for point in found.points] == [0, 2, 20]
    assert found.refusal is None
    for point in found.points:
        weights = np.exp(point.rationality * -PLAYED.costs["defender"].mean(2) @ point.attacks)
        off = np.abs(weights / weights.sum() - point.models).max()
        assert off <= point.residual + 1e-15 <= 1e-9


def test_a_path_that_ends_early_says_why(monkeypatch):
    monkeypatch.setattr("arena.solvers.quantal._STEPS", 6)
    found = quantal_path([PLAYED], (0, 0.1, 1000))
    assert [point.rationality for point in found.points] == [0, 0.1]
    assert "did not reach rationality 1000" in found.refusal


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="at least 0 and finite"):
        quantal_path([PLAYED], (1, -1))
