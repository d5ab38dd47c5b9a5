"""What a sweep leaves beside its runs: one csv, one report, one page in TensorBoard."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf.errors import OmegaConfBaseException

from arena.checksums import opened_yaml
from arena.studies.leftovers import expect


class SweepReport(Callback):
    """Hydra calls this before it makes a folder, and when the last run of `arena -m` is over."""

    def on_run_start(self, config: Any, **kwargs: Any) -> None:
        """Notes the folder of a single run, should the run be refused."""
        now = HydraConfig.instance()
        before = now.cfg
        now.set_config(config)  # as hydra will: the folder's name is made of it
        with suppress(OmegaConfBaseException):  # a name that cannot be made: hydra will say so
            expect(Path(config.hydra.run.dir))
        now.cfg = before

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """Notes the folder of a sweep, should all of its runs be refused."""
        with suppress(OmegaConfBaseException):
            expect(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        """Writes `sweep.csv` and `report.html`, and declares the HParams that were compared.

        Nothing is written if no run of the sweep has begun.
        """
        folder = Path(config.hydra.sweep.dir)
        if not any(folder.rglob(".hydra")):
            return
        from arena.events import Events
        from arena.report import print_table, sweep_page, write_page

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
