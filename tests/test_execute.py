"""The loop that samples with every solver."""

from __future__ import annotations

import weakref

import pytest
import torch

import fewstep as fs
from fewstep._execute import execute, plan

SOLVERS = {
    "euler": fs.classical.euler(6),
    "midpoint": fs.classical.midpoint(3),
    "rk4": fs.classical.rk4(2),
    "ab2": fs.classical.adams_bashforth(2, 6),
    "ab4": fs.classical.adams_bashforth(4, 8),
}


def random_rows(N, generator):
    return [torch.randn(i + 1, dtype=torch.float64, generator=generator).tolist() for i in range(N)]


def test_a_dense_random_table_is_summed_as_written():
    """Against the definition, written out with plain numbers."""
    generator = torch.Generator().manual_seed(0)
    C, D = random_rows(5, generator), random_rows(5, generator)
    times = [0.0, 0.3, 0.1, 0.9, 0.5]
    x, u = [0.7], []
    for c, d, t in zip(C, D, times, strict=True):
        u.append(0.3 * x[-1] ** 2 + t)
        x.append(
            sum(a * b for a, b in zip(c, x, strict=True)) + sum(a * b for a, b in zip(d, u, strict=True))
        )
    start = torch.tensor([0.7], dtype=torch.float64)
    end = execute(lambda j, x, t: 0.3 * x**2 + t, times, plan(C, D), {0: start}, {})
    assert end.item() == pytest.approx(x[-1], rel=1e-13)


def test_tensor_coefficients_give_the_sample_of_the_same_numbers():
    generator = torch.Generator().manual_seed(0)
    C, D = random_rows(4, generator), random_rows(4, generator)
    x0 = torch.randn(3, 2, dtype=torch.float64, generator=generator)

    def float64(c):
        return torch.tensor(c, dtype=torch.float64)

    def run(convert):
        rows = plan([list(map(convert, c)) for c in C], [list(map(convert, d)) for d in D])
        return execute(lambda j, x, t: x.sin() * t, [0.1, 0.2, 0.3, 0.4], rows, {0: x0}, {})

    torch.testing.assert_close(run(float64), run(float), rtol=1e-12, atol=1e-12)


def test_zeros_are_dropped():
    (row,) = plan([[1.0]], [[0.0]])
    assert row.states == ((0, 1.0),)
    assert row.predictions == ()


@pytest.mark.parametrize(
    ("name", "states", "predictions"), [("euler", 1, 0), ("midpoint", 2, 0), ("ab2", 1, 1)]
)
def test_what_no_later_row_reads_is_freed(name, states, predictions):
    """At a call the state being called is alive, and the history that later rows read; no more."""
    alive_states, alive_predictions, counts = weakref.WeakSet(), weakref.WeakSet(), []

    class Watched(fs.Field):
        """The network itself gets copies, and copies of its outputs are kept."""

        def at(self, t, like, wanted=None):
            inner = super().at(t, like, wanted)

            def call(x, conditions):
                alive_states.add(x)
                counts.append((len(alive_states), len(alive_predictions)))
                m = inner(x, conditions)
                alive_predictions.add(m)
                return m

            return call

    SOLVERS[name].sample(Watched(lambda x, t: -x), torch.ones(2, 2))
    # x_0 is the caller's, and stays
    assert max(count for count, _ in counts) <= states + 1
    assert max(count for _, count in counts) == predictions


@pytest.mark.parametrize("name", SOLVERS)
def test_the_plan_keeps_everything_that_is_still_to_be_read(name):
    """Planned and unplanned execution agree to the last bit."""
    solver = SOLVERS[name]
    x0 = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def call(j, x, t):
        return x.cos() * (1 + t)

    everything = plan(solver.C, solver.D, range(solver.nfe + 1), keep_predictions=True)
    states, predictions = {0: x0}, {}
    full = execute(call, solver.times, everything, states, predictions)
    assert set(states) == set(range(solver.nfe + 1))
    assert set(predictions) == set(range(solver.nfe))
    lean = {0: x0}
    end = execute(call, solver.times, plan(solver.C, solver.D), lean, {})
    assert torch.equal(end, full)
    assert set(lean) == {solver.nfe}


def test_execution_can_start_in_the_middle():
    """Known history is used as it is, and not called again."""
    solver = SOLVERS["ab4"]
    x0 = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = plan(solver.C, solver.D, range(solver.nfe + 1), keep_predictions=True)
    states, predictions = {0: x0}, {}
    end = execute(lambda j, x, t: x.cos(), solver.times, rows, states, predictions)
    known = {j: x for j, x in states.items() if j < 4}
    called = []

    def call(j, x, t):
        called.append(j)
        return x.cos()

    again = execute(call, solver.times, rows, known, {j: predictions[j] for j in range(3)}, start=4)
    assert torch.equal(again, end)
    assert called == list(range(3, solver.nfe))


def test_a_row_of_zeros_is_the_zero_state():
    """A table may throw everything away; the state is then zero, not an error."""
    solver = fs.Solver(times=(0.0, 0.5), C=((0.0,), (0.0, 1.0)), D=((0.0,), (0.0, 1.0)), points=(0, 1, 2))
    x1 = solver.sample(lambda x, t: x + 3, torch.randn(2, 3))
    assert torch.equal(x1, torch.full((2, 3), 3.0))
