"""Solvers with offsets, and with numbers that each channel has for itself."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import fewstep as fs
from fewstep._execute import bound, plan
from fewstep._table import Table
from fewstep.schedules import VE, VP, CondOT, Cosine

N, CHANNELS = 4, 3
SHAPES = [(3,), (3, 5), (3, 4, 2)]


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def make(channels=CHANNELS, offsets=True, seed=0, times=(0.0, 0.3, 0.5, 0.8), **facts):
    """A solver of random numbers, one a channel where there are channels."""
    own = () if channels is None else (channels,)
    matrices = [draw(N, N, *own, seed=seed + k).tril() if not own else None for k in (1, 2)]
    if own:
        below = torch.ones(N, N).tril()[..., None]
        matrices = [draw(N, N, *own, seed=seed + k) * below for k in (1, 2)]
    e = [draw(N, *own, seed=seed + 3)] if offsets else []
    table = Table(torch.tensor(times, dtype=torch.float64), *(m * 0.5 for m in matrices), *e)
    return fs.Solver.from_table(table, (0, 2, N), name="own", **facts)


def elementwise(x, t):
    """A velocity that acts on each number by itself."""
    return torch.sin(2 * x + t.reshape(-1, *[1] * (x.ndim - 1)))


def by_hand(solver, x0, channel=None):
    """The definition, with plain numbers."""

    def number(c):
        return c if channel is None else c[channel]

    x, u = [x0], []
    for t, c, d, e in zip(solver.times, solver.C, solver.D, solver.offsets, strict=True):
        u.append(elementwise(x[-1], torch.full((len(x0),), t, dtype=x0.dtype)))
        terms = [number(w) * y for w, y in zip((*c, *d), (*x, *u), strict=True)]
        x.append(sum(terms) + number(e))
    return x


@pytest.mark.parametrize("shape", [(), (2,), (1, 8, 8)], ids=str)
def test_offsets_are_added_to_every_state(shape):
    solver, x0 = make(None), draw(5, *shape)
    path = solver.sample(elementwise, x0, trajectory=True)
    x = by_hand(solver, x0)
    for state, i in zip(path.states, solver.points, strict=True):
        torch.testing.assert_close(state, x[i], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(solver.unroll().sample(elementwise, x0), x[-1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_channel_has_numbers_of_its_own(shape):
    solver, x0 = make(), draw(5, *shape)
    assert solver.channels == CHANNELS
    path = solver.sample(elementwise, x0, trajectory=True)
    unrolled = solver.unroll().sample(elementwise, x0)
    for k in range(CHANNELS):
        x = by_hand(solver, x0[:, k], channel=k)
        for state, i in zip(path.states, solver.points, strict=True):
            torch.testing.assert_close(state[:, k], x[i], rtol=1e-12, atol=1e-12)
        alone = solver.channel(k)
        assert alone.channels is None
        torch.testing.assert_close(alone.sample(elementwise, x0[:, k]), x[-1], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(unrolled[:, k], x[-1], rtol=1e-12, atol=1e-12)


def test_offsets_may_have_channels_where_coefficients_have_none():
    solver, x0 = replace(fs.classical.euler(2), offsets=((0.1, -0.2), (0.3, 0.0))), draw(4, 2, 3)
    plain = [replace(fs.classical.euler(2), offsets=e) for e in ((0.1, 0.3), (-0.2, 0.0))]
    for form in (solver, solver.unroll(), solver.to("data", CondOT()).to("velocity", CondOT())):
        for k, alone in enumerate(plain):
            expected = alone.sample(elementwise, x0)[:, k]
            torch.testing.assert_close(form.sample(elementwise, x0)[:, k], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_state_keeps_its_type_and_numbers_their_bits(dtype):
    """In half precision a step is rounded once, as with single numbers: theirs stay in float32."""
    solver = fs.Solver((0.0,), (((1 / 3, 0.7),),), (((1 / 7, -0.3),),), (0, 1), offsets=((0.0, 0.1),))
    x0 = draw(50, 2, 6).to(dtype)
    x1 = solver.sample(lambda x, t: -x, x0)
    assert x1.dtype == dtype
    exact = x0.double() * torch.tensor([[1 / 3 - 1 / 7], [1.0]], dtype=torch.float64)
    exact[:, 1] += 0.1
    error = (x1.double() - exact).abs() / (exact.abs() + 0.1)
    largest = 0.51 if dtype.itemsize == 2 else 4
    assert float(error.max()) < largest * torch.finfo(dtype).eps


def test_numbers_go_to_the_device_in_one_copy_before_the_loop(monkeypatch):
    made = []
    tensor = torch.tensor

    def counting(numbers, **options):
        if isinstance(numbers, list):  # and not the time of a call
            made.append(numbers)
        return tensor(numbers, **options)

    solver, x0 = make(), draw(2, 3, 4)
    solver.sample(elementwise, x0)  # the table is made once for all samplings
    monkeypatch.setattr(torch, "tensor", counting)
    solver.sample(lambda x, t: x, x0)
    assert len(made) == 1
    rows = bound(plan(solver.C, solver.D, offsets=solver.offsets), x0)
    numbers = [c for row in rows for _, c in (*row.states, *row.predictions)] + [row.offset for row in rows]
    assert {tuple(c.shape) for c in numbers} == {(3, 1)}
    assert len({c.untyped_storage().data_ptr() for c in numbers}) == 1


def test_rows_without_channels_are_left_as_they_are():
    solver = make(None)
    rows = plan(solver.C, solver.D, offsets=solver.offsets)
    assert bound(rows, draw(2, 3)) == rows
    assert all(row.offset is None for row in plan(solver.C, solver.D))
    assert plan([[1.0]], [[1.0]], offsets=[0.0])[0].offset is None


@pytest.mark.parametrize("schedule", [CondOT(), VP(), Cosine(), VE(5.0)], ids=repr)
@pytest.mark.parametrize("prediction", ["noise", "data", "v"])
@pytest.mark.parametrize("channels", [None, CHANNELS])
def test_every_prediction_samples_alike(schedule, prediction, channels):
    solver = make(channels, times=(0.05, 0.3, 0.5, 0.8))
    exact, other = (
        fs.models.GaussianMixture(draw(4, 3, 2), 0.4, schedule=schedule, prediction=p).field()
        for p in ("velocity", prediction)
    )
    x0 = draw(6, 3, 2, seed=9)
    expected, table = solver.sample(exact, x0), solver.to(prediction, schedule)
    assert (table.channels, table.offsets) == (channels, solver.offsets)
    for sampled in (solver.sample(other, x0), table.sample(other, x0), table.sample(exact, x0)):
        torch.testing.assert_close(sampled, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("channels", [None, CHANNELS])
def test_a_rescheduled_solver_is_the_solver_on_the_rescheduled_field(channels):
    source, target = CondOT(), Cosine()
    field = fs.models.GaussianMixture(draw(4, 3, 2), 0.4, schedule=target).field()
    solver, x0 = make(channels, times=(0.05, 0.3, 0.5, 0.8), end=0.9), draw(6, 3, 2, seed=9)
    moved = solver.reschedule(source, target)
    scales = []
    for s in (0.05, 0.9):
        (alpha, sigma), (alpha_bar, sigma_bar) = (
            target(target.inverse_log_snr(source.log_snr(s)))[:2],
            source(s)[:2],
        )
        scales.append(float((alpha + sigma) / (alpha_bar + sigma_bar)))
    expected = scales[1] * solver.sample(field.reschedule(source), x0)
    torch.testing.assert_close(moved.sample(field, scales[0] * x0), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("channels", [None, CHANNELS])
@pytest.mark.parametrize("offsets", [False, True])
def test_every_bit_comes_back_from_a_file_of_schema_2(tmp_path, channels, offsets):
    solver = make(channels, offsets)
    solver.save(tmp_path / "a.json")
    assert fs.Solver.load(tmp_path / "a.json") == solver
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["schema"] == (1 if channels is None and not offsets else 2)
    assert ("offsets" in content) == offsets


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"offsets": (1.0,)}, "offsets: must be 2 finite numbers or none, not"),
        ({"offsets": (1.0, float("nan"))}, "offsets: must be 2 finite numbers"),
        ({"offsets": (1.0, (1.0, 2.0))}, "must have single numbers, or one for each"),
        ({"C": (((1.0, 1.0),), (0.0, 1.0))}, "C, D and offsets: must have single numbers, or one for each"),
        ({"C": (((1.0, 1.0),), ((0.0, 0.0), (1.0, 1.0)))}, "must have single numbers, or one for each"),
        ({"offsets": ((), ())}, "must have single numbers, or one for each"),
    ],
    ids=str,
)
def test_numbers_that_make_no_solver_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(fs.classical.euler(2), **change)


@pytest.mark.parametrize("shape", [(2, 1, 8), (2, 4), (3,)], ids=str)
def test_other_channels_are_refused(shape):
    with pytest.raises(
        ValueError, match=r"'own' has numbers of its own for each of 3 channels, but .* not 3"
    ):
        make().sample(elementwise, draw(*shape))


def test_what_looks_at_one_table_asks_for_a_channel():
    solver = make()
    for look in (fs.inspect, fs.report.coefficients):
        with pytest.raises(
            ValueError, match=r"each of 3 channels; pass .* solver.channel\(k\), .* with k from 0"
        ):
            look(solver)
    assert fs.inspect(solver.channel(1)).solver.nfe == N
    with pytest.raises(ValueError, match="channel must be one that it has, not 3; it has channels 0 to 2"):
        solver.channel(3)
    with pytest.raises(ValueError, match="not 0; it has no channels"):
        solver.channel(0).channel(0)


def test_channels_that_are_alike_and_zero_offsets_are_left_out():
    table = fs.classical.midpoint(2).table
    same = Table(
        table.times, *(p[..., None].expand(-1, -1, 3) for p in table[1:3]), table.times.new_zeros(4, 3)
    )
    plain = fs.Solver.from_table(same, fs.classical.midpoint(2).points, name="midpoint")
    assert plain == fs.classical.midpoint(2)


def test_gradients_flow_through_channels():
    solver, x0 = make(), draw(2, 3, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(solver.sample(elementwise, x0, differentiable=True).sum(), x0)
    step = 1e-6 * torch.ones_like(x0)
    moved = [solver.sample(elementwise, x0.detach() + s * step).sum() for s in (1, -1)]
    torch.testing.assert_close(gradient.sum(), (moved[0] - moved[1]) / 2e-6, rtol=1e-6, atol=1e-6)


def test_another_offset_is_another_solver_to_a_folder_of_samples():
    plain = fs.classical.euler(2)
    shifted = replace(plain, offsets=(0.0, 0.1))
    assert shifted.describe()["fingerprint"] != plain.describe()["fingerprint"]
