"""How a study ends: tables and figures go to the terminal, the folder, the report, TensorBoard."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from arena.events import Events
from arena.report import Page, Table, print_table, save_study
from arena.studies.figures import show_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def conclude(
    folder: Path,
    title: str,
    tables: Sequence[Table],
    figures: Mapping[str, "Figure"],
    events: Events | None = None,
    remarks: Sequence[str] = (),
) -> None:
    """Shows a study's results and says where they are.

    Args:
        folder: The study's.
        title: Of the report.
        tables: Printed, and put into the report.
        figures: By file name; the first is named in the terminal.
        events: The study's, if it has written any; else they are begun.
        remarks: Lines for the terminal, before the paths.
    """
    for table in tables:
        print_table(table)
    shown = show_figures(figures, folder, events or Events(folder))
    report = save_study(folder, Page(title, tables, shown))
    for remark in remarks:
        print(remark)
    print(f"Figure: {folder / next(iter(figures))}.png")
    print(f"Report: {report}")
    print(f"Events: tensorboard --logdir {folder}")
