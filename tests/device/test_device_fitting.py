"""Fits with the field and its pairs on the device."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.families import NonStationary, Timesteps
from fewstep.fitting import Adam, Features, GaussNewton, Nodes, Reference, Soft
from fewstep.fitting._rollout import Rollout
from fewstep.schedules import DDPM, VP, CondOT

pytestmark = pytest.mark.device

FEW, ADAM = GaussNewton(iterations=2), Adam(iterations=4, batch=4, report_every=2)
LOOSE = Reference(1e-3, 1e-3)
LABELS = torch.arange(8) % 5


@pytest.fixture(autouse=True)
def torchdiffeq(few_rivals):
    pytest.importorskip("torchdiffeq")


def fit(field, nfe=4, **options):
    return fs.fit(field, nfe, **{"pairs": 8, "optimizer": FEW, "reference": LOOSE, **options})


@pytest.fixture
def alike():
    """``alike((expected, found))``: the fits on both devices are as good; classical solvers agree closely."""

    def check(fits):
        for rows in zip(*(made.report.rows for made in fits), strict=True):
            expected, errors = (dict(row["errors"]) for row in rows)
            assert errors["fitted"] <= errors[fits[1].report.start] * 1.001
            # Steps of difference quotients are chosen by rounding noise.
            assert errors.pop("fitted") == pytest.approx(expected.pop("fitted"), rel=0.3, abs=1e-4)
            for name in errors.keys() & expected.keys():  # init="auto" may start elsewhere
                assert errors[name] == pytest.approx(expected[name], rel=0.02, abs=1e-5)

    return check


@pytest.mark.parametrize(
    ("schedule", "prediction"), [(CondOT(), "velocity"), (VP(), "noise"), (DDPM(steps=20), "noise")], ids=str
)
def test_the_default_fit(both, each, alike, guided, schedule, prediction):
    fields = both(schedule, prediction, **guided)
    alike(each(fields, lambda f: fit(f, 2, per_sample={"label": LABELS.to(f.device)})))


GAUSS_NEWTON = {
    "differences": {"optimizer": GaussNewton(iterations=2, jacobian="differences", memory=2000), "batch": 5},
    "jvp": {"optimizer": GaussNewton(iterations=2, jacobian="jvp"), "nfe": 2},
    "minibatches": {"optimizer": GaussNewton(iterations=2, minibatch=4)},
    "chunks": {"optimizer": GaussNewton(iterations=2, memory=1000)},
    "scale-time": {"family": "scale_time"},
    "timesteps": {"family": "timesteps", "init": "ab2"},
    "nodes": {"loss": Nodes("rmse")},
    "auto": {"loss": "log_mse", "init": "auto", "nfe": 2},
    "joint": {"nfe": (2, 4)},
    "budget": {"max_calls": 2000, "pairs": None},
}


@pytest.mark.parametrize("name", GAUSS_NEWTON)
def test_gauss_newton(both, each, alike, guided, name):
    own = {} if name == "budget" else {"per_sample": {"label": LABELS}}

    def run(field):
        labels = {key: {"label": LABELS.to(field.device)} for key in own}
        return fit(field, **GAUSS_NEWTON[name], **labels)

    alike(each(both(**(guided if own else {})), run))


ADAMS = {
    "rmse": {},
    "soft": {"loss": Soft("rmse", 0.01)},
    "bound": {"family": "scale_time", "loss": "bound"},
    "local": {"family": "scale_time", "init": "euler", "loss": "local"},
    "nodes": {"loss": "nodes"},
}


@pytest.mark.parametrize("name", ADAMS)
def test_adam(both, each, alike, guided, name):
    def run(field):
        return fit(field, 2, optimizer=ADAM, per_sample={"label": LABELS.to(field.device)}, **ADAMS[name])

    alike(each(both(**guided), run))


def test_scales_of_guidance(both, each, alike, guided):
    alike(
        each(
            both(**guided),
            lambda f: fit(f, 2, guidance=(1.0, 3.0), conditions={"label": torch.tensor(2, device=f.device)}),
        )
    )


def test_features(both, each, alike):
    weights = torch.randn(3, 6, generator=torch.manual_seed(0))

    def run(field):
        there = weights.to(field.device)
        return fit(field, 2, loss=Features(lambda x: torch.tanh(x @ there)))

    alike(each(both(), run))


def test_several_models(both, each, alike):
    alike(each(both(), lambda f: fit([f, fs.Field(f.model, shape=(3,), clock=(1, 0), name="other")], 2)))


def test_a_function_on_the_device(device):
    """A network without weights does not say where it is."""
    shift = torch.linspace(-1, 1, 3, device=device)
    field = fs.Field(lambda x, t: torch.sin(x + shift), shape=(3,), name="function")
    fitted = fit(field, 2, device=device)
    pairs = fs.reference.pairs(field, fs.noise(8, (3,), device=device), rtol=1e-3, atol=1e-3)
    assert fit(field, 2, pairs=pairs).report.errors["fitted"] == pytest.approx(
        fitted.report.errors["fitted"], rel=0.1
    )


def test_a_search(both, each):
    options = {"pairs": 8, "test": 4, "optimizer": FEW, "reference": LOOSE, "families": "non_stationary"}
    expected, found = each(both(), lambda f: fs.search(f, 2, **options))
    for row, other in zip(found.rows, expected.rows, strict=True):
        assert row["rmse"] == pytest.approx(other["rmse"], rel=0.3)


def test_a_solver_fitted_on_the_device_is_loaded_without_it(both, device, close, tmp_path):
    here, there = both()
    fitted, joint = fit(there, 2), fit(there, (1, 2))
    fitted.solver.save(tmp_path / "solver.json")
    joint.save(tmp_path / "fit.json")
    x0, solver = fs.noise(4, (3,)), fs.Solver.load(tmp_path / "solver.json")
    close(fitted.solver.sample(there, x0.to(device)), solver.sample(here, x0))
    assert fs.load(tmp_path / "fit.json").at(2).D == joint.at(2).D


@pytest.mark.parametrize("nfe", [2, 6])
def test_rollouts_send_their_tables_and_read_nothing(both, device, waits, guided, nfe):
    _, there = both(**guided)
    x0 = fs.noise(8, (3,), device=device)
    pairs, rollout = fs.Pairs(x0, x0, per_sample={"label": LABELS.to(device)}), Rollout(there, 64)
    family = NonStationary(Timesteps("ab2", nfe, CondOT()))
    theta = torch.zeros(family.size, dtype=torch.float64)
    table, *moved = (family.table(theta + 0.01 * row).unroll() for row in [0 * theta, *torch.eye(len(theta))])
    waits.clear()
    rollout.states(table, pairs, (nfe,))
    assert len(waits) == 3  # times and two matrices
    waits.clear()
    rollout.differences(table, moved, pairs, 2)
    assert len(waits) == 4  # those of all perturbations, and their order
