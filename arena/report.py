"""Tables and pages: one self-contained HTML file for a run, a study or a sweep."""

import argparse
import base64
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """Columns and rows of text, with a note on how to read them."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Page:
    """What a report shows: tables, and figures by file name in the same folder."""

    title: str
    tables: Sequence[Table] = ()
    figures: Sequence[str] = ()
    text: str = ""
    images: Sequence[str] = field(default=())
    """PNG images, base64."""


_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ page.title }}</title><style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; overflow-wrap: anywhere }
table { border-collapse: collapse; margin: 0 0 1rem; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #ccc; padding: .25rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #444 }
svg, img { max-width: 100%; height: auto } 
pre { background: #f4f4f4; padding: 1rem; overflow: auto }
p.note { color: #555; max-width: 50rem }
</style></head><body><h1>{{ page.title }}</h1>
{% for table in page.tables %}<h2>{{ table.title }}</h2><table><thead><tr>
{%- for name in table.columns %}<th>{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>{% if table.note %}<p class="note">{{ table.note }}</p>{% endif %}
{% endfor %}{% for svg in figures %}<figure>{{ svg | safe }}</figure>{% endfor %}
{% for image in page.images %}<p><img alt="inputs" src="data:image/png;base64,{{ image }}"></p>
{% endfor %}{% if page.text %}<h2>Configuration</h2><pre>{{ page.text }}</pre>{% endif %}
</body></html>
"""


def write_page(folder: Path, page: Page) -> Path:
    """Writes `report.html` into the folder, its figures inlined."""
    import jinja2

    from arena.files import atomically

    figures = []
    for name in page.figures:
        svg = (folder / name).read_text(encoding="utf-8")
        figures.append(svg[svg.index("<svg") :])
    environment = jinja2.Environment(autoescape=True)
    html = environment.from_string(_TEMPLATE).render(page=page, figures=figures)
    path = folder / "report.html"
    atomically(path, html.encode())
    return path


def save_study(folder: Path, page: Page) -> Path:
    """Writes a study's page, and `study.json`, from which it can be rendered again."""
    from arena.checksums import sealed_line
    from arena.files import atomically

    atomically(folder / "study.json", sealed_line(asdict(page)))
    return write_page(folder, page)


def save_figure(figure: "Figure", folder: Path, name: str) -> str:
    """Saves a figure as NAME.svg (for reports) and NAME.png; returns the name of the first."""
    # Dates and random ids would make equal figures differ.
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "arena"}):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", dpi=144)
    return f"{name}.svg"


def save_records(records: Sequence[Mapping[str, Any]], folder: Path, name: str) -> Path:
    """Saves records as NAME.csv, atomically, with a column for each name in any of them."""
    from arena.files import atomically

    path, text = folder / f"{name}.csv", io.StringIO()
    names = dict.fromkeys(key for record in records for key in record)
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    atomically(path, text.getvalue().encode())
    return path


def print_table(table: Table) -> None:
    """Prints a table to the terminal."""
    from rich.console import Console
    from rich.table import Table as RichTable

    rich = RichTable(title=table.title, title_justify="left", title_style="bold")
    for i, name in enumerate(table.columns):
        rich.add_column(name, justify="left" if i == 0 else "right")
    for row in table.rows:
        rich.add_row(*row)
    console = Console()
    if not console.is_terminal:  # a pipe or a file has no width to fit
        console = Console(width=160)
    console.print(rich)
    if table.note:
        console.print(table.note, style="dim", highlight=False)


def number(value: float | None, digits: int = 3) -> str:
    """A number as a cell."""
    return "" if value is None else f"{value:.{digits}f}"


_DIGITS = {"attacked_error": 3, "clean_error": 3, "queries": 1, "gradients": 1}
"""The metrics of evasion that tables show, with their digits."""


def _shown(lines: Sequence[dict[str, Any]]) -> list[str]:
    """The metrics that a table of rounds shows: of evasion the chief ones, of other games all.

    Answers that are not there are shown wherever there are any.
    """
    metrics = lines[0]["metrics"]
    shown = [name for name in _DIGITS if name in metrics] or list(metrics)
    missed = any(line["metrics"].get("no_answer") for line in lines)
    return [shown[0], "no_answer", *shown[1:]] if missed else shown


def rounds_table(lines: Sequence[dict[str, Any]]) -> Table:
    """A match, with a line per round."""
    shown = _shown(lines)
    players = list(lines[0]["payoffs"])
    columns = ["round", "attacker saw", *(f"{name}'s payoff ± s.e." for name in players)]
    columns += [*(name.replace("_", " ") for name in shown), "seconds"]
    rows = []
    for line in lines:
        seen = line["saw"].get("attacker", {}).get("defender")
        move = "nothing" if seen is None else f"the move of round {seen}"
        payoffs, errors = line["payoffs"], line["standard_errors"]
        rows.append(
            [
                str(line["round"]),
                "the opening" if seen == -1 else move,
                *(f"{payoffs[name]:.3f} ± {errors[name]:.3f}" for name in players),
                *(number(line["metrics"][name], _DIGITS.get(name, 3)) for name in shown),
                number(sum(line["seconds"].values()), 1),
            ]
        )
    notes = [note for line in lines for note in line["notes"]]
    return Table(f"Rounds: {lines[0]['order']}", columns, rows, "; ".join(notes))


def rounds_figure(lines: Sequence[dict[str, Any]]) -> "Figure":
    """Payoffs by round, with standard errors."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    for name in lines[0]["payoffs"]:
        values = [line["payoffs"][name] for line in lines]
        errors = [1.96 * line["standard_errors"][name] for line in lines]
        at = [line["round"] for line in lines]
        axes.errorbar(at, values, errors, marker="o", capsize=3, label=name)
    axes.set(xlabel="round", ylabel="payoff (± 95 %)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return figure


def run_page(folder: Path) -> Page:
    """A run's page, made from its folder.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If the run has no finished round.
    """
    from arena.checksums import opened_yaml
    from arena.log import read_rounds

    lines = read_rounds(folder)
    if not lines:
        raise ValueError(f"{folder} holds no finished round")
    figure = save_figure(rounds_figure(lines), folder, "payoffs")
    config = folder / ".hydra" / "config.yaml"
    text = opened_yaml(config, "start the run again") if config.is_file() else ""
    return Page(f"Match {folder.name}", [rounds_table(lines)], [figure], text, _images(folder))


def _images(folder: Path) -> list[str]:
    from arena.events import inputs_grid, png
    from arena.log import CHECKPOINT, read_checkpoint

    if not (folder / CHECKPOINT).is_file():
        return []
    grid = inputs_grid(read_checkpoint(folder)["exhibit"])
    return [] if grid is None else [base64.b64encode(png(grid)).decode()]


def sweep_page(folder: Path) -> Page:
    """A sweep's page, and its `sweep.csv` with one row for the last round of each run.

    A run is named by the options in which it differs from the others; each also has a column.

    Raises:
        FileNotFoundError: If the folder holds no runs.
    """
    from arena.log import read_rounds

    runs = sorted(path.parent for path in folder.glob("*/rounds.jsonl"))
    failed = {path.parent.name: path.read_text().strip() for path in folder.glob("*/failed.txt")}
    if not runs and not failed:
        raise FileNotFoundError(f"{folder} holds no run and no sweep")
    records, labels = [], []
    named = zip(runs, _varied(runs), strict=True)
    for run, options in sorted(named, key=lambda each: list(each[1].values())):
        if lines := read_rounds(run):
            records.append({"run": run.name, **options, **_flat(lines[-1])})
            labels.append(",".join(f"{key}={value}" for key, value in options.items()) or run.name)
    names = list(dict.fromkeys(name for record in records for name in record))
    with open(folder / "sweep.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["run", *[n for n in names if n != "run"], "failed"])
        writer.writeheader()
        writer.writerows(records)
        writer.writerows({"run": run, "failed": why} for run, why in failed.items())
    shown = ["attacked_error", "clean_error", "payoff_attacker", "payoff_defender", "queries"]
    if any(record.get("no_answer") for record in records):
        shown.insert(1, "no_answer")
    shown = [name for name in shown if name in names]
    rows = [
        [label, *(number(record.get(name)) for name in shown), number(record["seconds"], 1)]
        for label, record in zip(labels, records, strict=True)
    ]
    rows += [[run, *[""] * len(shown), why] for run, why in failed.items()]
    table = Table("Runs, last round each", ["run", *shown, "seconds"], rows)
    figures = [save_figure(sweep_figure(labels, records), folder, "errors")] if records else []
    return Page(f"Sweep {folder.name}", [table], figures)


def _varied(runs: Sequence[Path]) -> list[dict[str, str]]:
    """For each run, the options that were not the same for all."""
    given = [_overrides(run) for run in runs]
    alike = set.intersection(*(set(each.items()) for each in given)) if given else set()
    return [{k: v for k, v in each.items() if (k, v) not in alike} for each in given]


def _overrides(run: Path) -> dict[str, str]:
    import yaml

    from arena.checksums import opened_yaml

    path = run / ".hydra" / "overrides.yaml"
    words = yaml.safe_load(opened_yaml(path, "start the run again")) if path.is_file() else []
    pairs = (word.lstrip("+").partition("=") for word in words)
    return {key: value for key, _, value in pairs}


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    return {
        "round": line["round"],
        "order": line["order"],
        **{f"payoff_{name}": value for name, value in line["payoffs"].items()},
        **{f"standard_error_{name}": value for name, value in line["standard_errors"].items()},
        **line["metrics"],
        "seconds": sum(line["seconds"].values()),
    }


def sweep_figure(names: Sequence[str], records: Sequence[dict[str, Any]]) -> "Figure":
    """The defender's cost in each run, with its 95 % interval."""
    from matplotlib.figure import Figure

    width = 4 + 0.09 * max(map(len, names))  # inches; the names stand beside the axes
    figure = Figure(figsize=(width, 0.8 + 0.3 * len(records)), layout="constrained")
    axes = figure.subplots()
    values = [-record["payoff_defender"] for record in records]
    errors = [1.96 * record["standard_error_defender"] for record in records]
    axes.barh(names, values, xerr=errors, color="#4477aa", error_kw={"capsize": 2})
    axes.invert_yaxis()
    axes.set(xlabel="defender's mean cost (± 95 % over examples)")
    return figure


def render(folder: Path) -> Path:
    """Renders the page of a run, a study or a sweep again from its folder.

    Raises:
        FileNotFoundError: If the folder holds none of them.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if (folder / "rounds.jsonl").is_file():
        return write_page(folder, run_page(folder))
    if (folder / "study.json").is_file():
        return write_page(folder, _study_page(folder / "study.json"))
    return write_page(folder, sweep_page(folder))


def _study_page(path: Path) -> Page:
    from arena.checksums import opened_lines

    try:
        (saved,) = opened_lines(path, "")
        tables = [Table(**table) for table in saved.pop("tables")]
        return Page(tables=tables, **saved)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(f"{path} is damaged; run the same study again to replace it") from None


def main() -> None:
    """The command `arena-report`."""
    parser = argparse.ArgumentParser(
        prog="arena-report", description="Render the report of a run, a study or a sweep again."
    )
    parser.add_argument("folder", type=Path, help="a folder under runs/")
    folder = parser.parse_args().folder
    try:
        print(render(folder))
    except (OSError, ValueError) as error:
        print(f"arena-report: {error}", file=sys.stderr)
        sys.exit(2)
