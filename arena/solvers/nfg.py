r"""Gambit's strategic game files, .nfg, of two players (Savani & Turocy, "Gambit", file formats).

A file of payoffs, and a file of outcomes, which profiles refer to by number:

    NFG 1 D "title" { "defender" "attacker" }     NFG 1 R "title" { "defender" "attacker" }
    { { "plain" } { "clean" "pgd" } }             { { "plain" } { "clean" "pgd" } }
    "comment"                                     "comment"
    0 0 -1 1                                      { { "right" 0, 0 } { "wrong" -1, 1 } } 1 2

The first player's strategy changes fastest. Counts, `{ 1 2 }`, may stand in place of names, and
outcome 0 pays nothing. Numbers are written so that they are read back bit by bit. Fractions, which
Gambit writes too, are read to the nearest float64. Texts and games beyond `CHARACTERS` and
`PROFILES` are refused before they take time or memory.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from arena.solvers.payoffs import Array, bimatrix

CHARACTERS = 2**24
"""The longest text that is read."""

PROFILES = 250_000
"""The most profiles, names or outcomes of a game that is read: 500 x 500 actions."""

_NAME = 2**16  # characters of a name or comment
_DIGITS = 1_000  # characters of a number
_SHOWN = 40  # characters of a token in an error

# Possessive, so that a quote that never ends costs no memory for backtracking.
_TOKEN = re.compile(r'\s*+(?:("[^"\\]*+(?:\\.[^"\\]*+)*+")|([{}])|([^\s{}",]++),?|(\S))', re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+|/\d+)?")


@dataclass(frozen=True)
class NormalForm:
    """A game of two players, with names.

    Attributes:
        title: The game's title.
        players: The names of the row player and the column player.
        rows: The names of the row player's m actions.
        columns: The names of the column player's n actions.
        payoffs: The row player's payoffs and the column player's, [m, n] each.
        comment: Free text.

    Raises:
        ValueError: If the number of names does not fit the payoffs, or a payoff is not finite.
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
            raise ValueError(
                f"{named} actions are named, payoffs are {self.payoffs[0].shape}: name each action"
            )


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
        ValueError: If the text is not such a file: another format, three players, a wrong number of
            payoffs, an unknown outcome; or if it is beyond `CHARACTERS` or `PROFILES`. With the
            line.
    """
    if len(text) > CHARACTERS:
        raise ValueError(f".nfg: a text of {len(text)} characters; at most {CHARACTERS} are read")
    return _Reader(text).game()


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _decimal(number: float) -> str:
    # The shortest that reads back as the same float64; Gambit knows no + in exponents.
    return repr(number).replace("e+", "e").removesuffix(".0")


def _shown(token: str) -> str:
    if len(token) > _SHOWN:
        return f"{token[:_SHOWN]}..."
    return token or "the end"


class _Reader:
    """Takes a text apart, token by token.

    Attributes:
        text: The text.
        token: The next token, empty at the end.
        at: Where it begins.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._match = _TOKEN.scanner(text).match  # type: ignore[attr-defined]  # not in the stubs
        self.advance()

    def advance(self) -> None:
        """Goes to the next token."""
        match = self._match()
        self.token = "" if match is None else match[match.lastindex]
        self.at = len(self.text) if match is None else match.start(match.lastindex)

    def game(self) -> NormalForm:
        for word in ("NFG", "1"):
            if self.token != word:
                raise self.error(
                    f"starts with {_shown(self.token)} instead of NFG 1: not a strategic game"
                )
            self.advance()
        if self.token not in ("R", "D"):
            raise self.error(f"numbers are R or D, not {_shown(self.token)}")
        self.advance()
        title = self.name("the title")
        players = self.names("players", 2)
        if len(players) != 2:
            raise self.error(f"{len(players)} players; games of two are read")
        rows, columns = self.strategies()
        comment = self.name("the comment") if self.token.startswith('"') else ""
        shape = len(rows), len(columns)
        pays = self.by_outcome(shape) if self.token == "{" else self.by_profile(shape)
        both = pays[..., 0].T.copy(), pays[..., 1].T.copy()
        return NormalForm(title, (players[0], players[1]), rows, columns, both, comment)

    def error(self, why: str) -> ValueError:
        return ValueError(f".nfg, line {self.text.count(chr(10), 0, self.at) + 1}: {why}")

    def take(self, wanted: str) -> None:
        if self.token != wanted:
            raise self.error(f"{_shown(self.token)} stands where {wanted} should")
        self.advance()

    def name(self, what: str) -> str:
        token = self.token
        if len(token) < 2 or not token.startswith('"'):
            raise self.error(f"{what} should be quoted, not {_shown(token)}")
        if len(token) > _NAME:
            raise self.error(f"{what} has {len(token)} characters; at most {_NAME} are read")
        self.advance()
        return re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL)

    def names(self, what: str, most: int) -> tuple[str, ...]:
        self.take("{")
        found: list[str] = []
        while self.token != "}":
            if len(found) == most:
                raise self.error(f"more than {most} {what}; no more are read")
            found.append(self.name(f"a name of the {what}"))
        self.take("}")
        return tuple(found)

    def strategies(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of both players' actions; numbers from 1 where only their count is given."""
        self.take("{")
        found: list[tuple[str, ...] | int] = []
        while self.token != "}":
            if len(found) == 2:
                raise self.error("strategies of more than 2 players; games of two are read")
            if self.token == "{":
                found.append(self.names("strategies", PROFILES))
            else:
                found.append(self.whole("a number of strategies"))
        self.take("}")
        counts = [each if isinstance(each, int) else len(each) for each in found]
        if len(counts) != 2 or not all(counts):
            raise self.error(f"strategies of {len(counts)} players, {counts}; need two, none empty")
        if counts[0] * counts[1] > PROFILES:
            raise self.error(f"{counts[0]} x {counts[1]} profiles; at most {PROFILES} are read")
        rows, columns = (
            tuple(str(i) for i in range(1, each + 1)) if isinstance(each, int) else each
            for each in found
        )
        return rows, columns

    def outcomes(self) -> Array:
        """Payoffs [1 + number of outcomes, 2]; the first outcome pays nothing."""
        self.take("{")
        found = [(0.0, 0.0)]
        while self.token == "{":
            if len(found) > PROFILES:
                raise self.error(f"more than {PROFILES} outcomes; no more are read")
            self.take("{")
            self.name("an outcome's name")
            found.append((self.number(), self.number()))
            self.take("}")
        self.take("}")
        return np.array(found)

    def by_outcome(self, shape: tuple[int, int]) -> Array:
        """Payoffs [n, m, 2] where profiles have the numbers of outcomes."""
        outcomes = self.outcomes()
        wanted = shape[0] * shape[1]
        numbers: list[int] = []
        while self.token and len(numbers) < wanted:
            number = self.whole("the number of an outcome")
            if number >= len(outcomes):
                raise self.error(f"outcome {number}, but there are {len(outcomes) - 1}")
            numbers.append(number)
        self.ended(len(numbers), wanted, f"outcomes for {shape[0]} x {shape[1]} profiles")
        pays: Array = outcomes[numbers].reshape(shape[1], shape[0], 2)
        return pays

    def by_profile(self, shape: tuple[int, int]) -> Array:
        """Payoffs [n, m, 2] where profiles have payoffs."""
        wanted = 2 * shape[0] * shape[1]
        numbers: list[float] = []
        while self.token and len(numbers) < wanted:
            numbers.append(self.number())
        what = f"payoffs for {shape[0]} x {shape[1]} profiles of 2 players"
        self.ended(len(numbers), wanted, what)
        return np.array(numbers).reshape(shape[1], shape[0], 2)

    def ended(self, found: int, wanted: int, what: str) -> None:
        if self.token or found != wanted:
            more = "more than " * bool(self.token)
            raise self.error(f"{more}{found} {what}")

    def number(self) -> float:
        token = self.token
        if len(token) > _DIGITS or not _NUMBER.fullmatch(token):
            raise self.error(f"{_shown(token)} stands where a payoff should")
        over, _, under = token.partition("/")
        if under and int(under) == 0:
            raise self.error(f"{_shown(token)} divides by 0")
        try:
            found = float(Fraction(over) / int(under)) if under else float(token)
        except OverflowError:
            found = math.inf
        if not math.isfinite(found):
            raise self.error(f"{_shown(token)} is infinite as a float64")
        self.advance()
        return found

    def whole(self, what: str) -> int:
        token = self.token
        if not token.isdecimal() or len(token) > _DIGITS:
            raise self.error(f"{_shown(token)} stands where {what} should")
        self.advance()
        return int(token)
