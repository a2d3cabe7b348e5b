"""How the orders of exponential solvers are measured."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs


@pytest.fixture
def equal_log_snr():
    """``equal_log_snr(schedule, steps)``: a grid in the inside, uniform in lambda, for classical orders."""

    def make(schedule, steps, low=-1.5, high=3.0):
        values = torch.linspace(low, high, steps + 1, dtype=torch.float64)
        return schedule.inverse_log_snr(values).tolist()

    return make


@pytest.fixture
def measured_order(mixture_1d, line, equal_log_snr):
    """``measured_order(build, schedule)``: of ``build(grid)`` on a mixture with a closed-form flow map."""

    def measure(build, schedule, steps=24, grid=equal_log_snr):
        network, transport = mixture_1d(schedule, "data")

        def error(count):
            times = grid(schedule, count)
            x = line * float(schedule(times[0]).sigma)
            noise = x / float(schedule(0.0).sigma)  # its initial state is x, whatever the time
            return (build(times).sample(network.field(), noise) - transport(x, times[0], times[-1])).norm()

        return float((error(steps) / error(2 * steps)).log2())

    return measure


@pytest.fixture
def exact_history(mixture_1d, line):
    """``exact_history(build, schedule, h)``: what the last row of ``build(grid)`` makes of exact states.

    The grid has five points about ``h`` apart in lambda. Returns the error, the data predictions, newest
    last, and alpha at the end.
    """

    def make(build, schedule, h):
        network, transport = mixture_1d(schedule, "data")
        values = 0.3 + h * torch.tensor([-2.8, -1.7, -0.8, 0.0, 1.0], dtype=torch.float64)
        grid = schedule.inverse_log_snr(values).tolist()
        solver = build(grid)
        states = [transport(line, grid[0], t) for t in grid]
        data = [network(x, torch.tensor(t)) for x, t in zip(states[:-1], grid[:-1], strict=True)]
        x = sum(c * s for c, s in zip(solver.C[-1], states[:-1], strict=True))
        x = x + sum(d * m for d, m in zip(solver.D[-1], data, strict=True))
        return x - states[-1], data, float(schedule(grid[-1]).alpha)

    return make


@pytest.fixture
def local_order(exact_history):
    """``local_order(build, schedule)``: how fast the error of one row with exact history falls."""

    def measure(build, schedule):
        coarse, fine = (exact_history(build, schedule, h)[0].norm() for h in (0.08, 0.04))
        return float((coarse / fine).log2())

    return measure


@pytest.fixture
def gaussian_flow():
    """``gaussian_flow(schedule)``: a field, starting noises, and where its exact flow takes them.

    x_1 = mu + s / std(0) (x_0 - alpha(0) mu), for one Gaussian of mean mu and standard deviation s.
    """

    def make(schedule):
        mu, s = 0.4, 0.5
        means = torch.full((1, 1), mu, dtype=torch.float64)
        field = fs.models.GaussianMixture(means, s, schedule=schedule, prediction="data").field()
        x0 = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
        alpha, sigma = schedule(0.0)[:2]
        exact = mu + s / (alpha**2 * s**2 + sigma**2).sqrt() * (field.initial_state(x0) - alpha * mu)
        return field, x0, exact

    return make
