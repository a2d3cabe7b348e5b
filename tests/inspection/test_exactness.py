from dataclasses import replace

import pytest

import fewstep as fs
from fewstep.schedules import VE, VP, CondOT, Cosine


@pytest.mark.parametrize(
    ("solver", "degree", "linear"),
    [
        (fs.classical.euler(3), 0, 1),
        (fs.classical.midpoint(2), 1, 2),
        (fs.classical.heun(2), 1, 2),
        (fs.classical.ralston(2), 2, 2),  # Radau's two nodes, 0 and 2/3
        (fs.classical.rk4(1), 3, 4),  # Simpson's rule
        (fs.classical.rk4(3), 3, 4),
        (fs.classical.midpoint(grid=[0.2, 0.5, 0.6]), 1, 2),
        (fs.classical.adams_bashforth(3, 8, start="runge_kutta"), 2, 3),
        (fs.classical.adams_bashforth(4, 8, start="runge_kutta"), 3, 4),
        (fs.classical.adams_bashforth(4, 8), 0, 1),
        (fs.classical.ddim(4), 0, 1),  # on straight paths DDIM is Euler
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_degrees_that_one_pass_is_exact_to(solver, degree, linear):
    exact = fs.inspect(solver).exactness
    assert exact.consistent
    assert (exact.quadrature_degree, exact.linear_order) == (degree, linear)


def test_gauss_quadrature_of_two_calls_is_exact_to_degree_three():
    """Both calls of explicit table: x0 + (u(c1) + u(c2)) / 2 at the Gauss nodes."""
    c1, c2 = 0.5 - 3**-0.5 / 2, 0.5 + 3**-0.5 / 2
    solver = fs.Solver((c1, c2), ((1.0,), (1.0, 0.0)), ((c2 - c1,), (0.5, 0.5)), (0, 2))
    # The path starts where the first call is; the nodes are those of [0, 1].
    assert fs.inspect(solver).exactness.quadrature_degree == -1
    early = fs.Solver(
        (0.0, c1, c2),
        ((1.0,), (1.0, 0.0), (1.0, 0.0, 0.0)),
        ((c1,), (c2, 0.0), (0.0, 0.5, 0.5)),
        (0, 3),
    )
    assert fs.inspect(early).exactness.quadrature_degree == 3


@pytest.mark.parametrize("schedule", [CondOT(), VP(), Cosine(), VE()], ids=lambda s: s.name)
@pytest.mark.parametrize("variant", ["1", "2M", "3M"])
def test_tables_of_a_schedule_follow_its_straight_paths(variant, schedule):
    exact = fs.inspect(fs.classical.dpmpp(variant, 6, schedule=schedule)).exactness
    assert exact.consistent
    assert set(exact.residuals) == {"noise", "data"}
    assert max(abs(r) for row in exact.residuals.values() for r in row) < 1e-13 * (
        80 if schedule == VE() else 1
    )


def test_the_residuals_do_not_depend_on_the_prediction():
    solver = fs.classical.dpmpp("2M", schedule=VP(), grid=[0, 0.3, 0.6, 0.9])
    bent = replace(solver, D=(*solver.D[:-1], (0.0, 0.1, 0.7)))
    expected = fs.inspect(bent).exactness
    assert not expected.consistent
    for prediction in ("velocity", "noise", "v"):
        found = fs.inspect(bent.to(prediction)).exactness
        assert not found.consistent
        for key in ("noise", "data"):
            assert found.residuals[key] == pytest.approx(expected.residuals[key], abs=1e-9)


def test_a_damaged_table_is_inconsistent_and_its_row_is_named():
    midpoint = fs.classical.midpoint(2)
    facts = fs.inspect(replace(midpoint, D=(*midpoint.D[:3], (0.0, 0.0, 0.0, 0.51))))
    assert not facts.exactness.consistent
    assert facts.not_measured == "inconsistent"
    assert facts.convergence is None
    assert facts.exactness.residuals["slope"] == pytest.approx((0, 0, 0, 0.01))
    assert facts.exactness.worst_row == 4
    scaled = fs.inspect(replace(midpoint, C=(midpoint.C[0], (1.25, 0.0), *midpoint.C[2:]))).exactness
    assert not scaled.consistent
    assert scaled.residuals["constant"] == pytest.approx((0, 0.25, 0.25, 0.25))
    assert scaled.quadrature_degree == 1  # the weights of the calls are as they were
    assert scaled.linear_order == -1


def test_a_damaged_stage_shows_in_the_order():
    """A stage at another place than its time says leaves the weights as they are."""
    midpoint = fs.classical.midpoint(1)
    facts = fs.inspect(replace(midpoint, D=((0.3,), *midpoint.D[1:])))
    assert facts.exactness.consistent
    assert facts.exactness.residuals["slope"] == pytest.approx((-0.2, 0))
    assert facts.convergence.order == pytest.approx(1, abs=0.03)
