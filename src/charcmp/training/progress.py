"""Shows how far a run is: on the terminal, and in progress.json for other processes."""

from __future__ import annotations

import time
from collections.abc import Callable

from tqdm import tqdm

from charcmp.config.spec import RunSpec
from charcmp.output import PROGRESS_SECONDS, duration
from charcmp.runs.folder import RunFolder
from charcmp.runs.result import Epoch, Progress
from charcmp.training.checkpoint import Place

TICK_SECONDS = 1.0  # between two progress notes
# A resumed run must train this long before its speed is recorded: on a GPU it begins with captures.
ENOUGH_SECONDS = 30.0


class RunProgress:
    """How far a run is and how fast it trains, shown to the user and to other processes.

    On a terminal it is a bar; elsewhere a line every PROGRESS_SECONDS. Raises UserError or
    StorageError, as RunFolder.write does, if progress.json cannot be written.

    Args:
        spec: the run.
        folder: its folder.
        place: its position and training time, which the trainer updates.
        chunks_per_epoch: updates of an epoch.
        say: prints a line for the user.
    """

    def __init__(
        self,
        spec: RunSpec,
        folder: RunFolder,
        place: Place,
        chunks_per_epoch: int,
        say: Callable[[str], None],
    ) -> None:
        self.spec, self.folder, self.place, self.say = spec, folder, place, say
        self.chunks_per_epoch = chunks_per_epoch
        self.num_chunks = spec.config.epochs * chunks_per_epoch
        self.chars_per_chunk = spec.train_batch_size * spec.train_unroll_steps
        # This process's speed counts from here: an earlier start may have been on another machine.
        self.chunks_before, self.seconds_before = self.chunks_done(), place.seconds_train
        self.bar = tqdm(
            total=self.num_chunks * self.chars_per_chunk,
            initial=self.chunks_before * self.chars_per_chunk,
            unit="char",
            unit_scale=True,
            desc=spec.run_id,
            # None: tqdm disables it without a terminal
            disable=not spec.config.progress or None,
        )
        self.last_tick = self.last_line = time.monotonic()

    def close(self) -> None:
        """Ends the bar; `tick` can still write progress.json."""
        self.bar.close()

    def chunks_done(self) -> int:
        """Returns the updates made so far, those of earlier starts included."""
        return (self.place.epoch - 1) * self.chunks_per_epoch + self.place.chunk

    def chars_per_second(self) -> float:
        """Returns the speed since this process started the run; 0 before its first update."""
        chunks = self.chunks_done() - self.chunks_before
        seconds = self.place.seconds_train - self.seconds_before
        return chunks * self.chars_per_chunk / max(seconds, 1e-9)

    def recorded_speed(self) -> int:
        """Returns the speed for the result; 0 if the run was resumed and has trained too little."""
        seconds = self.place.seconds_train - self.seconds_before
        is_known = self.chunks_before == 0 or seconds >= ENOUGH_SECONDS
        return round(self.chars_per_second()) if is_known else 0

    def seconds_left(self) -> float | None:
        """Returns the training time left at the current speed; None if that is not known yet."""
        chars_left = (self.num_chunks - self.chunks_done()) * self.chars_per_chunk
        speed = self.chars_per_second()
        return chars_left / speed if speed else None

    def advance(self) -> None:
        """Moves the bar on by the chunk that has just been trained."""
        self.bar.update(self.chars_per_chunk)

    def is_due(self) -> bool:
        """Returns whether it is time for the next tick."""
        return time.monotonic() - self.last_tick >= TICK_SECONDS

    def tick(self, nats_so_far: float | None = None) -> None:
        """Writes progress.json, and shows the epoch's loss so far, if it is given."""
        self.last_tick = time.monotonic()
        self._write_note()
        if nats_so_far is None:
            return
        epoch, config = self.place.epoch, self.spec.config
        self.bar.set_postfix_str(f"epoch {epoch} loss {nats_so_far:.3f}", refresh=False)
        is_line_due = self.last_tick - self.last_line >= PROGRESS_SECONDS
        if self.bar.disable and config.progress and is_line_due:  # no terminal shows the bar
            self.last_line = self.last_tick
            left = self.seconds_left()
            assert left is not None  # this process has trained a chunk
            self.say(
                f"epoch {epoch}/{config.epochs}  loss {nats_so_far:.4f} nats/char so far, "
                f"{100 * self.chunks_done() / self.num_chunks:.0f} % of the run, "
                f"{duration(left)} left"
            )

    def epoch_done(self, entry: Epoch) -> None:
        """Prints an epoch's losses and writes progress.json; the place has moved on already."""
        self.bar.clear()
        self.say(
            f"epoch {entry.epoch}/{self.spec.config.epochs}  train {entry.train_nats_per_char:.4f}"
            f"  val {entry.val_nats_per_char:.4f} nats/char"
        )
        self.last_line = time.monotonic()
        self._write_note()

    def _write_note(self) -> None:
        place = self.place
        self.folder.write_progress(
            Progress(
                **self.spec.row(),
                epoch=place.epoch,
                epochs=self.spec.config.epochs,
                fraction=self.chunks_done() / self.num_chunks,
                chars_per_second=self.chars_per_second() or None,
                seconds_left=self.seconds_left(),
                best_val_nats_per_char=place.best_val if place.best_epoch else None,
                time=time.time(),
            )
        )
