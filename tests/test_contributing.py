"""The examples of CONTRIBUTING.md run, and what they add works."""

import re
from pathlib import Path

import pytest
import torch

import fewstep as fs
from fewstep.classical import METHODS, TABLEAUX
from fewstep.families import FAMILIES
from fewstep.fitting import LOSSES, GaussNewton
from fewstep.flows import COUPLINGS
from fewstep.metrics import METRICS

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
DIGITS = fs.models.bundled("digits")


@pytest.fixture
def example():
    """``example(words)``: the names in the one block with these words; the lists are restored afterwards."""
    lists = METHODS, TABLEAUX, FAMILIES, LOSSES, COUPLINGS, METRICS
    before = [dict(each) for each in lists]

    def run(words):
        (block,) = (block for block in BLOCKS if words in block)
        names = {"__name__": "example"}
        exec(compile(block, str(GUIDE), "exec"), names)
        return names

    yield run
    for each, entries in zip(lists, before, strict=True):
        each.clear()
        each.update(entries)


def fitted(**options):
    return fs.fit(DIGITS, nfe=4, pairs=8, optimizer=GaussNewton(iterations=3), **options)


def test_there_is_a_test_for_every_example():
    assert len(BLOCKS) == 8


def test_a_family(example):
    example("class Power")
    fit = fitted(family="power")
    exponent = fit.solver.family["exponent"]
    assert exponent != 1
    grid = [(i / 4) ** exponent for i in range(5)]
    torch.testing.assert_close(fit.solver.D, fs.classical.adams_bashforth(2, grid=grid).D)
    assert fs.compare(DIGITS, fit.solver, noise=4).rows[0]["solver"] == "fitted power"


def test_a_runge_kutta_method(example):
    example("nystrom3")

    def error(steps):  # of x' = x, whose solution at 1 is e
        solver = fs.classical.runge_kutta(TABLEAUX["nystrom3"], steps)
        return float(solver.sample(lambda x, t: x, torch.ones(1, 1, dtype=torch.float64))) - torch.e

    assert error(8) / error(16) == pytest.approx(2**3, rel=0.1)


def test_a_classical_solver(example):
    example("def two_step")
    for nfe in (1, 2, 7):
        ours, known = (fs.classical.named(f"{name}/cosine", nfe) for name in ("two_step", "ab2"))
        torch.testing.assert_close(ours.D, known.D, rtol=1e-12, atol=1e-12)
    assert "two_step" in fs.classical.baselines(5)


def test_a_loss(example):
    loss = example("def saturating")["LOSSES"]["saturating"]
    mse = torch.tensor([0.0, 0.01, 1.0], dtype=torch.float64, requires_grad=True)
    assert loss.rho(mse).tolist() == pytest.approx([0, 1 / 2, 1 / 1.01])
    (slope,) = torch.autograd.grad(loss.rho(mse).sum(), mse)
    torch.testing.assert_close(loss.slope(mse), slope)
    assert fitted(loss="saturating").report.loss == "saturating"


def test_a_coupling(example):
    coupling = example("class ByNorm")["ByNorm"]()
    x1, noise = fs.noise(9, (2,), seed=1), fs.noise(9, (2,), seed=2)
    x0 = coupling(x1, noise).x0
    assert sorted(map(tuple, x0.tolist())) == sorted(map(tuple, noise.tolist()))
    assert x0.norm(dim=1).argsort().equal(x1.norm(dim=1).argsort())


def test_an_adapter(example):
    field = example("def _reversed")["field"](lambda x, sigma: x - sigma[:, None], name="theirs")
    x = fs.noise(3, (2,))
    assert field(x, 0.25).equal(0.75 - x)


def test_a_metric(example):
    example('"typical"')
    field = fs.Field(lambda x, t: x, shape=(1,), name="growth")
    solver, x0 = fs.classical.euler(8), torch.tensor([[1e-3], [1.0]], dtype=torch.float64)
    (row,) = fs.compare(field, solver, noise=x0, metrics=["typical"], rtol=1e-9, atol=1e-9).rows
    expected = (torch.e - (1 + 1 / 8) ** 8) * 1e-3**0.5  # of x' = x
    assert row["typical"] == pytest.approx(expected, rel=1e-3)
    assert fs.metrics.figure("typical").label == "typical RMSE"


def test_a_verb(example, capsys):
    example("def command")
    assert "weights" in capsys.readouterr().out
