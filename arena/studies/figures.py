"""Figures in the two places where people look for them: the run's folder and TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from arena.events import Events
from arena.report import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show_figures(figures: Mapping[str, "Figure"], folder: Path, events: Events) -> list[str]:
    """Saves named figures and shows them in TensorBoard; returns their files for the report."""
    files = []
    for name, figure in figures.items():
        files.append(save_figure(figure, folder, name))
        events.image(name, (folder / f"{name}.png").read_bytes())
    return files
