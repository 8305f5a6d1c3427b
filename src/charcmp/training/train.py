"""One run, from configuration to result: the whole protocol, top to bottom.

Shape suffixes: T steps of a chunk, B streams, V vocabulary, L layers, S state vectors, H hidden.
Sources: [code] is the author's published char-rnn, [paper] is Karpathy, Johnson & Fei-Fei 2015.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Literal

import msgspec
import torch
from torch import Tensor

from charcmp.config.spec import RunSpec
from charcmp.errors import Interrupted, one_line
from charcmp.models.language_model import CharModel, check_module_cells
from charcmp.models.sampling import seconds_per_char
from charcmp.runs.folder import RUNAWAY, RunFolder
from charcmp.runs.result import MAX_NATS, Epoch, Result
from charcmp.training.checkpoint import Checkpoint, Place
from charcmp.training.checks import apply_fallbacks, failed_checks
from charcmp.training.cuda_graph import Late, wait_for
from charcmp.training.cuda_streams import at_work_on
from charcmp.training.device import prepare
from charcmp.training.evaluate import Evaluation, mean_loss
from charcmp.training.optim import learning_rate
from charcmp.training.progress import TICK_SECONDS, RunProgress
from charcmp.training.record import describe_run, make_result, tensorboard, write_tested
from charcmp.training.session import Session
from charcmp.training.step import Step, cut_corpus, notes
from charcmp.training.verify import (
    WrongResult,
    check_graph,
    check_test,
    is_check_due,
    made_again,
)

# A loss above this many times ln V, the loss of guessing, has diverged: cells with bounded states
# hardly ever overflow. The paper's code gives up at three times its first loss, about ln V. [code]
EXPLODED = 3.0
NO_GRAPH = (
    "forward waits for the GPU, as .item() and `if` on a tensor do, or keeps tensors of its own, "
    "so the steps are not captured as CUDA graphs: slower"
)


def train(spec: RunSpec, folder: RunFolder, session: Session) -> Result:
    """Trains a run, or goes on with it from its checkpoint, and writes its result.

    Args:
        spec: what to train.
        folder: the run's folder; created and leased by the caller.
        session: says whether to stop, and prints lines for the user.

    Returns:
        The contents of result.json. Its status is `done`, or `diverged` if an epoch's training or
        validation loss was not finite or was above EXPLODED times ln V, if the carried state was
        not finite, or if the test loss was NaN or above MAX_NATS.

    Raises:
        Interrupted: if the session was asked to stop.
        UserError: if the corpus is too short, the device does not exist, a file cannot be written,
            or the class of cell=module is not a recurrent cell.
        WrongResult: if a GPU computed wrong results.
    """
    device = prepare(spec.config, spec.config.threads)
    for note in check_module_cells(spec.shape, max(spec.unroll_steps, spec.train_unroll_steps)):
        session.say(f"note: {note}")
    with at_work_on(device), ExitStack() as opened:
        capture = apply_fallbacks(failed_checks(device, spec.config.precision))
        train_chunks, *evaluated = cut_corpus(spec, device)
        step = opened.enter_context(closing(Step(spec, device, train_chunks, capture)))
        validation, test = (
            opened.enter_context(closing(Evaluation(step.model, part, capture)))
            for part in evaluated
        )
        try:
            return run_protocol(spec, folder, session, device, step, validation, test)
        except WrongResult:
            if folder.checkpoint.exists():  # so that the next attempt starts from scratch
                folder.set_aside(folder.checkpoint)
            raise


def run_protocol(
    spec: RunSpec,
    folder: RunFolder,
    session: Session,
    device: torch.device,
    step: Step,
    validation: Evaluation,
    test: Evaluation,
) -> Result:
    """Does the work of `train` on a device that is set up and has the text."""
    config, say = spec.config, session.say
    for note in notes(spec, step, device):
        say(f"note: {note}")
    training = Training(spec, folder, step, session)
    step.replay.prepare()  # here, where its time does not count as training
    if step.replay.must_be_called():
        say(f"note: {NO_GRAPH}")
    place = training.place
    describe_run(spec, folder, device, session)

    has_diverged = False
    highest = EXPLODED * math.log(spec.corpus.num_symbols)
    with closing(training.progress), tensorboard(folder, place) as note_epoch:
        while not place.is_over(config):
            train_nats = training.train_epoch()
            val_nats = training.validate(validation)
            is_finite = bool(step.state_LSBH.isfinite().all())
            if not (is_finite and train_nats <= highest and val_nats <= highest):  # true for NaN
                has_diverged = True
                break
            note_epoch(training.end_epoch(train_nats, val_nats))
    if place.history and (largest := place.history[-1].largest_state) > RUNAWAY:
        say(
            f"note: the memory ran away: the carried state grew to {largest:,.0f}, and evaluation "
            "starts from a zero state, where the model behaves differently (docs/cells.md); "
            "compare with reset_state=epoch"
        )

    test_nats = None if has_diverged else training.test(validation, test)
    status: Literal["done", "diverged"] = "diverged" if test_nats is None else "done"
    verified = None  # stays None on a CPU, which is the reference
    on_cpu = step.model
    if status == "done" and device.type == "cuda":
        on_cpu = made_again(spec, step.model)
        check_test(test, on_cpu, config.precision)  # train_epoch has checked the step's graph
        verified = True
    folder.write_json(folder.history, msgspec.to_builtins(place.history))
    seconds_per_sampled_char = None
    # Skip the timing when runs share the process, and for fill-in models, which cannot generate.
    if status == "done" and config.task == "lm" and session.num_lanes == 1:
        seconds_per_sampled_char = time_sampling(on_cpu, say)
    result = make_result(
        spec,
        place,
        status,
        device,
        test_nats=test_nats,
        num_test_chars=test.chunks.num_chars,
        chars_per_second=training.progress.recorded_speed(),
        verified=verified,
        seconds_per_sampled_char=seconds_per_sampled_char,
    )
    folder.write_result(result)
    return result


class Training:
    """The epochs of a run: holds its place and its best weights so far, and writes checkpoints.

    Starts from the run's checkpoint if there is one.

    Args:
        spec: the run.
        folder: its folder.
        step: its training step, newly made.
        session: says whether to stop, and prints lines for the user.
    """

    def __init__(self, spec: RunSpec, folder: RunFolder, step: Step, session: Session) -> None:
        self.spec, self.folder, self.step = spec, folder, step
        self.should_stop = session.should_stop
        self.place = Place()
        self.best: dict[str, Tensor] = {}  # weights of the best epoch
        if (checkpoint := Checkpoint.read(spec, folder, step, session.say)) is not None:
            self.place, self.best = checkpoint.place, checkpoint.restore(step)
            session.say(
                f"resuming {spec.run_id} in epoch {self.place.epoch}, chunk {self.place.chunk}"
            )
        self.progress = RunProgress(spec, folder, self.place, len(step.chunks), session.say)
        self.loss_sum: Late[tuple[int, int]] = Late(step.loss_sum)
        self.clock = time.perf_counter()  # since when training time is not in the place yet
        self.last_checkpoint = time.monotonic()

    def train_epoch(self) -> float:
        """Trains on what is left of the epoch; returns its mean loss in nats per character.

        Raises:
            Interrupted: if `should_stop` returned True; a checkpoint is written first.
            WrongResult: if the step's graph and the same step by calls compute different results.
        """
        step, place, config = self.step, self.place, self.spec.config
        if config.reset_state == "epoch" and place.chunk == 0:
            step.state_LSBH.zero_()
        needs_check = is_check_due(place.epoch)
        self.clock = time.perf_counter()
        rate = None
        while place.chunk < len(step.chunks):
            if (new_rate := self.rate_at(place.chunk)) != rate:
                step.lr.fill_(rate := new_rate)
            step()
            if needs_check:
                check_graph(step)
                needs_check = False
            place.chunk += 1
            self.progress.advance()
            stop = self.should_stop()
            if not stop and not self.progress.is_due():
                continue
            so_far = self._tick(stop)
            if so_far is not None and not math.isfinite(so_far):
                break  # the sum cannot become finite again: no need to finish the epoch
        wait_for(step.loss_sum.device)  # so that seconds_train includes the device's work
        loss_sum = step.loss_sum.item()
        place.seconds_train += time.perf_counter() - self.clock
        return loss_sum / (len(step.chunks) * self.spec.train_unroll_steps)

    def rate_at(self, chunk: int) -> float:
        """Returns the learning rate of an update of this epoch."""
        config, num_chunks = self.spec.config, len(self.step.chunks)
        return learning_rate(config.optimizer, self.place.epoch, config.epochs, chunk, num_chunks)

    def _tick(self, stop: bool) -> float | None:
        """Shows the progress and, if due, saves a checkpoint; returns the epoch's loss so far.

        Returns None if the loss is not known yet. Raises Interrupted if `stop` is set.
        """
        step, place, config = self.step, self.place, self.spec.config
        read = self.loss_sum.read((place.epoch, place.chunk))
        saves = stop or time.monotonic() - self.last_checkpoint >= config.checkpoint_seconds
        if saves:
            wait_for(step.loss_sum.device)
        place.seconds_train += time.perf_counter() - self.clock
        if saves:
            self.save()
        if stop:
            raise Interrupted(f"{self.spec.run_id}: interrupted in epoch {place.epoch}")
        so_far = None
        if read is not None and read[1][0] == place.epoch:  # else of the epoch before
            loss_sum, (_, num_chunks) = read
            so_far = loss_sum / (num_chunks * self.spec.train_unroll_steps)
        self.progress.tick(so_far)
        self.clock = time.perf_counter()
        return so_far

    def validate(self, evaluation: Evaluation) -> float:
        """Returns the mean loss on the validation text, in nats per character.

        Raises:
            Interrupted: if `should_stop` returned True; a checkpoint is written first.
        """
        try:
            return mean_loss(evaluation(self.between_chunks))
        except Interrupted:
            self.save()  # all the epoch's chunks are trained: only this evaluation is left to do
            raise

    def between_chunks(self) -> None:
        """Stops if asked to, and notes the progress: evaluations of long texts take long."""
        if self.should_stop():
            raise Interrupted(f"{self.spec.run_id}: interrupted while evaluating")
        if self.progress.is_due():
            self.progress.tick()

    def end_epoch(self, train_nats: float, val_nats: float) -> Epoch:
        """Keeps the weights if they are the best so far; returns the epoch's record.

        Moves the run's place on to the next epoch.
        """
        step, place, config = self.step, self.place, self.spec.config
        if val_nats < place.best_val:
            place.best_val, place.best_epoch = val_nats, place.epoch
            self.best = {key: value.clone() for key, value in step.model.state_dict().items()}
        entry = Epoch(
            epoch=place.epoch,
            lr=self.rate_at(len(step.chunks) - 1),
            train_nats_per_char=train_nats,
            val_nats_per_char=val_nats,
            largest_state=float(step.state_LSBH.abs().max()),
            seconds_train=round(place.seconds_train, 3),
        )
        place.history.append(entry)
        place.epoch, place.chunk = place.epoch + 1, 0
        step.loss_sum.zero_()
        self.progress.epoch_done(entry)
        # Saves the evaluated epoch at once, even if checkpoint_seconds is longer; but if epochs are
        # short, at most once a second.
        since = time.monotonic() - self.last_checkpoint
        if place.is_over(config) or since >= min(config.checkpoint_seconds, TICK_SECONDS):
            self.save()
        return entry

    def save(self) -> None:
        """Writes a checkpoint."""
        Checkpoint.from_step(self.spec, self.step, self.place, self.best).save(self.folder)
        self.last_checkpoint = time.monotonic()

    def test(self, validation: Evaluation, test: Evaluation) -> float | None:
        """Returns the test loss of the weights that did best on validation, measured once. [code]

        Writes these weights and their loss on each character, from which the report computes
        intervals. Returns None, and writes nothing, if the loss is NaN or above MAX_NATS.
        """
        self.step.model.load_state_dict(self.best)
        val_nll_N = validation(self.between_chunks).cpu()
        test_nll_N = test(self.between_chunks).cpu()
        if not (test_nats := mean_loss(test_nll_N)) <= MAX_NATS:  # also true for NaN
            return None
        write_tested(self.spec, self.folder, self.best, val_nll_N, test_nll_N)
        return test_nats


def time_sampling(model: CharModel, say: Callable[[str], None]) -> float | None:
    """Returns the seconds to sample a character from a model on the CPU.

    Returns None, after a note, if that fails, as it may for a class of the user's, or if the text
    drives the state to infinity: the run is trained and tested, and gets its result all the same.
    """
    try:
        return round(seconds_per_char(model.eval()), 8)
    except Exception as error:  # of anyone's code
        say(f"note: no text can be sampled from this model ({one_line(error)})")
        return None
