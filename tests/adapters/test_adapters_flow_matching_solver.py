"""Our solvers in the place of flow_matching's ``ODESolver``, against it and a stand-in."""

from __future__ import annotations

import dataclasses
import inspect
import warnings

import pytest
import torch
import torchdiffeq
from torch import nn

import fewstep as fs
from fewstep.adapters import flow_matching
from fewstep.fitting import GaussNewton
from fewstep.schedules import VP, CondOT, Cosine

SHAPE = (1, 2, 2)
X = fs.noise(5, SHAPE, seed=2, dtype=torch.float64)
UNIT = torch.tensor([0.0, 1.0], dtype=torch.float64)


class Model(nn.Module):
    """Called with keywords, and a time of shape (), as their solver calls."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.eval()

    def forward(self, *, x, t, shift=0.0):
        assert t.shape == ()
        return self.network(x, t) + shift


class StandIn:
    """Theirs: an ODE of the model in torchdiffeq, from ``x_init`` at the first time of the grid."""

    def __init__(self, velocity_model):
        self.velocity_model = velocity_model

    def sample(self, x_init, step_size, method="euler", atol=1e-5, rtol=1e-5, time_grid=UNIT,
               return_intermediates=False, enable_grad=False, **model_extras):  # fmt: skip
        def f(t, x):
            return self.velocity_model(x=x, t=t, **model_extras)

        with torch.set_grad_enabled(enable_grad):
            options = {} if step_size is None else {"step_size": step_size}
            path = torchdiffeq.odeint(f, x_init, time_grid, method=method, options=options)
        return path if return_intermediates else path[-1]


@pytest.fixture(params=["stand-in", "flow_matching"])
def theirs(request):
    if request.param == "stand-in":
        return StandIn
    return pytest.importorskip("flow_matching.solver", reason="flow_matching is not installed").ODESolver


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun3"])
@pytest.mark.parametrize("schedule", [CondOT(), Cosine(), VP()], ids=lambda schedule: schedule.name)
def test_samples_are_theirs(theirs, exact, schedule, method):
    model, solver = Model(exact(schedule, "velocity")), getattr(fs.classical, method)(4)
    ours = flow_matching.ODESolver(model, solver, schedule)
    expected = theirs(model).sample(X, step_size=0.25, method=method, time_grid=UNIT, shift=0.3)
    torch.testing.assert_close(ours.sample(X, shift=0.3), expected, rtol=1e-12, atol=1e-12)
    grid = torch.linspace(0, 1, 5, dtype=torch.float64)
    path = theirs(model).sample(X, None, method, time_grid=grid, return_intermediates=True)
    for given in (None, grid, grid.float()):
        states = ours.sample(X, time_grid=given, return_intermediates=True)
        torch.testing.assert_close(states, path, rtol=1e-12, atol=1e-12)
    ends = ours.sample(X, time_grid=[0, 1], return_intermediates=True)
    torch.testing.assert_close(ends, path[[0, -1]], rtol=1e-12, atol=1e-12)
    few = ours.sample(X, time_grid=[0, 0.5, 1], return_intermediates=True)
    torch.testing.assert_close(few, path[[0, 2, 4]], rtol=1e-12, atol=1e-12)


def test_every_argument_of_theirs_is_taken_in_its_place(theirs):
    def named(cls):
        return [name for name in inspect.signature(cls.sample).parameters if name != "self"]

    assert named(flow_matching.ODESolver) == named(theirs)
    assert next(iter(inspect.signature(flow_matching.ODESolver).parameters)) == "velocity_model"


def test_a_fitted_solver_samples_as_it_does_here(exact):
    network = exact(CondOT(), "velocity")
    solver = fs.fit(network.field(), nfe=3, pairs=8, optimizer=GaussNewton(iterations=2)).solver
    solver = fs.Solver(**{**vars_of(solver), "fitted_for": None})
    ours = flow_matching.ODESolver(Model(network), solver)
    expected = solver.sample(network.field(), X)
    torch.testing.assert_close(ours.sample(X, None, atol=1e-3, rtol=1e-3), expected)
    assert ours.sample(X.half()).dtype == torch.float16
    assert ours.sample(X.half(), return_intermediates=True).dtype == torch.float16


def vars_of(solver):
    return {field.name: getattr(solver, field.name) for field in dataclasses.fields(solver)}


def test_predictions_and_guidance_are_part_of_the_field(exact):
    schedule = VP()
    model = Model(exact(schedule, "data"))
    solver = fs.classical.dpmpp("2M", 4, schedule=schedule)
    options = {"guidance": 2.0, "unconditional": {"shift": 0.0}}
    ours = flow_matching.ODESolver(model, solver, schedule, prediction="data", **options)
    field = flow_matching.field(model, schedule, prediction="data", time_shape="scalar", **options)
    expected = solver.sample(field, field.initial_noise(X), shift=0.1)
    torch.testing.assert_close(ours.sample(X, shift=0.1), expected)


def test_networks_are_told_t_under_schedules_with_timesteps():
    told = []

    def model(x, t):
        told.append(float(t))
        return -x

    flow_matching.ODESolver(model, fs.classical.euler(4), fs.schedules.DDPM()).sample(torch.randn(2, 3))
    assert told == [0, 0.25, 0.5, 0.75]


def test_gradients_flow_only_where_they_are_wanted(exact):
    ours = flow_matching.ODESolver(Model(exact(CondOT(), "velocity")), fs.classical.midpoint(2))
    x = X.clone().requires_grad_()
    assert not ours.sample(x).requires_grad
    for intermediates in (False, True):
        with torch.no_grad():
            result = ours.sample(x, enable_grad=True, return_intermediates=intermediates)
        (slope,) = torch.autograd.grad(result.sum(), x)
        assert slope.abs().min() > 0


def test_it_is_a_module_with_the_model(exact):
    network = nn.Linear(2, 2).eval()

    def called(x, t):
        return network(x)

    ours = flow_matching.ODESolver(called, fs.classical.euler(2))
    assert ours.velocity_model is called
    assert list(flow_matching.ODESolver(network, fs.classical.euler(2)).parameters()) == [
        *network.parameters()
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"step_size": 0.1}, "step_size must be None, not 0.1, as 'midpoint' has its own 8 calls"),
        ({"method": "dopri5"}, "method must be None, not 'dopri5', as this is solver 'midpoint'"),
        ({"time_grid": UNIT.flip(0)}, r"must be \[0, 1\], or some of the times 0, 0.25, 0.5, 0.75, 1 of"),
        ({"time_grid": [0.0, 0.3, 1.0]}, r"not \[0.0, 0.3, 1.0\]"),
        ({"time_grid": [0.0, 0.5]}, r"not \[0.0, 0.5\]"),
        ({"time_grid": [0.0, 0.75, 0.25, 1.0]}, "from the first to the last"),
        ({"time_grid": [1.0]}, "time_grid must be"),
        ({"time_grid": "uniform"}, "time_grid must be times from 0 to 1, not 'uniform'"),
        ({"x_init": [1.0, 2.0]}, "x_init: must be a floating-point tensor"),
    ],
)
@pytest.mark.parametrize("intermediates", [False, True])
def test_other_samplings_are_refused(arguments, words, intermediates):
    ours = flow_matching.ODESolver(lambda x, t: x, fs.classical.midpoint(4))
    with pytest.raises(ValueError, match=words):
        ours.sample(**{"x_init": X, "return_intermediates": intermediates, **arguments})


def test_the_solvers_own_name_and_end_are_taken():
    solver = fs.classical.euler(grid=[0.0, 0.4, 0.9])
    ours = flow_matching.ODESolver(lambda x, t: x, solver)
    for grid in (None, [0, 1], [0, 0.9], torch.tensor([0, 0.4, 0.9])):
        assert torch.equal(ours.sample(X, method="euler", time_grid=grid), solver.sample(lambda x, t: x, X))


def test_solvers_for_other_models_are_refused_or_warned_of(exact):
    model = Model(exact(CondOT(), "velocity"))
    with pytest.raises(
        ValueError, match=r"solver is a str, but must be a fewstep.Solver, such as fit.solver"
    ):
        flow_matching.ODESolver(model, "euler")
    with pytest.raises(ValueError, match=r"table of data predictions for VP.*but the field has CondOT"):
        flow_matching.ODESolver(model, fs.classical.dpmpp("2M", 4, schedule=VP()))
    facts = flow_matching.field(model).describe()
    euler = vars_of(fs.classical.euler(2))
    own = fs.Solver(**{**euler, "fitted_for": facts})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow_matching.ODESolver(model, own).sample(X)
    other = fs.Solver(**{**euler, "fitted_for": {**facts, "schedule": Cosine().to_dict()}})
    with pytest.warns(UserWarning, match="fitted for schedule cosine.*this field has schedule cond_ot"):
        flow_matching.ODESolver(model, other).sample(X)
