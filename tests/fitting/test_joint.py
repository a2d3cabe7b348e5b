"""Gauss-Newton on solvers that share a theta, against the theta perturbed as a whole."""

from __future__ import annotations

import pytest
import torch
from fewstep.fitting.gauss_newton import GaussNewton
from fewstep.fitting.joint import JointGaussNewton, Task

from fewstep.families import Curve, Family, Guided, NonStationary, Timesteps
from fewstep.fitting import ENDPOINT_LOSSES
from fewstep.fitting._rollout import Rollout

RMSE = ENDPOINT_LOSSES["rmse"]


class Whole(Family):
    """A linked family that hides its link."""

    name, citation = "whole", ()

    def __init__(self, linked):
        self.linked, self.nfe, self.size = linked, linked.nfe, linked.size
        self.points, self.end = linked.own.points, linked.own.end

    def table(self, theta):
        return self.linked.table(theta)

    def describe(self, theta):
        return {}


@pytest.fixture(params=["curve", "guided"])
def members(request):
    if request.param == "curve":
        curve = Curve(degree=2, terms=3, differences=1)
        return [curve.member(nfe) for nfe in (2, 5)]
    guided = Guided(NonStationary(Timesteps("ab2", 3, decoupled=True)), 1, 4, terms=3)
    return [guided.member(w) for w in (1, 2.5, 4)]


def test_the_linear_map_gives_the_normal_equations_of_theta_perturbed_as_a_whole(
    members, bending, double_pairs
):
    pairs = double_pairs(bending, 5)
    size = members[0].size
    theta = 0.1 * torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    joint = JointGaussNewton(
        [Task(Rollout(bending, 64), member, pairs) for member in members], RMSE, step=1e-6
    )
    A, g = joint._normal_equations(theta, pairs)
    expected = [torch.zeros_like(A), torch.zeros_like(g)]
    for member in members:
        alone = GaussNewton(Rollout(bending, 64), Whole(member), pairs, RMSE, step=1e-6)
        for total, part in zip(expected, alone._normal_equations(theta, pairs), strict=True):
            total += part / alone._loss(theta, pairs) / len(members)
    scale = float(expected[0].abs().max())
    torch.testing.assert_close(A, expected[0], rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(g, expected[1], rtol=1e-4, atol=1e-5 * float(g.abs().max()))


def test_terms_cost_no_calls(bending, double_pairs):
    """The steps are given, so that none is measured: one perturbation for each of a member's own numbers."""
    pairs, calls = double_pairs(bending, 4), []
    for terms in (1, 3):
        curve = Curve(degree=2, terms=terms, differences=1)
        rollout = Rollout(bending, 64)
        tasks = [Task(rollout, curve.member(nfe), pairs) for nfe in (3, 4)]
        JointGaussNewton(tasks, RMSE, step=1e-6)._normal_equations(
            torch.zeros(curve.size, dtype=torch.float64), pairs
        )
        calls.append(rollout.calls)
    assert calls[0] == calls[1]


def test_a_loss_that_is_known_is_not_rolled_out_again(members, bending, double_pairs):
    """Looking at the loss first costs no call more than not looking: the normal equations weigh with it."""
    pairs, theta, calls, systems = double_pairs(bending, 4), torch.zeros(members[0].size).double(), [], []
    for looked in (True, False):
        rollout = Rollout(bending, 64)
        joint = JointGaussNewton([Task(rollout, member, pairs) for member in members], RMSE, step=1e-6)
        if looked:
            joint._loss(theta + 1, pairs)
            before = rollout.calls
            joint._loss(theta, pairs)
            assert rollout.calls == 2 * before  # another theta is another loss
            joint._loss(theta, pairs)
        systems.append(torch.cat([part.flatten() for part in joint._normal_equations(theta, pairs)]))
        calls.append(rollout.calls - (before if looked else 0))
    assert calls[0] == calls[1]
    assert torch.equal(*systems)


def test_fields_that_share_a_rollout_count_and_stop_together(bending, double_pairs):
    pairs, first = double_pairs(bending, 2), Rollout(bending, 64)
    second = first.sharing(bending)
    table = Curve().member(3).own.solver().table.unroll()
    first.squared_error(table, pairs)
    second.squared_error(table, pairs)
    assert first.calls == second.calls == 12
    first.limit = 15
    with pytest.raises(RuntimeError):
        second.squared_error(table, pairs)
