"""Live progress of many rounds: a bar on a terminal, one line per round elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def summary(line: dict[str, Any] | str) -> str:
    """A round in a few words; text stays as it is."""
    if isinstance(line, str):
        return line
    error = line["metrics"].get("attacked_error")
    text = f"round {line['round']}"
    if error is not None:
        return f"{text}: error {error:.3f}, clean {line['metrics']['clean_error']:.3f}"
    return text + ": " + ", ".join(f"{k} {v:.3f}" for k, v in line["payoffs"].items())


@contextmanager
def progress(total: int) -> Iterator[Callable[[str, dict[str, Any] | str], None]]:
    """Yields a function to call `total` times, with the name of a match and one of its lines."""
    console = Console()
    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=total)

        def tell(match: str, line: dict[str, Any] | str) -> None:
            text = f"{match}, {summary(line)}"
            bar.update(task, advance=1, description=text)
            if not console.is_terminal:
                print(text, flush=True)

        yield tell
