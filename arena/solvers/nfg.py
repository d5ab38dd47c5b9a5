r"""Gambit's strategic game files, .nfg, of two players (Savani & Turocy, "Gambit", file formats).

A file of payoffs, and one of outcomes, where profiles share them by number:

    NFG 1 D "title" { "defender" "attacker" }     NFG 1 R "title" { "defender" "attacker" }
    { { "plain" } { "clean" "pgd" } }             { { "plain" } { "clean" "pgd" } }
    "comment"                                     "comment"
    0 0 -1 1                                      { { "right" 0, 0 } { "wrong" -1, 1 } } 1 2

The first player's strategy changes fastest. Instead of names, strategies may be counts, `{ 1 2 }`;
outcome 0 pays nothing. Numbers are written so that what is read is bit by bit what was written;
fractions, which Gambit writes too, are read to the nearest float64.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from arena.solvers.payoffs import Array, bimatrix

_TOKEN = re.compile(r'\s*(?:("(?:\\.|[^"\\])*")|([{}])|([^\s{}",]+),?|(\S))')
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(/\d+)?")


@dataclass(frozen=True)
class NormalForm:
    """A game of two players with names.

    Attributes:
        title: What it is called.
        players: The row player and the column player.
        rows: The m actions of the row player.
        columns: The n of the column player.
        payoffs: Of the row player and of the column player, [m, n] each.
        comment: Anything.

    Raises:
        ValueError: If names do not fit the payoffs, or a payoff is not finite.
    """

    title: str
    players: tuple[str, str]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    payoffs: tuple[Array, Array]
    comment: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "payoffs", bimatrix(*self.payoffs))
        named = len(self.rows), len(self.columns)
        if self.payoffs[0].shape != named:
            raise ValueError(f"{named} actions are named, payoffs are {self.payoffs[0].shape}")


def write(game: NormalForm) -> str:
    """The text of a file of payoffs."""

    def listed(words: Sequence[str]) -> str:
        return "{ " + " ".join(words) + " }"

    players = listed([_quoted(name) for name in game.players])
    strategies = [listed([_quoted(name) for name in names]) for names in (game.rows, game.columns)]
    lines = [f"NFG 1 D {_quoted(game.title)} {players}", listed(strategies), _quoted(game.comment)]
    row, column = game.payoffs
    for j in range(len(game.columns)):
        pairs = zip(row[:, j].tolist(), column[:, j].tolist(), strict=True)
        lines.append(" ".join(f"{_decimal(a)} {_decimal(b)}" for a, b in pairs))
    return "\n".join(lines) + "\n"


def read(text: str) -> NormalForm:
    """The game that a file's text describes.

    Raises:
        ValueError: If it is not such a file: another format, three players, a wrong number of
            payoffs, an outcome that is not there; with the line.
    """
    return _Reader(text).game()


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _decimal(number: float) -> str:
    # The shortest that reads back as the same float64; Gambit knows no + in exponents.
    return repr(number).replace("e+", "e").removesuffix(".0")


class _Reader:
    """Takes a file apart, token by token."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def game(self) -> NormalForm:
        for word in ("NFG", "1"):
            if (found := self.take()) != word:
                raise self.error(f"starts with {found!r} instead of NFG 1: not a strategic game")
        if (numbers := self.take()) not in ("R", "D"):
            raise self.error(f"numbers are R or D, not {numbers!r}")
        title = self.name("the title")
        players = self.names("players")
        if len(players) != 2:
            raise self.error(f"{len(players)} players, {players}; two are read here")
        rows, columns = self.strategies()
        comment = self.name("the comment") if self.peek().startswith('"') else ""
        shape = len(rows), len(columns)
        pays = self.by_outcome(shape) if self.peek() == "{" else self.by_profile(shape)
        both = pays[..., 0].T.copy(), pays[..., 1].T.copy()
        return NormalForm(title, (players[0], players[1]), rows, columns, both, comment)

    def error(self, why: str) -> ValueError:
        return ValueError(f".nfg, line {self.text.count(chr(10), 0, self.at) + 1}: {why}")

    def peek(self) -> str:
        """The next token, or nothing at the end."""
        before = self.at
        token = self.take()
        self.at = before
        return token

    def take(self, wanted: str | None = None) -> str:
        match = _TOKEN.match(self.text, self.at)
        token = "" if match is None else next(part for part in match.groups() if part is not None)
        if wanted is not None and token != wanted:
            raise self.error(f"{token or 'the end'} stands where {wanted} should")
        if match is not None:
            self.at = match.end()
        return token

    def name(self, what: str) -> str:
        token = self.take()
        if len(token) < 2 or not token.startswith('"'):
            raise self.error(f"{what} should be quoted, not {token or 'the end'}")
        return re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL)

    def names(self, what: str) -> tuple[str, ...]:
        self.take("{")
        found = []
        while self.peek() != "}":
            found.append(self.name(f"a name of the {what}"))
        self.take("}")
        return tuple(found)

    def strategies(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        self.take("{")
        found = []
        while self.peek() != "}":
            if self.peek() == "{":
                found.append(self.names("strategies"))
            else:
                count = self.whole("a number of strategies")
                found.append(tuple(str(i) for i in range(1, count + 1)))
        self.take("}")
        if len(found) != 2 or not all(found):
            raise self.error(f"strategies of {len(found)} players, {found}; need two, none empty")
        return found[0], found[1]

    def outcomes(self) -> Array:
        """Payoffs [1 + number of outcomes, 2]; the first is the one that pays nothing."""
        self.take("{")
        found = [(0.0, 0.0)]
        while self.peek() == "{":
            self.take("{")
            self.name("an outcome's name")
            found.append((self.number(), self.number()))
            self.take("}")
        self.take("}")
        return np.array(found)

    def by_outcome(self, shape: tuple[int, int]) -> Array:
        outcomes = self.outcomes()
        numbers = []
        while self.peek():
            numbers.append(self.whole("the number of an outcome"))
            if numbers[-1] >= len(outcomes):
                raise self.error(f"outcome {numbers[-1]}, but there are {len(outcomes) - 1}")
        if len(numbers) != shape[0] * shape[1]:
            raise self.error(f"{len(numbers)} outcomes for {shape[0]} x {shape[1]} profiles")
        pays: Array = outcomes[numbers].reshape(shape[1], shape[0], 2)
        return pays

    def by_profile(self, shape: tuple[int, int]) -> Array:
        numbers = []
        while self.peek():
            numbers.append(self.number())
        if len(numbers) != 2 * shape[0] * shape[1]:
            wanted = f"{shape[0]} x {shape[1]} profiles of 2 players"
            raise self.error(f"{len(numbers)} payoffs for {wanted}")
        return np.array(numbers).reshape(shape[1], shape[0], 2)

    def number(self) -> float:
        token = self.take()
        if not _NUMBER.fullmatch(token):
            raise self.error(f"{token or 'the end'} stands where a payoff should")
        if "/" not in token:
            return float(token)
        over, _, under = token.partition("/")
        if int(under) == 0:
            raise self.error(f"{token} divides by 0")
        return float(Fraction(over) / int(under))

    def whole(self, what: str) -> int:
        token = self.take()
        if not token.isdecimal():
            raise self.error(f"{token or 'the end'} stands where {what} should")
        return int(token)
