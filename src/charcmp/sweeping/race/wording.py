"""The advice in words: one paragraph, for the terminal, the page and the record."""

from __future__ import annotations

from charcmp.output import counted, duration, length_text
from charcmp.report.analysis.wording import FEW_EPOCHS, FEW_EPOCHS_NOTE
from charcmp.sweeping.race.advice import Advice
from charcmp.sweeping.race.arms import label
from charcmp.sweeping.race.decide import FEWEST_SEEDS, WIDEST_SEED_SD, WORTH_KNOWING, seed_sds

PERCENT = 95


def advice_text(advice: Advice) -> str:
    """Returns the advice as a paragraph."""
    chosen, run = advice.chosen, advice.chosen.best_run
    seeds = len(chosen.results)
    size = f"{int(advice.budget):,} parameters" if advice.budget.isdecimal() else advice.budget
    sentences = [
        f"For {advice.dataset} at {size}, use {chosen.model.cell_label}, "
        f"{counted(run.layers, 'layer')} ({run.hidden_size} units, {run.num_params:,} "
        f"parameters), learning rate {chosen.rate:g}, {length_text(advice.epochs)}: "
        f"{chosen.test_nats:.3f} "
        f"test nats per character"
        + (f", the mean of {seeds} seeds." if seeds > 1 else ", from one seed.")
    ]
    sentences += [*_rivals(advice), *_best_single_run(advice), *_certainty(advice)]
    sentences += [*_left_out(advice), *_baselines(advice)]
    if advice.epochs < FEW_EPOCHS:
        sentences.append(FEW_EPOCHS_NOTE)
    cost = f"Training took {duration(chosen.seconds_train)} a run"
    if (micros := chosen.microseconds_per_sampled_char) is not None:
        cost += f"; sampling takes {micros:.0f} µs a character"
    sentences.append(f"{cost} ({run.device_name or run.device}).")
    return " ".join(sentences)


def _rivals(advice: Advice) -> list[str]:
    """Says how far the runner-up is behind, and which finalists are tied with the chosen one."""
    chosen, rival = advice.chosen, advice.runner_up
    if rival is None:
        return [] if advice.finish.unfinished else ["No other model is left to compare it with."]
    (against,) = [found for found in advice.finish.challenges if found.model == rival.model]
    distance = f"{label(rival.model)}, {abs(against.difference):.4f}"
    if against.difference >= 0:
        sentence = f"Next by validation loss: {distance} behind"
    elif against.of_models is None:
        sentence = f"Next by validation loss: {distance} ahead of it, but by one seed"
    else:
        sentence = (
            f"The lowest mean validation loss has {distance} ahead, which is at most one standard "
            "error, so the race takes the model with fewer layers"
        )
    if against.of_models is not None:
        low, high = against.interval(advice.finish.alpha)
        sentence += (
            f" ({advice.percent:.4g} % interval over seeds and text {low:+.4f} to {high:+.4f})"
        )
    sentence += f"; its test loss is {rival.test_nats:.3f}"
    if rival.test_nats < chosen.test_nats:
        sentence += ", which is lower, but only validation losses decide"
    sentence += "."
    if against.of_models is None:
        few = min(len(chosen.results), len(rival.results)) < 2
        why = "With one seed of either" if few else "On so short a validation text"
        return [f"{sentence} {why}, that says little about which is better."]
    if not advice.tied:
        return [sentence]
    quickest = min([chosen, *advice.tied], key=lambda finalist: finalist.seconds_train)
    named = ", ".join(label(finalist.model) for finalist in advice.tied)
    tie = f"It is tied with {named}: these runs cannot tell them apart."
    if quickest is not chosen:
        tie += f" {label(quickest.model)} trains quickest ({duration(quickest.seconds_train)})."
    return [sentence, tie]


def _best_single_run(advice: Advice) -> list[str]:
    """Names the single run that is better than the one handed over, if there is one."""
    if (lucky := advice.lucky) is None:
        return []
    losses = sorted(lucky.val_losses)
    sentence = (
        f"The best single run of all is one of {label(lucky.model)}, "
        f"{min(advice.chosen.val_losses) - losses[0]:.4f} ahead on validation text "
        f"(run={lucky.best_run.run_id})"
    )
    if len(losses) > 1:
        sentence += (
            f"; the seeds of that model end between {losses[0]:.3f} and {losses[-1]:.3f}, so "
            "another training of it may not do as well"
        )
    return [f"{sentence}."]


def _certainty(advice: Advice) -> list[str]:
    """Says how sure the advice is, or why it is not."""
    finish = advice.finish
    if finish.why_shorter == "worse" and finish.end != "worse":
        shorter = "Longer training did worse on this text, so the race ended at this length."
        return [shorter, *_certainty_at_this_length(advice)]
    return _certainty_at_this_length(advice)


def _certainty_at_this_length(advice: Advice) -> list[str]:
    finish, num_seeds = advice.finish, len(advice.chosen.results)
    if finish.unfinished:
        named = ", ".join(map(label, finish.unfinished))
        return [
            f"Time ran out before {named} had been trained for as long, so the answer may be "
            "another one; rerun with more minutes= to continue."
        ]
    if finish.end == "unstable":
        return [
            "At the length that was given further seeds, one seed of every finalist failed or "
            "diverged, so this is a run of another length, with one seed; clip=1 may help."
        ]
    if finish.end == "worse":
        return [
            "Longer training did worse on this text, so this is the result of a shorter run "
            "with one seed; another seed may change it."
        ]
    if finish.why_shorter == "cut off":
        return [
            "Time ran out before the longest runs finished, and short runs favour models that "
            "learn fast; rerun with more minutes= to continue."
        ]
    if num_seeds < 2:
        return [
            "With one seed the spread over seeds is unknown; rerun with more minutes= for more "
            "seeds."
        ]
    if finish.end == "time" and min(map(len, finish.outcomes.values())) < FEWEST_SEEDS:
        return [
            f"Time ran out before every finalist had the {FEWEST_SEEDS} seeds that a reliable "
            "answer needs; rerun with more minutes= to continue."
        ]
    if not advice.is_text_long_enough:
        return [
            "The validation text is too short to tell how much the losses vary over text, so "
            f"another finalist may be better by more than {WORTH_KNOWING:g} nats, however many "
            "seeds it gets; a longer text is needed to rule that out."
        ]
    if finish.end == "time":
        return [
            "Time ran out before it could be ruled out that another finalist is better by more "
            f"than {WORTH_KNOWING:g} nats; rerun with more minutes= to continue."
        ]
    if finish.end == "seeds":
        return [
            f"After {num_seeds} seeds, another finalist may still be better by "
            f"more than {WORTH_KNOWING:g} nats: either the models are that close, or their "
            "seeds vary that much."
        ]
    if not finish.challenges:
        return []
    promise = (
        f"With {PERCENT} % confidence no other finalist, trained once more at the learning "
        f"rate that it raced at, comes out better than this run by more than "
        f"{WORTH_KNOWING:g} nats on average, at this length of training and on text like the "
        "validation text."
    )
    return [promise, *_seeds_that_scatter(advice)]


def _seeds_that_scatter(advice: Advice) -> list[str]:
    """Names the finalists whose seeds differ by more than the promise allows for."""
    wide = {model: sd for model, sd in seed_sds(advice.finish.outcomes).items()
            if sd > WIDEST_SEED_SD}  # fmt: skip
    if not wide:
        return []
    named = ", ".join(
        f"{label(model)} (standard deviation {sd:.3f} nats)" for model, sd in wide.items()
    )
    return [
        f"The {PERCENT} % may be too many: the seeds of {named} scatter by more than the "
        f"{WIDEST_SEED_SD:g} nats up to which they hold."
    ]


def _left_out(advice: Advice) -> list[str]:
    """Says that nothing is promised of the models that were eliminated."""
    finish = advice.finish
    sentences = []
    if finish.unstable and finish.end != "unstable":
        named = ", ".join(map(label, finish.unstable))
        sentences.append(f"Left out, since a further seed failed or diverged: {named}.")
    if finish.num_models != len({*advice.finalists, *finish.unstable, *finish.unfinished}):
        sentences.append(
            "Models eliminated earlier had shorter training or fewer seeds, so this says nothing "
            "about them."
        )
    return sentences


def _baselines(advice: Advice) -> list[str]:
    """Names the n-grams and compressors that do better than the model."""
    ahead = [baseline for baseline in advice.baselines
             if baseline.nats_per_char < advice.chosen.test_nats]  # fmt: skip
    if not ahead:
        return []
    named = ", ".join(
        f"{baseline.name} ({baseline.nats_per_char:.3f}"
        + (f", {baseline.size:,} stored counts)" if baseline.size else ")")
        for baseline in ahead
    )
    return [f"Ahead of it on the same test text, without a network: {named}."]
