import json
from dataclasses import FrozenInstanceError, replace

import pytest

import fewstep as fs
from fewstep.schedules import VE


@pytest.fixture(scope="module")
def fitted():
    return fs.fit(
        fs.models.bundled("digits"), 3, pairs=8, optimizer=fs.fitting.GaussNewton(iterations=4), seed=0
    ).solver


def test_a_fitted_solver_is_not_consistent_and_has_no_order(fitted):
    facts = fs.inspect(fitted)
    assert (facts.convergence, facts.not_measured) == (None, "inconsistent")
    residuals = facts.exactness.residuals
    reduced = fitted.unroll()
    assert residuals["constant"] == pytest.approx([row[0] - 1 for row in reduced.C])
    times = (*fitted.times[1:], 1.0)
    assert residuals["slope"] == pytest.approx(
        [sum(row) - (t - fitted.times[0]) for row, t in zip(reduced.D, times, strict=True)]
    )
    assert facts.errors.noise_gain == pytest.approx([abs(b) for b in reduced.D[-1]])
    assert facts.needs.fitted_for["model"] == "fewstep/digits"
    assert list(facts.needs.readable) == ["cond_ot"]


@pytest.mark.parametrize(
    "solver",
    [fs.classical.midpoint(2), fs.classical.dpmpp("2M", 4, schedule=VE())],
    ids=lambda solver: solver.name,
)
def test_the_facts_are_json(solver):
    facts = fs.inspect(solver).to_dict()
    read = json.loads(json.dumps(facts, allow_nan=False))
    assert read["nfe"] == solver.nfe
    assert read["times"] == list(solver.times)
    assert read["D"] == [list(row) for row in solver.D]
    assert set(read) >= {"exactness", "convergence", "not_measured", "stability", "errors", "needs"}


def test_an_inspection_is_frozen():
    with pytest.raises(FrozenInstanceError):
        fs.inspect(fs.classical.euler(1)).solver = None


def test_a_table_without_a_form_for_velocities_tells_the_rest():
    """On VE to sigma = 0 the velocity at t = 1 is zero whatever the data is."""
    solver = replace(fs.classical.heun(2), prediction="noise", schedule=VE())
    facts = fs.inspect(solver)
    assert facts.not_measured == "inconsistent"
    assert facts.stability is None
    assert facts.exactness.linear_order is None
    assert facts.errors.total == pytest.approx(1)
    assert json.dumps(facts.to_dict(), allow_nan=False)


def test_the_solver_that_is_inspected_stays_as_it_is(fitted):
    before = (fitted.times, fitted.C, fitted.D)
    assert fs.inspect(fitted).solver is fitted
    assert (fitted.times, fitted.C, fitted.D) == before
