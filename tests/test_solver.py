"""Solvers: sampling, algebra, validation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import fewstep as fs
from fewstep.schedules import VE, VP, CondOT, Cosine


def elementwise(x, t):
    """A velocity with no sums in it, so that the batch cannot change a bit."""
    return torch.sin(x) * 0.5 - x * t.reshape(-1, *[1] * (x.ndim - 1))


def draw(*shape, dtype=torch.float64):
    return fs.noise(shape[0], shape[1:], seed=3, dtype=dtype)


@pytest.mark.parametrize("nfe", [1, 2, 3, 4, 8, 12])
@pytest.mark.parametrize("trajectory", [False, True])
def test_nfe_is_the_number_of_network_calls(counted, nfe, trajectory):
    for name, solver in fs.classical.baselines(nfe).items():
        network = counted(elementwise)
        solver.sample(network, draw(2, 2), trajectory=trajectory)
        assert len(network.times) == solver.nfe == nfe, name
        assert [t[0].item() for t in network.times] == pytest.approx(list(solver.times), abs=1e-15)


@pytest.mark.parametrize("shape", [(5, 2), (1, 3), (2, 3, 4, 4), (2, 7, 5), (4,), (2, 1, 2, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_any_shape_and_type_comes_back_as_it_went_in(shape, dtype):
    x0 = draw(*shape, dtype=dtype)
    for solver in fs.classical.baselines(4).values():
        x1 = solver.sample(elementwise, x0)
        assert (x1.shape, x1.dtype) == (x0.shape, dtype)
        path = solver.sample(elementwise, x0, trajectory=True)
        assert (path.states.dtype, path.x1.dtype) == (torch.promote_types(dtype, torch.float32), dtype)
        assert torch.equal(path.x1, x1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_of_noise_and_sample_alone(dtype):
    """Between the two it is sampling in float32, to the last bit."""
    x0 = draw(5, 3, dtype=dtype)
    for solver in (fs.classical.euler(64), fs.classical.named("deis3", 8), fs.classical.rk4(2)):
        wide = solver.sample(elementwise, x0.float())
        assert torch.equal(solver.sample(elementwise, x0), wide.to(dtype))
        assert torch.equal(solver.sample(elementwise, x0, trajectory=True).states[-1], wide)


def test_a_network_in_another_type_does_not_change_the_type_of_the_state():
    x1 = fs.classical.midpoint(2).sample(lambda x, t: x.double(), draw(3, 2, dtype=torch.float32))
    assert x1.dtype == torch.float32


@pytest.mark.parametrize("nfe", [4, 5, 8])
def test_a_sample_is_the_same_whatever_its_batch(nfe):
    x0 = draw(7, 3, 2, dtype=torch.float32)
    for name, solver in fs.classical.baselines(nfe).items():
        whole = solver.sample(elementwise, x0)
        parts = torch.cat([solver.sample(elementwise, part) for part in x0.split([1, 4, 2])])
        assert torch.equal(whole, parts), name


def test_no_state_is_kept_between_samplings_or_threads():
    solvers = list(fs.classical.baselines(8).values())
    noises = [draw(3, 2) + k for k in range(4)]
    jobs = [(solver, x0) for solver in solvers for x0 in noises]
    once = [solver.sample(elementwise, x0) for solver, x0 in jobs]
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda job: job[0].sample(elementwise, job[1]), jobs))
    assert all(torch.equal(a, b) for a, b in zip(once, threaded, strict=True))


def test_sampling_leaves_the_noise_alone():
    x0 = draw(3, 2)
    before = x0.clone()
    fs.classical.euler(3).sample(lambda x, t: -x, x0)
    assert torch.equal(x0, before)


@pytest.mark.parametrize("name", fs.classical.baselines(8))
def test_a_trajectory_is_what_the_table_says(name):
    """States at the points, replayed from the recorded predictions through the unrolled table."""
    solver = fs.classical.baselines(8)[name]
    x0 = draw(3, 2)
    path = solver.sample(elementwise, x0, trajectory=True)
    assert torch.equal(path.x1, solver.sample(elementwise, x0))
    assert torch.equal(path.states[0], x0)
    assert torch.equal(path.states[-1], path.x1)
    assert path.times.tolist() == list(solver.point_times)
    assert path.call_times.tolist() == list(solver.times)
    assert (path.times[0], path.times[-1]) == (0, 1)
    assert path.predictions.shape == (8, *x0.shape)
    reduced = solver.to("velocity", CondOT()).table.unroll()
    for state, i in zip(path.states[1:], solver.points[1:], strict=True):
        replay = reduced.a[i - 1] * x0 + torch.einsum("j,jbd->bd", reduced.b[i - 1], path.predictions)
        torch.testing.assert_close(state, replay, rtol=1e-12, atol=1e-12)
    for j, i in enumerate(solver.points[:-1]):  # a point's own call is made at the point
        expected = elementwise(path.states[j], path.call_times[i])
        torch.testing.assert_close(path.predictions[i], expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", fs.classical.baselines(8))
def test_the_unrolled_solver_samples_the_same(name):
    solver = fs.classical.baselines(8)[name]
    unrolled = solver.unroll()
    assert all(c == 0 for row in unrolled.C for c in row[1:])
    x0 = draw(5, 2)
    torch.testing.assert_close(
        unrolled.sample(elementwise, x0), solver.sample(elementwise, x0), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("schedule", [CondOT(), VP(), Cosine(), VE(5.0)], ids=repr)
@pytest.mark.parametrize("prediction", ["noise", "data", "v"])
def test_every_prediction_samples_alike(schedule, prediction):
    """The table for a prediction on the exact network of that prediction, against velocities."""
    grid = (0.05, 0.2, 0.4, 0.6, 0.8, 0.95)
    exact, other = (
        fs.models.random_mixture(2, 3, std=0.4, schedule=schedule, prediction=p).field()
        for p in ("velocity", prediction)
    )
    classical = fs.classical
    for solver in (
        classical.euler(grid=grid),
        classical.midpoint(grid=grid),
        classical.rk4(grid=grid),
        classical.adams_bashforth(3, grid=grid),
        classical.ddim(schedule=schedule, grid=grid),
        classical.dpmpp("2M", schedule=schedule, grid=grid),
        classical.dpmpp("3M", schedule=schedule, grid=grid),
        classical.dpmpp("2S", schedule=schedule, grid=grid),
    ):
        x0 = draw(6, 2)
        table = solver.to(prediction, schedule)
        assert (table.prediction, table.nfe) == (prediction, solver.nfe)
        expected = solver.sample(exact, x0)
        torch.testing.assert_close(solver.sample(other, x0), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(table.sample(other, x0), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(table.sample(exact, x0), expected, rtol=1e-9, atol=1e-9)


def test_singular_ends_cancel_in_the_table():
    """DDIM starts in pure noise and ends in pure data, and Euler too, without a NaN."""
    field = fs.models.random_mixture(2, 3, prediction="data").field()
    for solver in (fs.classical.ddim(5), fs.classical.euler(5), fs.classical.midpoint(3)):
        assert bool(solver.sample(field, draw(4, 2)).isfinite().all())


@pytest.mark.parametrize(
    ("solver", "prediction", "words"),
    [
        (fs.classical.heun(2), "data", r"'heun' calls the network at t = 1 \(call 3\), where a data"),
        (fs.classical.euler(2), "noise", r"at t = 0 \(call 0\), where a noise prediction"),
    ],
)
def test_a_table_of_predictions_that_leave_an_end_undefined_is_refused(solver, prediction, words):
    with pytest.raises(ValueError, match=words):
        solver.to(prediction, CondOT())


def test_a_table_for_one_schedule_refuses_another():
    field = fs.models.random_mixture(2, 3, schedule=VP()).field()
    with pytest.raises(ValueError, match=r"for CondOT\(\), but the field has VP.*schedule=field.schedule"):
        fs.classical.ddim(4).sample(field, draw(4, 2))
    with pytest.raises(ValueError, match=r"to\('data'\) needs schedule"):
        fs.classical.euler(4).to("data")


@pytest.mark.parametrize(("j", "t"), [(0, "0"), (2, "0.5")])
def test_nan_names_its_call_and_time(j, t):
    def velocity(x, time):
        return x * torch.nan if abs(time[0].item() - j / 4) < 1e-6 else x

    with pytest.raises(FloatingPointError, match=f"at call {j} of 4, t = {t}, from a finite state"):
        fs.classical.euler(4).sample(velocity, draw(2, 2))


def test_overflow_and_bad_noise_are_told_apart_from_a_bad_network():
    with pytest.raises(FloatingPointError, match=r"'euler' overflows after the last call: its sample is"):
        fs.classical.euler(1).sample(lambda x, t: torch.full_like(x, 3e38), torch.full((1, 1), 3e38))
    with pytest.raises(ValueError, match="the noise itself holds NaN"):
        fs.classical.euler(1).sample(elementwise, torch.full((1, 1), torch.nan))


@pytest.mark.parametrize(
    ("x0", "words"),
    [
        (torch.zeros(2, 2, dtype=torch.int64), "must be a floating-point tensor .* not torch.int64"),
        ([1.0], "not list"),
        (torch.tensor(1.0), r"of shape \(\)"),
    ],
)
def test_noise_that_does_not_fit_is_refused(x0, words):
    with pytest.raises(ValueError, match=f"x0: .*{words}"):
        fs.classical.euler(2).sample(fs.Field(elementwise, shape=(2,)), x0)


def test_another_resolution_than_that_of_the_noise_drawn_is_no_mistake():
    field, x0 = fs.Field(elementwise, shape=(2, 4, 4)), draw(3, 2, 8, 8)
    assert fs.classical.euler(2).sample(field, x0).shape == x0.shape


def test_the_worked_update_of_the_docstring():
    solver = fs.classical.midpoint(steps=1)
    assert (solver.times, solver.points) == ((0, 0.5), (0, 2))
    assert (solver.C, solver.D) == (((1,), (1, 0)), ((0.5,), (0, 1)))
    path = solver.sample(lambda x, t: -x, torch.ones(1, 1), trajectory=True)
    assert path.predictions.flatten().tolist() == [-1, -0.5]
    assert path.x1.item() == 0.5


@pytest.mark.parametrize(
    ("word", "meant"),
    [("trajectry", "trajectory"), ("Progress", "progress"), ("differentiabel", "differentiable"),
     ("callbacks", "callback")],
)  # fmt: skip
def test_a_misspelt_argument_is_not_taken_for_a_condition(counted, word, meant):
    network = counted(lambda x, t, **conditions: x)
    with pytest.raises(TypeError, match=f"no argument '{word}'; did you mean {meant}"):
        fs.classical.euler(2).sample(network, draw(2, 2), **{word: True})
    assert not network.times
    names = ("label", "class_labels", "encoder_hidden_states", "y", "c", "pooled_projections", "track")
    fs.classical.euler(2).sample(lambda x, t, **conditions: x, draw(2, 2), **dict.fromkeys(names, 1))


GOOD = {"times": (0.0, 0.5), "C": ((1.0,), (0.0, 1.0)), "D": ((0.5,), (0.0, 0.5)), "points": (0, 1, 2)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"times": (), "C": (), "D": ()}, "at least one call"),
        ({"C": ((1.0,), (1.0,))}, r"C: 2 calls need rows of 1 to 2 numbers, not \[1, 1\]"),
        ({"D": ((1.0,),)}, "D: 2 calls need rows"),
        ({"C": ((float("nan"),), (0.0, 1.0))}, "C: row 0 must be finite"),
        ({"D": ((0.5,), (float("inf"), 0.5))}, "D: row 1 must be finite"),
        ({"times": (0.0, 1.5)}, r"times: must lie in \[0, 1\]"),
        ({"times": (float("nan"), 0.5)}, r"times: must lie in \[0, 1\]"),
        ({"end": 2.0}, r"times: must lie in \[0, 1\]"),
        ({"points": (0, 1)}, r"points: must increase from 0 to 2, not \[0, 1\]"),
        ({"points": (0, 2, 1, 2)}, "points: must increase"),
        ({"times": (0.5, 0.5)}, "must increase strictly from point to point"),
        ({"prediction": "x0"}, "prediction: must be one of"),
        ({"prediction": "data"}, "schedule: a table of data predictions .* must name it"),
    ],
)
def test_numbers_that_make_no_solver_are_refused(change, words):
    fs.Solver(**GOOD)
    with pytest.raises(ValueError, match=words):
        fs.Solver(**(GOOD | change))


def test_solvers_are_immutable_and_compare_by_value():
    solver = fs.classical.midpoint(3)
    with pytest.raises(AttributeError):
        solver.times = (0.0,)
    assert solver == fs.classical.midpoint(3)
    assert hash(solver) == hash(fs.classical.midpoint(3))
    assert solver != fs.classical.midpoint(4)


def test_gradients_flow_only_when_asked_for():
    """d x_N / d x_0 of Euler on u = w x is (1 + w / n)^n, and d / dw likewise."""
    w = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)
    x0 = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    solver = fs.classical.euler(4)
    assert not solver.sample(lambda x, t: w * x, x0).requires_grad
    solver.sample(lambda x, t: w * x, x0, differentiable=True).backward()
    assert x0.grad.item() == pytest.approx((1 - 0.5 / 4) ** 4, rel=1e-14)
    assert w.grad.item() == pytest.approx((1 - 0.5 / 4) ** 3, rel=1e-14)
    with torch.no_grad():
        assert not solver.sample(lambda x, t: w * x, x0, differentiable=True).requires_grad


def test_differentiable_sampling_leaves_nan_to_the_loss():
    """To look for it would make every training step wait for the device."""
    x = fs.classical.euler(1).sample(lambda x, t: x * float("nan"), torch.ones(2, 3), differentiable=True)
    assert x.isnan().all()


def test_conditions_reach_the_network_untouched():
    label, seen = torch.arange(3), []

    def network(x, t, label, mode):
        seen.append((label, mode))
        return x

    fs.classical.euler(2).sample(network, draw(3, 2), label=label, mode="fast")
    assert all(given is label and mode == "fast" for given, mode in seen)


def test_progress_counts_the_calls(capsys):
    fs.classical.euler(3).sample(elementwise, draw(1, 1), progress=True)
    assert "3/3" in capsys.readouterr().err
    fs.classical.euler(3).sample(elementwise, draw(1, 1))
    assert not capsys.readouterr().err
