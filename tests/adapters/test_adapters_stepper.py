"""Solvers one network call at a time, against the same solvers in our own loop."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import fewstep as fs
from fewstep.adapters._stepper import Stepper

SHAPE = (1, 2, 2)
NOISE = fs.noise(4, SHAPE, seed=0)
S = fs.schedules


def solvers(schedule):
    classical = fs.classical
    return [
        classical.midpoint(3),
        classical.heun(3),
        classical.rk4(2),
        classical.euler(5).unroll(),
        classical.dpmpp("2M", 6, schedule=schedule),
        classical.dpm_solver("2S", 3, schedule=schedule),
        classical.edm_heun(4, schedule=schedule),
    ]


def fields(exact):
    return [
        fs.Field(exact(schedule, prediction), schedule, prediction, clock=(0, 1), shape=SHAPE)
        for schedule in (S.CondOT(), S.VP(), S.DDPM(zero_terminal_snr=True), S.VE(80.0))
        for prediction in ("velocity", "noise", "data", "v")
    ]


def sample(stepper, field, noise, edit=None, wide=True):
    """What a framework does: ``edit(j, x)`` changes the state before call ``j``."""
    x = field.initial_state(noise).to(noise.dtype)
    history = stepper.begin(x)
    for j, t in enumerate(stepper.called):
        if edit is not None:
            x = edit(j, x)
        history, x = stepper.step(history, field.predict(x, t), edited=x)
        x = x.to(noise.dtype, copy=True)
    return x


def relative(ours, expected):
    return float((ours - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def test_samples_as_the_solver_does(exact):
    tried = 0
    for field in fields(exact):
        for solver in solvers(field.schedule):
            stepper = Stepper.of(solver, field.prediction, field.schedule)
            error = relative(sample(stepper, field, NOISE), solver.sample(field, NOISE))
            # A velocity from data just before pure data is a difference of nearly equal numbers.
            close = field.prediction == "data" and solver.prediction == "velocity" and solver.times[-1] == 1
            assert error < (5e-3 if close else 1e-5), (field, solver.name, error)
            tried += 1
    assert tried == 16 * 7


def test_network_is_called_inside_where_its_prediction_is_not_enough():
    stepper = Stepper.of(fs.classical.euler(4), "noise", S.CondOT())
    assert stepper.called[0] == pytest.approx(1e-4, rel=0.1)
    assert stepper.called[1:] == (0.25, 0.5, 0.75)
    assert stepper.times == (0, 0.25, 0.5, 0.75, 1)


def test_states_are_float32_under_half_precision(exact):
    """The samples are as far from float32's as rounding the input of the network alone takes them."""
    field = fs.Field(exact(S.CondOT(), "velocity"), shape=SHAPE)
    stepper = Stepper.of(fs.classical.euler(64), "velocity", S.CondOT())
    half = NOISE.to(torch.bfloat16)
    history = stepper.begin(half)
    x = half
    for t in stepper.called:
        history, state = stepper.step(history, field.predict(x.float(), t), edited=x)
        assert state.dtype == torch.float32
        x = state.to(torch.bfloat16)
    expected = fs.classical.euler(64).sample(field, half.float())
    kept = relative(state, expected)
    x = half
    for t in stepper.called:
        x = (x + field.predict(x.float(), t) / 64).to(torch.bfloat16)
    assert kept < 0.3 * relative(x.float(), expected)


@pytest.mark.parametrize("kind", ["heun", "euler unrolled", "2M", "2M unrolled", "noise unrolled"])
def test_an_edit_is_carried_on(exact, kind):
    """Where a solver needs no history, a changed state is the same as a new start; others are close to it."""
    schedule = S.CondOT() if kind in ("heun", "euler unrolled") else S.VP()
    prediction = "velocity" if schedule == S.CondOT() else "noise"
    field = fs.Field(exact(schedule, prediction), schedule, prediction, shape=SHAPE)
    n = 6
    solver = {
        "heun": fs.classical.heun(n),
        "euler unrolled": fs.classical.euler(n).unroll(),
        "2M": fs.classical.ddim(n, schedule=schedule),
        "2M unrolled": fs.classical.ddim(n, schedule=schedule).unroll(),
        "noise unrolled": fs.classical.dpm_solver("1", n, schedule=schedule).unroll(),
    }[kind]
    call = 4  # a point of all of them
    stepper = Stepper.of(solver, prediction, schedule)
    met = {}

    def edit(j, x):
        met[j] = x + 0.7 if j == call else x
        return met[j]

    edited = sample(stepper, field, NOISE, edit)
    # The one-step methods go on from the changed state alone.
    t = solver.times[call]
    grid = [s for s in solver.point_times if s >= t]
    if kind == "heun":
        rest = fs.classical.heun(grid=grid)
    elif kind == "euler unrolled":
        rest = fs.classical.euler(grid=grid)
    elif kind == "noise unrolled":
        rest = fs.classical.dpm_solver("1", grid=grid, schedule=schedule)
    else:
        rest = fs.classical.ddim(grid=grid, schedule=schedule)
    inner = Stepper.of(rest, prediction, schedule)
    history, x = inner.begin(met[call]), met[call]
    for s in inner.called:
        history, x = inner.step(history, field.predict(x, s))
    assert relative(edited, x) < 1e-5
    assert relative(edited, sample(stepper, field, NOISE)) > 1e-2


def test_an_edit_by_another_object_or_type_is_none(exact):
    field = fs.Field(exact(S.CondOT(), "velocity"), shape=SHAPE)
    stepper = Stepper.of(fs.classical.heun(4), "velocity", S.CondOT())
    plain = sample(stepper, field, NOISE)
    assert torch.equal(sample(stepper, field, NOISE, lambda j, x: x.clone()), plain)


def test_enters_in_the_middle_by_dpmpp_2m(exact):
    schedule = S.VP()
    field = fs.Field(exact(schedule, "noise"), schedule, "noise", shape=SHAPE)
    data = torch.full((4, *SHAPE), 0.5)
    for solver in (fs.classical.euler(8), fs.classical.heun(4), fs.classical.rk4(2)):
        full = Stepper.of(solver, "noise", schedule)
        for call in (2, 5, 7):
            stepper = full.entered(call)
            assert stepper.nfe == 8 - call
            assert stepper.times == full.times[call:]
            alpha, sigma = (float(c) for c in schedule(stepper.times[0])[:2])
            x = alpha * data + sigma * NOISE
            history, x = stepper.begin(x), x
            start = x
            for t in stepper.called:
                history, x = stepper.step(history, field.predict(x, t))
            grid = sorted(set(stepper.times))
            if len(grid) > 1:
                rest = fs.classical.dpmpp("2M", grid=grid, schedule=schedule)
                expected = rest.sample(field, start / float(schedule(0.0).sigma))
                assert relative(x, expected) < 1e-5
            else:
                assert torch.equal(x, start)
    assert full.entered(0) is full


def test_entering_makes_nothing_of_calls_that_go_back(exact):
    """The network is called at .3 when the state is at .6 already."""
    schedule = S.VP()
    field = fs.Field(exact(schedule, "noise"), schedule, "noise", shape=SHAPE)
    D = ((0.2,), (0.0, 0.1), (0.0, 0.0, 0.5), (0.0, 0.0, 0.0, 0.4), (0.0, 0.0, 0.0, 0.0, 0.2))
    C = tuple((1.0, *[0.0] * i) for i in range(5))
    solver = fs.Solver((0.0, 0.2, 0.6, 0.3, 0.8), C, D, (0, 1, 2, 5))
    stepper = Stepper.of(solver, "noise", schedule).entered(2)
    assert stepper.called == (0.6, 0.3, 0.8)
    history, x = stepper.begin(NOISE), NOISE
    for t in stepper.called:
        history, x = stepper.step(history, field.predict(x, t) if t != 0.3 else torch.full_like(x, 9.0))
    rest = fs.classical.dpmpp("2M", grid=[0.6, 0.8, 1.0], schedule=schedule)
    assert relative(x, rest.sample(field, field.initial_noise(NOISE))) < 1e-5


def test_entering_is_more_accurate_than_ddim(exact):
    """From a noised image, on the same times."""
    schedule = S.VP()
    field = fs.Field(exact(schedule, "noise"), schedule, "noise", shape=SHAPE)
    full = Stepper.of(fs.classical.adams_bashforth(3, 16), "noise", schedule)
    data = exact(schedule, "data").means[0].reshape(SHAPE).float()
    for call in (3, 6, 9):
        stepper = full.entered(call)
        alpha, sigma = (float(c) for c in schedule(stepper.times[0])[:2])
        start = alpha * data + sigma * NOISE
        fine = torch.linspace(stepper.times[0], 1, 401, dtype=torch.float64).tolist()
        expected, ddim = (
            solver.sample(field, start / float(schedule(0.0).sigma))
            for solver in (
                fs.classical.dpmpp("2M", grid=fine, schedule=schedule),
                fs.classical.ddim(grid=stepper.times, schedule=schedule),
            )
        )
        history, x = stepper.begin(start), start
        for s in stepper.called:
            history, x = stepper.step(history, field.predict(x, s))
        assert relative(x, expected) < 0.8 * relative(ddim, expected), call


def test_no_step_changes_a_history(exact):
    field = fs.Field(exact(S.CondOT(), "velocity"), shape=SHAPE)
    stepper = Stepper.of(fs.classical.rk4(2).unroll(), "velocity", S.CondOT())
    history = stepper.begin(NOISE)
    given = NOISE.clone()
    history, x = stepper.step(history, field.predict(given, 0.0))
    before = {k: v.clone() for k, v in history.states.items()}
    m = field.predict(x, stepper.called[1])
    once, _ = stepper.step(history, m, edited=x + 1)
    again, _ = stepper.step(history, m, edited=x + 1)
    assert all(torch.equal(history.states[k], v) for k, v in before.items())
    assert all(torch.equal(once.states[k], again.states[k]) for k in again.states)
    assert history.call == 1
    begun = stepper.begin(given)
    given.zero_()
    assert torch.equal(begun.states[0], NOISE)


def test_serves_many_threads(exact):
    field = fs.Field(exact(S.VP(), "noise"), S.VP(), "noise", shape=SHAPE)
    stepper = Stepper.of(fs.classical.dpmpp("3M", 8, schedule=S.VP()), "noise", S.VP())
    noises = [fs.noise(2, SHAPE, seed=i) for i in range(8)]
    alone = [sample(stepper, field, noise) for noise in noises]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda noise: sample(stepper, field, noise), noises))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_refusals():
    solver = fs.classical.dpmpp("2M", 2, schedule=S.VP())
    with pytest.raises(ValueError, match=r"table of data predictions for VP.*CondOT"):
        Stepper.of(solver, "velocity", S.CondOT())
    stepper = Stepper.of(solver, "data", S.VP())
    history = stepper.begin(NOISE)
    for _ in range(2):
        history, _ = stepper.step(history, NOISE)
    with pytest.raises(ValueError, match="all 2 calls of the solver are made"):
        stepper.step(history, NOISE)
