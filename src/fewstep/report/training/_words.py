"""The state of a training run in words."""

from __future__ import annotations

import time

from ._run import Run

__all__ = ["clock", "headline"]


def headline(run: Run) -> str:
    """Return state, progress and results of a run in a few sentences."""
    sentences = [_stands(run)]
    samples, count = run.metrics.last("samples"), run.fact("data", "count")
    if samples and run.rate:
        epochs = f" ({_count(samples / count)} epochs)" if count else ""
        sentences.append(f"{_count(samples)} samples seen{epochs}, {_count(run.rate)} a second.")
    reached = []
    if (loss := run.metrics.last("loss")) is not None:
        reached.append(f"training loss {loss:.4g}")
    if losses := run.metrics.of("validation_loss"):
        best = min(losses, key=lambda step: losses[step])
        reached.append(f"best validation loss {losses[best]:.4g}, at step {best:,}")
    if reached:
        sentence = "; ".join(reached)
        sentences.append(sentence[0].upper() + sentence[1:] + ".")
    else:
        sentences.append("No figures have been logged yet.")
    if run.state != "silent" and run.seen is not None:
        sentences.append(f"As of {clock(run.seen)}.")
    return " ".join(sentences)


def clock(seconds: float) -> str:
    """Format a time in the local time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds))


def _stands(run: Run) -> str:
    step, steps = run.step, run.steps
    at = f"step {step:,}" + (f" of {steps:,} ({100 * step / steps:.0f} %)" if steps else "")
    batch = run.fact("settings", "batch")
    if run.state == "running":
        left = f", about {_duration((steps - step) * batch / run.rate)} left" if steps and run.rate else ""
        return f"Running, at {at}{left}."
    if run.state == "finished":
        return f"Finished: {step:,} steps, {_duration(run.seconds)} of training."
    if run.state == "interrupted":
        return f"Interrupted at {at}{', which is saved' if run.saved == step else ''}."
    if run.state == "failed":
        return f"Failed at {at}: {str(run.record['ended']['why']).rstrip('.')}."
    since = f" since {clock(run.seen)}" if run.seen is not None else ""
    return f"No news{since}, at {at}: it was probably killed."


def _count(number: float) -> str:
    """Format a count with few digits."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days {hours % 24} h"
