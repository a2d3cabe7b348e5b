"""The same flow in other coordinates: other schedules, and from data to noise."""

from __future__ import annotations

import functools

import pytest
import torch

import fewstep as fs
from fewstep.schedules import DDPM, VE, VP, CondOT, Cosine, Polynomial, Reversed

SCHEDULES = [CondOT(), VP(), Cosine(), VE(200.0, rho=3.0), Polynomial(2.0)]
NOISE = fs.noise(5, (3,), seed=3, dtype=torch.float64)
TIGHT = {"rtol": 1e-9, "atol": 1e-9, "max_nfe": 20_000}

each_prediction = pytest.mark.parametrize("prediction", ["velocity", "noise", "data", "v"])


def mixture(schedule, prediction="velocity"):
    network = fs.models.random_mixture(3, 4, std=0.4, schedule=schedule, prediction=prediction)
    mean = network.log_weights.exp() @ network.means
    std = (network.log_weights.exp() @ ((network.means - mean) ** 2 + 0.4**2)).sqrt()
    return fs.Field(network, schedule, prediction, clock=(0, 1), data_moments=(mean, std))


@functools.cache
def data(schedule):
    """Where the velocity takes ``NOISE``: each schedule is solved once."""
    return fs.reference.solve(mixture(schedule), NOISE, **TIGHT).states[-1]


@pytest.mark.parametrize("target", [*SCHEDULES, DDPM()], ids=repr)
@pytest.mark.parametrize("source", SCHEDULES, ids=repr)
@each_prediction
def test_a_rescheduled_field_is_the_field_trained_under_that_schedule(source, target, prediction):
    """The velocity in closed form, wherever the source has been: Theorem 2.3 of Shaul et al. (2024)."""
    for t in (0.05, 0.4, 0.95, 1.0):
        if not source.log_snr(0.0) <= target.log_snr(t):
            continue
        moved, exact = mixture(source, prediction).reschedule(target), mixture(target)
        scale = exact(NOISE, t).abs().max().clamp(min=1)
        tolerance = 1e-5 if t == 1 and VP() in (source, target) else 1e-9
        assert float((moved(NOISE, t) - exact(NOISE, t)).abs().max() / scale) < tolerance


@pytest.mark.parametrize("source", SCHEDULES, ids=repr)
@pytest.mark.parametrize("target", SCHEDULES, ids=repr)
def test_the_same_noise_gives_the_same_data(source, target):
    """To the accuracy of the reference where the target begins in as much noise as the source."""
    moved = fs.reference.solve(mixture(source).reschedule(target), NOISE, **TIGHT).states[-1]
    left_out = target.log_snr(0.0) > source.log_snr(0.0) + 1e-9
    torch.testing.assert_close(moved, data(source), rtol=0, atol=1e-4 if left_out else 2e-7)


@pytest.mark.parametrize("source", [CondOT(), Cosine()], ids=repr)
@pytest.mark.parametrize("target", [VP(), VE()], ids=repr)
def test_paths_correspond_where_the_target_begins_in_less_noise(source, target):
    """xbar(s) = x(t_s) / k from the corresponding state, to the accuracy of the reference."""
    field = mixture(source)
    t = float(source.inverse_log_snr(target.log_snr(0.0)))
    states = fs.reference.solve(field, NOISE, times=(0.0, t, 1.0), **TIGHT).states
    moved = field.reschedule(target)
    k = float(source(t).sigma / target(0.0).sigma)
    start = moved.initial_noise(states[1] / k)
    torch.testing.assert_close(
        fs.reference.solve(moved, start, **TIGHT).states[-1], states[-1], rtol=0, atol=2e-7
    )


def test_a_solver_converges_on_the_rescheduled_field():
    exact, moved = data(VP()), mixture(VP(), "noise").reschedule(CondOT())
    errors = [float((fs.classical.midpoint(n).sample(moved, NOISE) - exact).abs().max()) for n in (40, 80)]
    assert errors[1] < 0.3 * errors[0] < 0.01


def test_ddim_does_not_depend_on_the_schedule():
    """DDIM is Euler in sigma / alpha: the same levels give the same samples."""
    field = mixture(Cosine(), "data")
    grid = fs.grids.uniform(6)
    inner = [float(CondOT().inverse_log_snr(Cosine().log_snr(t))) for t in grid[1:-1]]
    expected = fs.classical.ddim(grid=grid, schedule=Cosine()).sample(field, NOISE)
    moved = fs.classical.ddim(grid=(0.0, *inner, 1.0)).sample(field.reschedule(CondOT()), NOISE)
    torch.testing.assert_close(moved, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@each_prediction
def test_the_reversed_field_runs_the_other_way(schedule, prediction):
    field = mixture(schedule, prediction)
    back = field.reversed()
    assert back.schedule == Reversed(schedule)
    x = NOISE * float(schedule(0.6).sigma)
    torch.testing.assert_close(back(x, 0.4), -field(x, 0.6), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
@each_prediction
def test_data_go_back_to_their_noise(schedule, prediction):
    field = mixture(schedule, prediction)
    state = fs.reference.solve(field.reversed(), data(schedule), **TIGHT).states[-1]
    torch.testing.assert_close(field.initial_noise(state), NOISE, rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", [
    lambda schedule: fs.classical.midpoint(64),
    lambda schedule: fs.classical.adams_bashforth(3, 128),
    lambda schedule: fs.classical.ddim(512, schedule=schedule),
    lambda schedule: fs.classical.dpmpp("2M", 128, schedule=schedule),
], ids=["midpoint", "ab3", "ddim", "dpmpp_2m"])  # fmt: skip
def test_every_solver_inverts(make):
    field = mixture(Cosine(), "data")
    back = field.reversed()
    state = make(back.schedule).sample(back, data(Cosine()))
    assert float((field.initial_noise(state) - NOISE).abs().max()) < 0.03


def test_reversing_twice_gives_the_field_back():
    field = mixture(VP(), "noise")
    torch.testing.assert_close(
        field.reversed().reversed()(NOISE, 0.3), field(NOISE, 0.3), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("derive", [lambda f: f.reversed(), lambda f: f.reschedule(Cosine())])
def test_a_derived_field_carries_guidance_conditions_and_identity_along(derive):
    def network(x, t, label):
        return label[:, None] * x

    options = {"guidance": 2.0, "unconditional": {"label": torch.zeros(5)}}
    field = fs.Field(network, name="labels", **options)
    derived = derive(field)
    assert derived.forwards_per_call == 2
    label = torch.arange(5.0)
    doubled = derive(fs.Field(network, name="labels"))(NOISE, 0.4, label=2 * label)
    torch.testing.assert_close(derived(NOISE, 0.4, label=label), doubled)
    assert derived.fingerprint() != field.fingerprint()
    other = derive(fs.Field(network, name="others", **options))
    assert derived.fingerprint() not in (
        other.fingerprint(),
        derive(fs.Field(network, name="labels")).fingerprint(),
    )


def test_jumps_of_guidance_move_along():
    def network(x, t, label):
        return label * x

    field = fs.Field(
        network, guidance=2.0, unconditional={"label": 0.0}, guidance_interval=(0.25, 0.5), name="jump"
    )
    assert field.discontinuities == (0.25, 0.5)
    assert field.reversed().discontinuities == (0.5, 0.75)
    levels = [CondOT().log_snr(t) for t in (0.25, 0.5)]
    expected = [float(Cosine().inverse_log_snr(level)) for level in levels]
    assert field.reschedule(Cosine()).discontinuities == pytest.approx(expected, abs=1e-12)


def test_each_sample_takes_its_own_steps_back_to_noise():
    field = mixture(CondOT())
    back = field.reversed()
    x1 = fs.reference.solve(field, NOISE, **TIGHT).states[-1]
    result = fs.Adaptive(rtol=1e-8, atol=1e-8).sample(back, x1)
    torch.testing.assert_close(field.initial_noise(result.x1), NOISE, rtol=0, atol=1e-5)
    assert len(set(result.nfe.tolist())) > 1


def test_a_network_that_takes_one_time_for_the_batch_gets_one():
    def network(x, t):
        assert t.shape == ()
        return -x * (1 + t)

    field = fs.Field(network, time_shape="scalar", name="scalar")
    for derived in (field.reversed(), field.reschedule(Cosine())):
        assert derived(NOISE, 0.4).shape == NOISE.shape


def test_guidance_outside_its_interval_costs_one_forward(counted):
    network = counted(lambda x, t, label: label * x)
    field = fs.Field(network, guidance=2.0, unconditional={"label": 0.0}, guidance_interval=(0.25, 0.5))
    field.reversed()(NOISE, 0.9, label=1.0)
    assert len(network.times) == 1


@pytest.mark.parametrize("source", [Cosine(), VP(), VE(200.0, rho=3.0)], ids=repr)
@pytest.mark.parametrize("target", [Cosine(), VP(), CondOT()], ids=repr)
@each_prediction
def test_a_rescheduled_solver_is_the_solver_on_the_rescheduled_field(source, target, prediction):
    field = mixture(target, prediction)
    first = max(0.02, float(source.inverse_log_snr(target.log_snr(0.0))) + 0.01)
    grid = [first + (0.98 - first) * i / 4 for i in range(5)]
    solver = fs.classical.midpoint(grid=grid)
    moved = solver.reschedule(source, target)
    assert (moved.nfe, moved.schedule) == (8, target)
    derived = field.reschedule(source)
    # Tables start wherever they are told to, so the two start from the same point of the path.
    ends = [float(target.inverse_log_snr(source.log_snr(s))) for s in (grid[0], grid[-1])]
    k = [float(target(t).sigma / source(s).sigma) for t, s in zip(ends, (grid[0], grid[-1]), strict=True)]
    expected = k[1] * solver.sample(derived, NOISE)
    start = field.initial_noise(k[0] * derived.initial_state(NOISE))
    torch.testing.assert_close(moved.sample(field, start), expected, rtol=1e-9, atol=1e-9)


def test_a_rescheduled_solver_needs_ratios_that_the_target_has():
    for target in (VP(), DDPM()):
        with pytest.raises(ValueError, match=r"reschedule: .* has not every signal-to-noise ratio"):
            fs.classical.midpoint(4).reschedule(CondOT(), target)
    with pytest.raises(ValueError, match=r"'heun' calls the network at t = 1 \(call 3\), where a data"):
        fs.classical.heun(2).reschedule(CondOT(), Cosine())
    with pytest.raises(ValueError, match="needs a table of velocities, not of data predictions"):
        fs.classical.ddim(4).reschedule(CondOT(), Cosine())


@pytest.mark.parametrize("derive", [fs.Field.reversed, lambda field: field.reschedule(VP())])
def test_a_derived_field_takes_another_guidance_scale(derive):
    def network(x, t, label):
        return torch.sin(x) * (1 + label)

    field = fs.Field(network, guidance=2.0, unconditional={"label": 0.0}, shape=(3,))
    again, made = derive(field).with_guidance(4.0), derive(field.with_guidance(4.0))
    x = torch.linspace(-1, 1, 3, dtype=torch.float64)[None]
    assert torch.equal(again(x, 0.3, label=1.0), made(x, 0.3, label=1.0))
    assert again.describe() == made.describe()
