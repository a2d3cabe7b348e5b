from dataclasses import replace

import pytest

import fewstep as fs
from fewstep.schedules import VE, VP, CondOT, Cosine

ALL = ("velocity", "noise", "data", "v")


def test_networks_that_a_table_of_velocities_reads():
    """A call at t = 0 learns nothing from a prediction of the noise where nothing else is there."""
    readable = fs.inspect(fs.classical.midpoint(2)).needs.readable
    assert readable == {
        "cond_ot": ("velocity", "data", "v"),
        "vp": ALL,
        "cosine": ("velocity", "data", "v"),
        "ve": ALL,
    }
    assert fs.inspect(fs.classical.heun(2), schedule=CondOT()).needs.readable == {
        "cond_ot": ("velocity", "v")
    }
    late = fs.classical.euler(grid=[0.1, 0.5, 1])
    assert fs.inspect(late, schedule=CondOT()).needs.readable == {"cond_ot": ALL}


def test_a_table_bound_to_a_schedule_says_so():
    needs = fs.inspect(fs.classical.ddim(3, schedule=VP())).needs
    assert needs.prediction == "data"
    assert needs.schedule == VP().to_dict()
    assert list(needs.readable) == ["vp"]
    with pytest.raises(ValueError, match=r"table of data predictions for VP\(.*\) alone, not for VE"):
        fs.inspect(fs.classical.ddim(3, schedule=VP()), schedule=VE())


def test_the_schedule_that_a_solver_was_fitted_on_is_asked_for():
    fitted_for = {"model": "toy", "schedule": Cosine().to_dict(), "guidance": 2.0}
    needs = fs.inspect(replace(fs.classical.euler(2), fitted_for=fitted_for)).needs
    assert list(needs.readable) == ["cosine"]
    assert needs.fitted_for == fitted_for


@pytest.mark.parametrize(
    ("solver", "states"),
    [
        (fs.classical.euler(5), 3),  # x, u, and the next x
        (fs.classical.midpoint(2), 4),  # and the start of the step
        (fs.classical.adams_bashforth(2, 5), 4),  # x, u, the u before, and the next x
        (fs.classical.euler(5).unroll(), 8),  # x0, the newest x, all five u, and the next x
    ],
    ids=["euler", "midpoint", "ab2", "unrolled"],
)
def test_what_is_kept_at_once(solver, states):
    assert fs.inspect(solver).needs.states == states


def test_awkward_calls_and_steps_are_found():
    assert fs.inspect(fs.classical.heun(2)).needs.calls_at_end == (3,)
    assert fs.inspect(fs.classical.midpoint(2)).needs.calls_at_end == ()
    assert fs.inspect(fs.classical.rk4(1)).needs.calls_back_in_time == ()
    back = fs.Solver(
        (0.0, 0.7, 0.3), ((1.0,), (1.0, 0.0), (1.0, 0.0, 0.0)), ((0.7,), (0.3, 0.0), (0.0, 0.5, 0.5)), (0, 3)
    )
    assert fs.inspect(back).needs.calls_back_in_time == (2,)
    grid = [0, 0.5, 0.5005, 1]
    assert fs.inspect(fs.classical.euler(grid=grid)).needs.shortest_step == pytest.approx(5e-4)


def test_calls_that_tell_nothing_are_found():
    noise = replace(fs.classical.euler(2), prediction="noise", schedule=CondOT())
    assert fs.inspect(noise).needs.uninformative_calls == (0,)
    assert fs.inspect(replace(noise, schedule=VP())).needs.uninformative_calls == ()
    data = replace(fs.classical.heun(2), prediction="data", schedule=CondOT())
    assert fs.inspect(data).needs.uninformative_calls == (3,)
