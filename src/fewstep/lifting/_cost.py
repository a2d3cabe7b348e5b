"""What corrections cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from .._device import wait
from ..field import Field
from ..lifted import Lifted
from ..pairs import Pairs
from ._rollouts import inputs

__all__ = ["share_of_a_call"]

#: Measurements of which the median counts.
_TIMES = 5


@torch.no_grad()
def share_of_a_call(lifted: Lifted, field: Field, pairs: Pairs) -> float:
    """Return the time of all corrections of a batch over that of one call of the field."""
    bound = pairs.bind(field)
    x0, *predictions, x = inputs(lifted.uncorrected, bound, pairs.x0)
    corrected = [i for i in range(1, lifted.nfe + 1) if lifted.corrector.corrects(i)]

    def correct() -> None:
        for i in corrected:
            lifted.corrector(i, x0, predictions[:i], x)

    return _seconds(correct, x0.device) / _seconds(lambda: bound(x, lifted.times[-1]), x0.device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    work()
    found = []
    for _ in range(_TIMES):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - start)
    return median(found)
