"""The solvers against games whose solutions are published."""

from dataclasses import dataclass

from arena.report import Page, Table, print_table, save_study
from arena.solvers.published import CLAIMS
from arena.studies.study import Setup, Study


@dataclass(frozen=True)
class SelfTest(Study):
    """Solves published games and compares: what was expected, what came out, and who says so.

    The configured match is not played.
    """

    def run(self, setup: Setup) -> None:
        """Prints the table.

        Raises:
            ValueError: If any solution differs from the published one; the report is written first.
        """
        rows, wrong = [], 0
        for claim in CLAIMS:
            obtained = claim.obtain()
            holds = claim.holds(obtained)
            wrong += not holds
            numbers = f"{claim.expected:.7g}", f"{obtained:.7g}"
            verdict = "ok" if holds else "WRONG"
            rows.append([claim.game, claim.what, *numbers, verdict, claim.source])
        columns = ["game", "what", "expected", "obtained", "", "source"]
        note = f"{len(CLAIMS) - wrong} of {len(CLAIMS)} are as published."
        table = Table("Published games", columns, rows, note)
        print_table(table)
        print(f"Report: {save_study(setup.folder, Page('Self-test', [table]))}")
        if wrong:
            raise ValueError(f"{wrong} of {len(CLAIMS)} solutions differ from the published ones")
