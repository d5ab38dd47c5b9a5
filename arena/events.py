"""What TensorBoard shows of a run: payoffs per round, inputs with their answers, HParams."""

import io
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import summary_v2 as hp
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor

from arena.knowledge import INVALID, REFUSED
from arena.record import Record

_COMPARED = (
    "payoff/attacker",
    "payoff/defender",
    "metrics/clean_error",
    "metrics/attacked_error",
    "metrics/queries",
    "metrics/gradients",
)
_TILE = 96  # pixels a side of an exhibited image


class Events:
    """The events of one run.

    Args:
        folder: Where the events go.
        from_round: The first round that will be written. TensorBoard drops what an earlier, killed
            writer wrote at or after it.
        hparams: How this run differs from the others of its sweep, for the HParams tab.
    """

    def __init__(
        self, folder: Path, from_round: int = 0, hparams: Mapping[str, Any] | None = None
    ) -> None:
        name = f"{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / f"events.out.tfevents.{name}"
        start = SessionLog(status=SessionLog.START)
        self._append(file_version="brain.Event:2")
        self._append(step=from_round, session_log=start)
        if hparams:
            self._append(summary=hp.hparams_pb(dict(hparams)))

    def round(self, record: Record) -> None:
        """Writes a round."""
        scalars: dict[str, float] = {f"payoff/{k}": v for k, v in record.payoffs.items()}
        scalars |= {f"metrics/{k}": v for k, v in record.metrics.items()}
        scalars |= {f"seconds/{k}": v for k, v in record.seconds.items()}
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        if (grid := inputs_grid(record.exhibit)) is not None:
            height, width, _ = grid.shape
            image = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=png(grid)
            )
            values.append(Summary.Value(tag="inputs", image=image))
        self._append(step=record.round, summary=Summary(value=values))

    def image(self, tag: str, encoded: bytes) -> None:
        """Writes a PNG image."""
        from PIL import Image

        width, height = Image.open(io.BytesIO(encoded)).size
        image = Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=encoded
        )
        self._append(step=0, summary=Summary(value=[Summary.Value(tag=tag, image=image)]))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the named numbers of one step of a study."""
        found = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._append(step=step, summary=Summary(value=found))

    def sweep(self, hparams: Sequence[Mapping[str, Any]]) -> None:
        """Declares what a sweep varied (with types, so that the tab can filter) and measured."""
        values: dict[str, set[Any]] = {}
        for run in hparams:
            for key, value in run.items():
                values.setdefault(key, set()).add(value)
        domains = [
            hp.HParam(key, hp.Discrete(sorted(found)))
            for key, found in values.items()
            if len({type(value) for value in found}) == 1
        ]
        metrics = [hp.Metric(tag) for tag in _COMPARED]
        self._append(summary=hp.hparams_config_pb(domains, metrics))

    def _append(self, **content: Any) -> None:
        # torch's SummaryWriter writes in a thread, which answers a full disk with a traceback.
        with open(self._path, "ab") as file:
            event = Event(wall_time=time.time(), **content)
            RecordWriter(file).write(event.SerializeToString())


def png(pixels: "np.ndarray[Any, Any]") -> bytes:
    """An image, uint8 [H, W, 3], as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def answer_text(label: int) -> str:
    """An answer as a person reads it."""
    return {REFUSED: "refused", INVALID: "not finite"}.get(label, str(label))


def inputs_grid(exhibit: Mapping[str, Tensor]) -> "np.ndarray[Any, Any] | None":
    """Clean inputs above, attacked ones below, each with its answer; uint8 [H, W, 3].

    None if the inputs are not images.
    """
    if "clean" not in exhibit or exhibit["clean"].ndim != 4:
        return None
    from PIL import Image, ImageDraw

    clean, attacked, y = exhibit["clean"], exhibit["attacked"], exhibit["y"]
    caption = 16
    sheet = Image.new("RGB", (_TILE * len(y), 2 * (_TILE + caption)), "white")
    draw = ImageDraw.Draw(sheet)
    for i in range(len(y)):
        for row, (x, answers) in enumerate(
            [(clean, exhibit["clean_answer"]), (attacked, exhibit["attacked_answer"])]
        ):
            pixels = x[i].clamp(0, 1).mul(255).to(torch.uint8)
            pixels = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
            tile = Image.fromarray(pixels.permute(1, 2, 0).numpy())
            top = row * (_TILE + caption)
            tile = tile.resize((_TILE - 4, _TILE - 4), Image.Resampling.NEAREST)
            sheet.paste(tile, (i * _TILE + 2, top + caption))
            right = int(answers[i]) == int(y[i])
            text = f"{int(y[i])} -> {answer_text(int(answers[i]))}"
            colour = "darkgreen" if right else "firebrick"
            draw.text((i * _TILE + 4, top + 3), text, fill=colour)
    return np.asarray(sheet)
