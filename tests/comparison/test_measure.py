import time
import weakref

import pytest
import torch

import fewstep as fs
from fewstep.comparison._measure import measure

FIELD = fs.Field(lambda x, t: -x, shape=(3,), name="decay")


def pairs(count):
    x0 = fs.noise(count, (3,), seed=1)
    return fs.Pairs(x0, x0 / 2)


class Doubling:
    """In place of a solver: takes a second for each batch, and knows whether its samples are still there."""

    nfe = 1

    def __init__(self):
        self.made, self.now = [], 0.0

    def sample(self, field, x0):
        self.now += 1
        x1 = (2 * x0).numpy()
        self.made.append(weakref.ref(x1))
        return torch.from_numpy(x1)

    def alive(self):
        return sum(x1() is not None for x1 in self.made)


def measured(solver, count, batch, keep=0, advance=lambda calls: None):
    return measure(FIELD, solver, pairs(count), batch=batch, keep=keep, quality=None, advance=advance)


@pytest.mark.parametrize("keep", [0, 1, 5])
def test_no_batch_stays_in_memory(keep):
    solver, alive = Doubling(), []
    found = measured(solver, 9, 3, keep, lambda calls: alive.append(solver.alive()))
    assert alive == [1, 1, 1]
    assert torch.equal(found.samples, 2 * pairs(9).x0[:keep])


@pytest.mark.parametrize(("count", "batch", "seconds"), [(7, 3, 7 / 3), (4, 3, 4 / 3), (2, 3, 1), (6, 3, 2)])
def test_the_time_is_that_of_full_batches(monkeypatch, count, batch, seconds):
    solver = Doubling()
    monkeypatch.setattr(time, "perf_counter", lambda: solver.now)
    assert measured(solver, count, batch).seconds == pytest.approx(seconds)
