"""UniPC: measured orders, its relation to DPM-Solver++, and both ends of time."""

from __future__ import annotations

import pytest
import torch

from fewstep.classical import ddim, dpm_solver, dpmpp, exponential_adams, unipc
from fewstep.schedules import VE, VP, CondOT, Cosine

SCHEDULES = [CondOT(), VP(), Cosine(), VE(5.0)]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
each_variant = pytest.mark.parametrize("variant", ["bh1", "bh2"])
each_prediction = pytest.mark.parametrize("prediction", ["data", "noise"])


@pytest.mark.parametrize("schedule", [CondOT(), VP()], ids=repr)
@each_variant
@each_prediction
@pytest.mark.parametrize(("order", "measured"), [(1, 2), (2, 3), (3, 3)])
def test_the_corrector_adds_an_order(schedule, variant, prediction, order, measured, measured_order):
    """Order 3 is held at 3 by its first steps, which are of lower order."""

    def build(grid):
        return unipc(
            order,
            schedule=schedule,
            grid=grid,
            variant=variant,
            prediction=prediction,
            lower_order_final=False,
        )

    assert measured_order(build, schedule) > measured - 0.35


@each_schedule
@each_prediction
def test_one_step_is_ddim(schedule, prediction):
    solver, plain = unipc(3, 1, schedule=schedule, prediction=prediction), ddim(1, schedule=schedule)
    assert (solver.C, solver.D) == (plain.C, plain.D)


@pytest.mark.parametrize(("prediction", "other"), [("data", dpmpp), ("noise", dpm_solver)])
def test_what_the_corrector_adds_to_dpm_solver_2m(prediction, other):
    """Row i of bh2 less row i of 2M is the change of the state before, carried over the step."""
    schedule, grid = VP(), [0.1, 0.3, 0.6, 0.8]
    solver = unipc(2, schedule=schedule, grid=grid, prediction=prediction, lower_order_final=False)
    plain = other("2M", schedule=schedule, grid=grid)
    a, s = (x.tolist() for x in schedule(torch.tensor(grid, dtype=torch.float64))[:2])
    ratio = s[2] / s[1] if prediction == "data" else a[2] / a[1]
    # The corrector of order 1 moves half of the weight to the new call.
    h = [float(schedule.log_snr(t)) for t in grid]
    half = -torch.expm1(torch.tensor(h[0] - h[1], dtype=torch.float64)).item() / 2
    if prediction == "data":
        states, calls = [0, 0], [-ratio * a[1] * half, ratio * a[1] * half]
    else:
        weight = ratio * a[1] * s[0] / a[0] * half
        states = [weight / s[0], -weight / s[1]]
        calls = [-weight * a[0] / s[0], weight * a[1] / s[1]]
    assert [x - y for x, y in zip(solver.C[1], plain.C[1], strict=True)] == pytest.approx(states, abs=1e-12)
    assert [x - y for x, y in zip(solver.D[1], plain.D[1], strict=True)] == pytest.approx(calls, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
@each_variant
@each_prediction
@each_schedule
def test_it_converges_from_pure_noise_to_pure_data(order, variant, prediction, schedule, gaussian_flow):
    field, x0, exact = gaussian_flow(schedule)

    def error(steps):
        solver = unipc(order, steps, schedule=schedule, variant=variant, prediction=prediction)
        assert solver.nfe == steps
        return float((solver.sample(field, x0) - exact).abs().max())

    assert error(64) < max(0.5 * error(16), 0.002)


def test_a_corrector_from_pure_noise_takes_half_of_each_prediction():
    """x1 is sigma x0 + alpha (d0 + d1) / 2, carried by the ratio of sigmas: the limit of bh2."""
    schedule, grid = CondOT(), [0.0, 0.25, 0.5, 1.0]
    limit = unipc(1, schedule=schedule, grid=[1e-9, *grid[1:]])
    for row, other in zip(unipc(1, schedule=schedule, grid=grid).D, limit.D, strict=True):
        assert row == pytest.approx(other, abs=1e-8)


def test_lower_orders_at_the_end_are_the_default():
    schedule, grid = VP(), [0.1, 0.3, 0.5, 0.7, 0.8, 0.9]
    lower = unipc(3, schedule=schedule, grid=grid)
    full = unipc(3, schedule=schedule, grid=grid, lower_order_final=False)
    assert lower.D[:3] == full.D[:3]
    assert lower.D[3] != full.D[3]
    # The polynomial of order 3 does not see B(h), and no other solver here has its rows.
    other = exponential_adams(3, schedule=schedule, grid=grid)
    assert other.D[-1] != pytest.approx(full.D[-1], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": 4}, "order must be 1, 2 or 3, not 4"),
        ({"order": 2, "variant": "bh3"}, "variant must be 'bh1' or 'bh2', not 'bh3'"),
        ({"order": 2, "prediction": "v"}, "an exponential solver weighs 'data' or 'noise', not 'v'"),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        unipc(steps=4, **options)
