"""What a sweep leaves beside its runs: one csv, one report, one page in TensorBoard."""

from pathlib import Path
from typing import Any

import yaml
from hydra.experimental.callback import Callback

from arena.checksums import opened_yaml


class SweepReport(Callback):
    """Hydra calls this when the last run of `arena -m` is over."""

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """Writes `sweep.csv` and `report.html`, and declares the HParams that were compared."""
        from arena.events import Events
        from arena.report import print_table, sweep_page, write_page

        folder = Path(config.hydra.sweep.dir)
        try:
            page = sweep_page(folder)
        except FileNotFoundError:  # a sweep over studies: each has its own report
            return
        hparams = [_hparams(run.parent) for run in sorted(folder.glob("*/rounds.jsonl"))]
        Events(folder).sweep(hparams)
        for table in page.tables:
            print_table(table)
        print(f"Table:  {folder / 'sweep.csv'}")
        print(f"Report: {write_page(folder, page)}")
        print(f"Events: tensorboard --logdir {folder}")


def _hparams(folder: Path) -> dict[str, Any]:
    text = opened_yaml(folder / ".hydra" / "hparams.yaml", "start the run again")
    found: dict[str, Any] = yaml.safe_load(text)
    return found
