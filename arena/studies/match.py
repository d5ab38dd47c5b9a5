"""One match, as configured."""

from dataclasses import dataclass
from functools import partial

from arena.fields import Count
from arena.report import print_table, rounds_table, run_page, write_page
from arena.studies.progress import progress
from arena.studies.study import Setup, Study, play


@dataclass(frozen=True)
class Match(Study):
    """Plays some rounds of the configured game in the configured order.

    Attributes:
        rounds: How many; a folder with fewer rounds is continued.
    """

    rounds: Count = 3

    def run(self, setup: Setup) -> None:
        """Plays, prints the rounds, and writes the report."""
        with progress(self.rounds) as tell:
            played = play(setup, self.rounds, partial(tell, str(setup.order)))
        if not played.fresh and (setup.folder / "report.html").is_file():
            print(f"{setup.folder} already holds these {self.rounds} rounds; nothing to do.")
            return
        print_table(rounds_table(played.lines))
        print(f"Report: {write_page(setup.folder, run_page(setup.folder))}")
