"""Figures where people look for them: in the run's folder, and in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from arena.events import Events
from arena.report import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show_figures(figures: Mapping[str, "Figure"], folder: Path, events: Events) -> list[str]:
    """Saves figures by name, and shows them; gives their files for the report, as `save_figure`."""
    files = []
    for name, figure in figures.items():
        files.append(save_figure(figure, folder, name))
        events.image(name, (folder / f"{name}.png").read_bytes())
    return files
