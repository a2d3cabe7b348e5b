"""Gauss-Newton on solvers that share a theta, against the theta perturbed as a whole."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.families import Family, Guided, NonStationary, SmoothCorrections, Timesteps
from fewstep.fitting import ENDPOINT_LOSSES, GaussNewton
from fewstep.fitting._gauss_newton import System, gauss_newton
from fewstep.fitting._rollout import Rollout
from fewstep.fitting._task import Task

RMSE, FIXED = ENDPOINT_LOSSES["rmse"], GaussNewton(step=1e-6)
CURVE = SmoothCorrections("ab2", degree=1, terms=1, differences=1, startup=1)


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
        curve = SmoothCorrections("ab2", degree=1, terms=3, differences=1, startup=1)
        return [curve.member(nfe) for nfe in (2, 5)]
    guided = Guided(NonStationary(Timesteps("ab2", 3, decoupled=True)), 1, 4, terms=3)
    return [guided.member(3, w) for w in (1, 2.5, 4)]


def test_the_linear_map_gives_the_normal_equations_of_theta_perturbed_as_a_whole(
    linearised, members, bending, double_pairs
):
    pairs = double_pairs(bending, 5)
    size = members[0].size
    theta = 0.1 * torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tasks = [Task(Rollout(bending, 64), member, pairs) for member in members]
    A, g = System(tasks, RMSE, FIXED).normal_equations(theta)
    expected = [torch.zeros_like(A), torch.zeros_like(g)]
    for member in members:
        alone = linearised(Rollout(bending, 64), Whole(member), pairs, step=1e-6)
        for total, part in zip(expected, alone.normal_equations(theta), strict=True):
            total += part / alone.loss(theta) / len(members)
    scale = float(expected[0].abs().max())
    torch.testing.assert_close(A, expected[0], rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(g, expected[1], rtol=1e-4, atol=1e-5 * float(g.abs().max()))


def test_terms_cost_no_calls(bending, double_pairs):
    """The steps are given, so that none is measured: one perturbation for each of a member's own numbers."""
    pairs, calls = double_pairs(bending, 4), []
    for terms in (1, 3):
        curve = SmoothCorrections("ab2", degree=1, terms=terms, differences=1, startup=1)
        rollout = Rollout(bending, 64)
        tasks = [Task(rollout, curve.member(nfe), pairs) for nfe in (3, 4)]
        System(tasks, RMSE, FIXED).normal_equations(torch.zeros(curve.size, dtype=torch.float64))
        calls.append(rollout.calls)
    assert calls[0] == calls[1]


def test_a_loss_that_is_known_is_not_rolled_out_again(members, bending, double_pairs):
    """Looking at the loss first costs no call more than not looking: the normal equations weigh with it."""
    pairs, theta, calls, systems = double_pairs(bending, 4), torch.zeros(members[0].size).double(), [], []
    for looked in (True, False):
        rollout = Rollout(bending, 64)
        system = System([Task(rollout, member, pairs) for member in members], RMSE, FIXED)
        if looked:
            system.loss(theta + 1)
            before = rollout.calls
            system.loss(theta)
            assert rollout.calls == 2 * before  # another theta is another loss
        systems.append(torch.cat([part.flatten() for part in system.normal_equations(theta)]))
        calls.append(rollout.calls - (before if looked else 0))
    assert calls[0] == calls[1]
    assert torch.equal(*systems)


def test_fields_that_share_a_rollout_count_and_stop_together(bending, double_pairs):
    pairs, first = double_pairs(bending, 2), Rollout(bending, 64)
    second = first.sharing(bending)
    table = SmoothCorrections("ab2").member(3).own.solver().table.unroll()
    first.squared_error(table, pairs)
    second.squared_error(table, pairs)
    assert first.calls == second.calls == 12
    first.limit = 15
    with pytest.raises(RuntimeError):
        second.squared_error(table, pairs)


def test_the_loss_is_the_mean_logarithm_of_the_rmse(bending, double_pairs):
    """Computed from samples, at the start and at the last iterate."""
    pairs, nfes = double_pairs(bending, 6), (2, 5)
    tasks = [Task(Rollout(bending, 64), CURVE.member(nfe), pairs) for nfe in nfes]
    iterates = list(gauss_newton(tasks, RMSE, GaussNewton(5)))
    for iterate in (iterates[0], iterates[-1]):
        errors = [
            fs.metrics.rmse(CURVE.solver(iterate.theta, nfe).sample(bending, pairs.x0), pairs.x1)
            for nfe in nfes
        ]
        expected = float(torch.stack(errors).log().mean())
        assert iterate.loss == pytest.approx(expected, abs=1e-5)
    assert iterates[-1].loss < iterates[0].loss - 0.5


@pytest.mark.parametrize("index", [None, torch.tensor([4, 0, 1])], ids=["all", "some"])
def test_the_normal_equations_hold_the_slope_of_the_loss(bending, double_pairs, index):
    """Twice g is the gradient, here by central differences of the loss, on all pairs or some."""
    pairs = double_pairs(bending, 6)
    system = System([Task(Rollout(bending, 64), CURVE.member(nfe), pairs) for nfe in (2, 5)], RMSE, FIXED)
    theta = 0.1 * torch.ones(CURVE.size, dtype=torch.float64)
    units = 1e-5 * torch.eye(CURVE.size, dtype=torch.float64)
    slope = [(system.loss(theta + unit, index) - system.loss(theta - unit, index)) / 2e-5 for unit in units]
    system.loss(theta, index)
    _, g = system.normal_equations(theta, index)
    torch.testing.assert_close(2 * g, torch.tensor(slope, dtype=torch.float64), rtol=1e-3, atol=1e-5)


def test_minibatches_serve_several_tasks(bending, double_pairs):
    """Every step sees a few of the pairs of each task, the same in all."""
    pairs = double_pairs(bending, 24)
    rollout = Rollout(bending, 64)
    tasks = [Task(rollout, CURVE.member(nfe), pairs) for nfe in (2, 5)]
    iterates = list(gauss_newton(tasks, RMSE, GaussNewton(8, step=1e-6, minibatch=4)))
    whole = System(tasks, RMSE, FIXED)
    assert whole.loss(iterates[-1].theta) < whole.loss(iterates[0].theta) - 0.3
    assert iterates[0].loss == pytest.approx(
        whole.loss(iterates[0].theta, torch.randperm(24, generator=torch.Generator().manual_seed(0))[:4])
    )


def test_a_place_at_which_a_classical_solver_is_better_has_that_one(tmp_path):
    """Here the midway one, which is validated but not fitted."""
    field = fs.models.random_mixture(24, 7).field("mixture")
    pairs = fs.reference.pairs(field, fs.noise(32, (24,)), rtol=1e-5, atol=1e-5)
    fitted = fs.fit(field, (2, 6), pairs=pairs, optimizer=GaussNewton(5))
    returned = {row["nfe"]: row["returned"] for row in fitted.report.rows}
    assert returned[4]
    assert returned[2] is returned[6] is None
    fitted.save(tmp_path / "fit.json")
    for fit in (fitted, fs.load(tmp_path / "fit.json")):
        own, rival = fit.at(4), fs.classical.named(returned[4], 4, field.schedule)
        assert (own.name, own.D) == (returned[4], rival.D)
        error = fs.metrics.rmse(own.sample(field, pairs.x0[24:]), pairs.x1[24:])
        (row,) = (row for row in fit.report.rows if row["nfe"] == 4)
        assert float(error) == pytest.approx(row["errors"]["fitted"], rel=1e-4)
        assert fit.at(5).name != returned[4]
    assert f"{returned[4]} with 4 calls is better on validation" in " ".join(fitted.report.notes)
