"""Schedules against autograd, quadrature and their papers."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch

import fewstep as fs
from fewstep.schedules import (
    DDPM,
    VE,
    VP,
    CondOT,
    Cosine,
    Discrete,
    LinearVP,
    Polynomial,
    Reversed,
    from_dict,
)

SCHEDULES = [
    CondOT(),
    Polynomial(2.0),
    Polynomial(0.5),
    VP(),
    VP(0.2, 12.0),
    Cosine(),
    LinearVP(),
    VE(),
    VE(10.0, 0.01, 3.0),
    DDPM(),
    DDPM("scaled_linear", 0.00085, 0.012, zero_terminal_snr=True),
    DDPM("squared_cosine"),
    Discrete((0.97, 0.8, 0.5, 0.2, 0.04, 0.001)),
    Reversed(VP()),
    Reversed(Cosine()),
    Reversed(LinearVP()),
]
INNER = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)

each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)


@each_schedule
def test_derivatives_are_those_of_autograd(schedule):
    t = INNER.clone().requires_grad_()
    # + 0 t, as alpha may not depend on time at all
    slopes = [torch.autograd.grad((part + 0 * t).sum(), t, retain_graph=True)[0] for part in schedule(t)[:2]]
    torch.testing.assert_close(list(schedule(INNER)[2:]), slopes, rtol=1e-11, atol=1e-12)


@each_schedule
def test_log_snr_is_the_log_ratio_increases_and_inverts(schedule):
    alpha, sigma = schedule(INNER)[:2]
    lambdas = schedule.log_snr(INNER)
    torch.testing.assert_close(lambdas, (alpha / sigma).log(), rtol=1e-11, atol=1e-11)
    assert bool((lambdas.diff() > 0).all())
    torch.testing.assert_close(schedule.inverse_log_snr(lambdas), INNER, rtol=0, atol=1e-10)


@pytest.mark.parametrize("schedule", [CondOT(), Polynomial(3.0), Cosine(), LinearVP()], ids=repr)
def test_pure_noise_and_pure_data_are_exact(schedule):
    alpha, sigma = schedule(torch.tensor([0.0, 1.0], dtype=torch.float64))[:2]
    assert alpha.tolist() == [0.0, 1.0]
    assert sigma.tolist() == [1.0, 0.0]
    assert schedule.log_snr(0.0) == -math.inf
    assert schedule.log_snr(1.0) == math.inf


@pytest.mark.parametrize("schedule", [VP(), VE()], ids=repr)
def test_the_data_end_is_exact_where_the_noise_end_keeps_signal(schedule):
    alpha, sigma = schedule(1.0)[:2]
    assert (float(alpha), float(sigma)) == (1.0, 0.0)
    assert schedule.log_snr(0.0).isfinite()


def test_vp_integrates_its_rate_of_noise():
    """alpha = exp(-1/2 int beta), the integral by the trapezoidal rule, exact for a linear rate."""
    schedule = VP(0.1, 20.0)
    for t in (0.0, 0.3, 0.9):
        w = 1 - t
        integral = w * (0.1 + 0.1 + w * 19.9) / 2
        alpha, sigma = schedule(t)[:2]
        assert float(alpha) == pytest.approx(math.exp(-integral / 2), rel=1e-14)
        assert float(alpha**2 + sigma**2) == pytest.approx(1, abs=1e-15)
    assert float(schedule(0.0).alpha) == pytest.approx(0.0066, abs=5e-5)


def test_linear_vp_keeps_the_variance_and_the_data_of_straight_paths():
    alpha, sigma = LinearVP()(INNER)[:2]
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(INNER), rtol=0, atol=1e-15)
    torch.testing.assert_close(alpha, CondOT()(INNER).alpha, rtol=0, atol=0)


def test_cosine_keeps_the_variance():
    alpha, sigma = Cosine()(INNER)[:2]
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(INNER), rtol=0, atol=1e-15)
    torch.testing.assert_close(sigma, torch.cos(math.pi * INNER / 2), rtol=0, atol=1e-15)


def test_ve_has_the_noise_levels_of_edm():
    """Karras et al. 2022, eq. 5, at i = 0 .. 4 of N = 5."""
    sigma = VE(80.0, 0.002, 7.0)(torch.linspace(0, 1, 5, dtype=torch.float64)).sigma
    levels = [(80 ** (1 / 7) + i / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(5)]
    torch.testing.assert_close(sigma, torch.tensor(levels, dtype=torch.float64), rtol=1e-12, atol=0)
    assert float(sigma[-1]) == pytest.approx(0.002, rel=1e-12)


def test_numbers_count_as_float64_and_tensors_keep_their_type_and_shape():
    assert CondOT()(0.5).alpha.dtype == torch.float64
    for point in VP()(torch.rand(2, 3)):
        assert point.dtype == torch.float32
        assert point.shape == (2, 3)


@each_schedule
def test_dict_round_trip(schedule):
    assert from_dict(schedule.to_dict()) == schedule
    assert hash(from_dict(schedule.to_dict())) == hash(schedule)


def test_schedules_compare_by_value():
    assert VP() == VP(0.1, 20.0)
    assert VP() != VP(0.1, 19.0)
    assert CondOT() != Cosine()
    assert Polynomial(1.0) != CondOT()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Polynomial(0), "n must be a positive number, not 0"),
        (lambda: Polynomial(math.nan), "n must be a positive number, not nan"),
        (lambda: VP(beta_min=0.0), "beta_min must be a positive number, not 0.0"),
        (lambda: VP(1.0, 0.5), "beta_max must be a number above beta_min, not 0.5"),
        (lambda: VE(sigma_min=-1.0), "sigma_min must be a number of at least 0, not -1.0"),
        (lambda: VE(1.0, 2.0), "sigma_max must be above sigma_min, not 1.0"),
        (lambda: VE(rho=0.0), "rho must be a positive number, not 0.0"),
        (
            lambda: from_dict({"name": "linear"}),
            "must be one of cond_ot, .* not 'linear' .did you mean 'linear_vp'",
        ),
        (lambda: from_dict({}), "must be one of .*, not None"),
        (lambda: from_dict({"name": "vp", "beta": 1.0}), "'vp': parameters .* do not fit"),
    ],
)
def test_bad_parameters_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_schedules_are_immutable():
    with pytest.raises(AttributeError):
        fs.schedules.VP().beta_min = 1.0


DISCRETE = [
    (DDPM(), {}),
    (
        DDPM("scaled_linear", 0.00085, 0.012),
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    ),
    (DDPM("squared_cosine"), {"beta_schedule": "squaredcos_cap_v2"}),
    (DDPM(zero_terminal_snr=True), {"rescale_betas_zero_snr": True}),
]


@pytest.mark.parametrize(("schedule", "config"), DISCRETE, ids=lambda value: repr(value))
def test_named_discrete_schedules_are_those_of_diffusers(schedule, config):
    diffusers = pytest.importorskip("diffusers")
    expected = diffusers.DDIMScheduler(**config).alphas_cumprod.double()
    # Theirs are products of a thousand float32 numbers.
    torch.testing.assert_close(
        torch.tensor(schedule.table, dtype=torch.float64), expected, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("schedule", [schedule for schedule, _ in DISCRETE], ids=repr)
def test_a_discrete_schedule_passes_through_its_table_and_ends_in_data(schedule):
    k = torch.arange(schedule.count, dtype=torch.float64)
    t = (schedule.count - 1 - k) / schedule.count
    alpha, sigma = schedule(t)[:2]
    table = torch.tensor(schedule.table, dtype=torch.float64)
    torch.testing.assert_close(alpha**2, table, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t), rtol=0, atol=1e-14)
    torch.testing.assert_close(schedule.timestep(t), k, rtol=0, atol=1e-9)
    assert tuple(map(float, schedule(1.0)[:2])) == (1.0, 0.0)
    assert schedule.timestep(1.0) == 0
    fine = schedule(torch.linspace(0, 1, 20 * schedule.count + 1, dtype=torch.float64))
    assert bool((fine.alpha.diff() > 0).all())
    assert all(bool(part.isfinite().all()) for part in fine)


def test_a_discrete_schedule_between_its_timesteps_is_near_the_continuous_one():
    """DDPM's linear betas are VP's rate of noise, a thousand times (Song et al. 2021, appendix B)."""
    table, continuous = DDPM(), VP()
    t = torch.linspace(0.05, 0.9, 333, dtype=torch.float64)
    torch.testing.assert_close(table.log_snr(t), continuous.log_snr(t), rtol=0, atol=0.03)


def test_zero_terminal_snr_starts_in_pure_noise():
    assert tuple(map(float, DDPM(zero_terminal_snr=True)(0.0)[:2])) == (0.0, 1.0)
    assert DDPM()(0.0).alpha > 0


@pytest.mark.parametrize(
    "table", [(0.9, 0.5), (0.9, 0.5, 0.1), (0.9, 0.5, 0.0), (0.9, 0.8, 0.7999, 0.1, 0.0)]
)
def test_rough_tables_stay_monotone(table):
    alpha, sigma, d_alpha, d_sigma = Discrete(table)(torch.linspace(0, 1, 4001, dtype=torch.float64))
    assert bool((alpha.diff() > 0).all())
    assert bool((sigma.diff() < 0).all())
    assert bool((d_alpha >= 0).all() and (d_sigma <= 0).all())


@pytest.mark.parametrize("table", [(0.5,), (0.5, 0.6), (1.0, 0.5), (0.9, 0.5, -0.1), (0.9, 0.0)])
def test_what_is_no_table_is_named(table):
    with pytest.raises(ValueError, match="Discrete: alphas_cumprod must be two numbers or more"):
        Discrete(table)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"betas": "sigmoid"}, "betas must be one of .*, not 'sigmoid'"),
        ({"beta_start": 0.0}, "beta_start must be between 0 and 1, not 0.0"),
        ({"beta_end": 2.0}, "beta_end must be between 0 and 1, not 2.0"),
        ({"steps": 1}, "steps must be 2 to 10000, not 1"),
    ],
)
def test_bad_discrete_parameters_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        DDPM(**options)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_copy_has_nothing_of_the_derivative_that_a_schedule_was_first_evaluated_in():
    schedule, t = DDPM(steps=50), torch.tensor(0.5)
    torch.func.jvp(schedule.log_snr, (t,), (torch.ones(()),))
    for again in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
        assert again == schedule
        assert torch.equal(again.log_snr(t), DDPM(steps=50).log_snr(t))


@each_schedule
def test_reversing_twice_is_nothing_and_once_swaps_data_and_noise(schedule):
    once, twice = Reversed(schedule)(INNER), Reversed(Reversed(schedule))(INNER)
    point = schedule(1 - INNER)
    torch.testing.assert_close(list(once), [point.sigma, point.alpha, -point.d_sigma, -point.d_alpha])
    torch.testing.assert_close(list(twice), list(schedule(INNER)), rtol=1e-10, atol=1e-12)
