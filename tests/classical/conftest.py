"""How the order of an exponential solver is measured."""

from __future__ import annotations

import pytest
import torch


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

    def measure(build, schedule, steps=40, grid=equal_log_snr):
        network, transport = mixture_1d(schedule, "data")

        def error(count):
            times = grid(schedule, count)
            x = line * float(schedule(times[0]).sigma)
            noise = x / float(schedule(0.0).sigma)  # its initial state is x, whatever the time
            return (build(times).sample(network.field(), noise) - transport(x, times[0], times[-1])).norm()

        return float((error(steps) / error(2 * steps)).log2())

    return measure
