"""`arena study=selftest`: expected, obtained, source; and a status that fails."""

import re
from dataclasses import replace

from arena.solvers import published
from arena.studies import selftest


def test_all_published_games_hold(shell, tmp_path):
    said = shell("study=selftest")
    assert said.code == 0, said.err
    count = len(published.CLAIMS)
    assert f"{count} of {count} are as published" in said.out
    assert "Conitzer & Sandholm 2006" in said.out and "WRONG" not in said.out
    assert (tmp_path / "runs" / "selftest" / "default" / "report.html").is_file()


def test_a_wrong_one_is_a_failure(shell, monkeypatch):
    first, *others = published.CLAIMS
    wrong = replace(first, expected=first.expected + 1)
    monkeypatch.setattr(selftest, "CLAIMS", (wrong, *others))
    said = shell("study=selftest")
    assert said.code == 2 and "WRONG" in said.out
    assert re.fullmatch(r"arena: 1 of \d+ solutions differ from the published ones\n", said.err)
