"""The noise that rows of a table add: sampling, algebra, files, and where it is refused."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.classical import dpmpp_2m_sde, edm_stochastic, euler, euler_ancestral, sa_solver
from fewstep.schedules import VE, VP, CondOT, Cosine

#: Earlier versions of PyTorch cannot trace sample itself.
NEW = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)
GRID = (0.1, 0.3, 0.5, 0.8, 0.9)
SHAPE = (6, 2)


@pytest.fixture
def noisy():
    """A table with random numbers whose rows 0, 2 and 3 add noise."""
    generator = torch.Generator().manual_seed(0)
    C, D = (torch.randn(4, 4, dtype=torch.float64, generator=generator).tril() for _ in range(2))
    table = fs.classical.euler(4).table._replace(C=C, D=D)
    return replace(fs.Solver.from_table(table, (0, 2, 4)), S=(0.3, 0.0, -0.7, 1.5), name="noisy")


@pytest.fixture
def x0():
    return fs.noise(*[SHAPE[0], SHAPE[1:]], seed=3, dtype=torch.float64)


sine = fs.Field(lambda x, t: torch.sin(x))


def velocity(x, t):
    return torch.sin(x) - x * t.reshape(-1, 1)


def as_tensor(solver, like, seed=3):
    return torch.stack([fs.noises(seed)(k, like) for k in range(solver.noises)])


def test_rows_are_summed_as_written(noisy, x0):
    """Against the definition."""
    xi = as_tensor(noisy, x0)
    added = iter(xi)
    x, u = [x0], []
    for c, d, s, t in zip(noisy.table.C, noisy.table.D, noisy.S, noisy.times, strict=True):
        u.append(velocity(x[-1], torch.tensor(t, dtype=torch.float64)))
        new = sum(a * b for a, b in zip(c[: len(x)], x, strict=True))
        new = new + sum(a * b for a, b in zip(d[: len(u)], u, strict=True))
        x.append(new + s * next(added) if s else new)
    made = noisy.sample(velocity, x0, noises=xi)
    torch.testing.assert_close(made, x[-1], rtol=1e-12, atol=1e-12)
    path = noisy.sample(velocity, x0, noises=xi, trajectory=True)
    torch.testing.assert_close(path.states, torch.stack([x[0], x[2], x[4]]), rtol=1e-12, atol=1e-12)
    assert len(path.predictions) == noisy.nfe


def test_a_function_gives_what_a_tensor_gives(noisy, x0):
    xi = as_tensor(noisy, x0)
    asked = []

    def draw(k, like):
        asked.append((k, like.shape, like.dtype))
        return xi[k]

    assert torch.equal(noisy.sample(velocity, x0, noises=draw), noisy.sample(velocity, x0, noises=xi))
    assert asked == [(k, x0.shape, x0.dtype) for k in range(3)]


def test_a_sample_gets_its_noises_whatever_the_batch(x0):
    solver = euler_ancestral(5)
    field = fs.Field(velocity)
    whole = solver.sample(field, x0, noises=fs.noises(3))
    for start, part in ((0, x0[:2]), (2, x0[2:])):
        assert torch.equal(
            solver.sample(field, part, noises=fs.noises(3, start=start)), whole[start : start + len(part)]
        )
    assert not torch.equal(solver.sample(field, x0, noises=fs.noises(4)), whole)


@pytest.mark.parametrize("name", fs.classical.STOCHASTIC)
def test_solvers_of_sdes_have_names_and_are_no_baselines(name, x0):
    nfe = 7 if name == "edm_stochastic" else 6
    solver = fs.classical.named(f"{name}/cosine", nfe, VP())
    assert (solver.nfe, solver.schedule) == (nfe, VP())
    assert solver.noises > 0
    assert not {name, f"{name}/cosine"} & {*fs.classical.baselines(nfe, VP(), ["uniform", "cosine"])}


def test_streams_are_independent():
    """And stream 0 is what it was without streams; draws of one stream do not run into the next."""
    drawn = torch.stack([fs.noise(4, (3000,), stream=k, dtype=torch.float64) for k in range(4)]).flatten(0, 1)
    correlation = torch.corrcoef(drawn) - torch.eye(16)
    assert correlation.abs().max() < 5 / 3000**0.5
    assert drawn.unique().numel() == drawn.numel()
    first = np.random.Generator(np.random.Philox(key=np.array([1, 2], dtype=np.uint64))).standard_normal(5)
    assert fs.noise(1, (5,), seed=1, start=2, dtype=torch.float64)[0].tolist() == first.tolist()


def test_noise_is_gone_after_its_row(x0):
    """At most one is alive."""
    alive, most = weakref.WeakSet(), []

    def draw(k, like):
        alive.add(found := torch.randn_like(like))
        most.append(len(alive))
        return found

    euler_ancestral(6).sample(fs.Field(velocity), x0, noises=draw)
    assert most == [1] * 5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_noises_take_the_type_of_the_states(dtype):
    solver, x0 = sa_solver(4), fs.noise(4, (2,), dtype=dtype)
    made = solver.sample(velocity, x0, noises=lambda k, like: torch.ones_like(like, dtype=torch.float64))
    assert made.dtype == dtype


def test_gradients_flow_to_the_noises(noisy, x0):
    xi = as_tensor(noisy, x0).requires_grad_()
    made = noisy.sample(velocity, x0, noises=xi, differentiable=True)
    (gradient,) = torch.autograd.grad(made.sum(), xi)
    assert torch.equal(gradient[-1], torch.full_like(x0, 1.5))


def test_the_failing_call_of_a_noisy_sampling_is_told(noisy, x0):
    with pytest.raises(FloatingPointError, match="NaN or infinity at call 2 of 4"):
        noisy.sample(lambda x, t: x / (t[:, None] != 0.5), x0, noises=fs.noises(0))


@pytest.mark.skipif(not NEW, reason="needs PyTorch 2.13")
def test_the_compiler_takes_noises_in_a_tensor(x0):
    solver, xi = euler_ancestral(4), torch.randn(3, *SHAPE, dtype=torch.float64)
    traced = torch.compile(lambda x, n: solver.sample(sine, x, noises=n), backend="eager", fullgraph=True)
    assert torch.equal(traced(x0, xi), solver.sample(sine, x0, noises=xi))


def test_every_solver_without_noise_takes_noises_and_ignores_them(x0):
    """So that code for both kinds has no case distinction."""
    solver = euler(3)
    assert (solver.noises, solver.S) == (0, ())
    assert torch.equal(solver.sample(velocity, x0, noises=fs.noises(1)), solver.sample(velocity, x0))


def test_zeros_are_no_noise(x0):
    solver = replace(euler(3), S=(0.0, 0.0, 0.0))
    assert solver == euler(3)
    assert solver.unroll().noises == 0


# --------------------------------------------------------------------------------------------- algebra


@pytest.mark.parametrize("prediction", ["velocity", "noise", "v"])
def test_another_prediction_samples_the_same(mixture_1d, prediction):
    schedule = Cosine()
    x0 = fs.noise(5, (1,), dtype=torch.float64)
    for make in (dpmpp_2m_sde, sa_solver, edm_stochastic):
        solver = make(grid=GRID, schedule=schedule)
        wanted = solver.sample(mixture_1d(schedule, "data")[0].field(), x0, noises=fs.noises(0))
        field = mixture_1d(schedule, prediction)[0].field()
        torch.testing.assert_close(solver.sample(field, x0, noises=fs.noises(0)), wanted)
        torch.testing.assert_close(solver.to(prediction).sample(field, x0, noises=fs.noises(0)), wanted)


@pytest.mark.parametrize("target", [VP(), VE(rho=3.0)], ids=str)
def test_a_rescheduled_solver_is_the_solver_on_the_rescheduled_field(mixture_1d, target):
    x0, source = fs.noise(5, (1,), dtype=torch.float64), CondOT()
    solver = replace(fs.classical.euler(grid=GRID), S=(0.3, 0.0, 0.2, 0.1))
    field = mixture_1d(target, "velocity")[0].field()
    derived, moved = field.reschedule(source), solver.reschedule(source, target)
    at = (moved.times[0], GRID[0]), (moved.end, GRID[-1])
    k = [float(target(t).sigma / source(s).sigma) for t, s in at]
    # Both start from the same point of the path.
    start = field.initial_noise(k[0] * derived.initial_state(x0))
    wanted = k[1] * solver.sample(derived, x0, noises=fs.noises(0))
    torch.testing.assert_close(moved.sample(field, start, noises=fs.noises(0)), wanted)


# ----------------------------------------------------------------------------------------------- files


def test_a_file_holds_the_noise_to_the_bit(tmp_path, noisy):
    noisy.save(tmp_path / "noisy.json")
    assert fs.Solver.load(tmp_path / "noisy.json") == noisy
    assert noisy.describe() != replace(noisy, S=()).describe()


def test_the_file_of_a_solver_without_noise_says_nothing_of_it(tmp_path):
    """So that it is the file of before, and versions before, which refuse the key, read it."""
    euler(3).save(tmp_path / "euler.json")
    assert "S" not in json.loads((tmp_path / "euler.json").read_text())
    assert euler(3).describe()["fingerprint"] == "167bd055da21af07"


@pytest.mark.parametrize("S", [[0.1], [0.1, 0.2, float("nan")], "loud"])
def test_a_bad_column_is_told(tmp_path, S):
    euler(3).save(tmp_path / "euler.json")
    content = json.loads((tmp_path / "euler.json").read_text()) | {"S": S}
    (tmp_path / "euler.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="S"):
        fs.Solver.load(tmp_path / "euler.json")


# -------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("noises", "words"),
    [
        (None, r"'noisy' adds 3 noises, but noises is missing; pass a tensor of shape \(3, 6, 2\), or"),
        (torch.zeros(2, *SHAPE), r"noises has shape \(2, 6, 2\), but solver 'noisy' adds 3 noises"),
        (lambda k, like: like[:1], r"noises\(0, like\) has shape \(1, 2\), but must have .* \(6, 2\)"),
        ("loud", "noises must be a tensor or a function of .*, not 'loud'"),
    ],
)
def test_wrong_noises_are_refused(noisy, x0, noises, words):
    with pytest.raises(ValueError, match=words):
        noisy.sample(velocity, x0, noises=noises)


def test_noise_without_its_s_is_a_misspelling(noisy, x0):
    with pytest.raises(TypeError, match="did you mean noises"):
        noisy.sample(velocity, x0, noises=fs.noises(0), noise=x0)


REFUSING = {
    "unroll": lambda solver, field: solver.unroll(),
    "compiled": lambda solver, field: solver.compiled(field, fs.noise(2, (2,))),
    "compare": lambda solver, field: fs.compare(field, solver, noise=4),
    "inspect": lambda solver, field: fs.inspect(solver),
    "describe": lambda solver, field: fs.report.describe(solver),
    "fit": lambda solver, field: fs.fit(field, nfe=4, init=solver, pairs=8),
    "base": lambda solver, field: fs.fit(field, nfe=4, init="euler_ancestral", pairs=8),
    "family": lambda solver, field: fs.families.NonStationary(solver),
    "inversion": lambda solver, field: fs.metrics.inversion_error(field, solver, fs.noise(2, (2,))),
    "inverse": lambda solver, field: fs.metrics.inversion_error(
        field, euler(2), fs.noise(2, (2,)), inverse=solver
    ),
    "k_diffusion": lambda solver, field: fs.adapters.k_diffusion.sampler(solver, field.schedule),
    "edm": lambda solver, field: fs.adapters.edm.sampler(solver, field.schedule),
    "flow_matching": lambda solver, field: fs.adapters.flow_matching.ODESolver(velocity, solver),
    "module": lambda solver, field: fs.adapters.k_diffusion.module(solver, field.schedule),
}


@pytest.mark.parametrize("use", REFUSING.values(), ids=REFUSING)
def test_what_cannot_add_noise_names_the_solver(noisy, use):
    with pytest.raises(ValueError, match=r"'(noisy|euler_ancestral)' adds 3 noises"):
        use(noisy, fs.Field(velocity, shape=(2,), name="field"))


def test_the_scheduler_of_diffusers_names_the_solver(noisy):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ValueError, match="'noisy' adds 3 noises"):
        fs.adapters.diffusers.FewStepScheduler.from_solver(noisy, scheduler)


def test_a_reduced_table_with_noise_is_refused(noisy):
    with pytest.raises(ValueError, match="adds noise"):
        noisy.table.unroll()


def test_a_model_card_shows_how_the_noise_is_drawn(noisy, tmp_path):
    noisy.save_pretrained(tmp_path / "hub")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "noises=fs.noises(seed=0)" in card
    assert "k_diffusion" not in card
    assert "ODESolver" not in card
