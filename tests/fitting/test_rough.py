"""Fits to a network with ripples over time, whose derivatives hold over short ways only."""

from __future__ import annotations

import math

import fewstep as fs
from fewstep.fitting._jacobian import Differences


class Rippled:
    """A smooth network with ripples, of a size and a number of turns over time."""

    def __init__(self, network, size, turns):
        self.network, self.size, self.turns = network, size, turns

    def __call__(self, x, t):
        return self.network(x, t) + self.size * (2 * math.pi * self.turns * t[:, None]).sin()


def fitted(size):
    field = fs.Field(Rippled(fs.models.random_mixture(4, 3), size, 30), shape=(4,), name=f"ripples of {size}")
    return fs.fit(field, 4, pairs=32, init="deis3/cosine", reference=fs.fitting.Reference(1e-4, 1e-4)).report


def test_differences_go_on_where_derivatives_lead_no_further(monkeypatch):
    report = fitted(0.1)
    (note,) = (note for note in report.notes if note.startswith("derivatives led no further"))
    assert "differences of whole rollouts, which cost more calls, were taken from there" in note
    monkeypatch.setattr("fewstep.fitting._gauss_newton.ROUGH", math.inf)
    without = fitted(0.1)
    assert not any("rough" in note for note in without.notes)
    assert min(row["loss"] for row in report.curve) < 0.5 * min(row["loss"] for row in without.curve)
    assert report.errors["fitted"] < 0.8 * without.errors["fitted"]


def test_a_smooth_network_keeps_its_derivatives(monkeypatch):
    made, init = [], Differences.__init__
    monkeypatch.setattr(Differences, "__init__", lambda self, *a: made.append(1) or init(self, *a))
    assert not any("rough" in note for note in fitted(0.0).notes)
    assert not made
