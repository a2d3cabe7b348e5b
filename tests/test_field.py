"""The field: predictions, guidance, times, initial states, identity."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep.schedules import DDPM, VE, VP, CondOT, Cosine


def double(x, t, **conditions):
    """A network that doubles its state."""
    return 2 * x


class Classes(nn.Module):
    """A conditional network whose guidance can be worked out by hand: ``label * x + t``."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.eval()

    def forward(self, x, t, label):
        return self.weight * label[:, None] * x + t[:, None]


@pytest.mark.parametrize("schedule", [CondOT(), VP(), Cosine(), VE(5.0)], ids=repr)
@pytest.mark.parametrize("prediction", ["noise", "data", "v"])
@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_every_prediction_gives_the_velocity_of_the_exact_flow(schedule, prediction, t):
    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = fs.models.random_mixture(3, 4, std=0.3, schedule=schedule).field()
    other = fs.models.random_mixture(3, 4, std=0.3, schedule=schedule, prediction=prediction).field()
    torch.testing.assert_close(other(x, t), exact(x, t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("prediction", ["velocity", "data"])
def test_a_time_may_be_a_number_a_scalar_or_a_batch(prediction):
    field = fs.models.random_mixture(2, 3, prediction=prediction).field()
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = field(x, 0.3)
    torch.testing.assert_close(field(x, torch.tensor(0.3, dtype=torch.float64)), expected, rtol=0, atol=0)
    torch.testing.assert_close(field(x, torch.full((5,), 0.3, dtype=torch.float64)), expected, rtol=0, atol=0)
    mixed = field(x, torch.tensor([0.3, 0.9, 0.3, 0.9, 0.1], dtype=torch.float64))
    torch.testing.assert_close(mixed[[0, 2]], expected[[0, 2]], rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(mixed[[1, 3]], field(x, 0.9)[[1, 3]], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("time_shape", "shape"), [("batch", (4,)), ("scalar", ())])
@pytest.mark.parametrize("t", [0.25, torch.tensor(0.25)])
def test_the_network_sees_the_time_in_the_shape_it_asked_for(counted, time_shape, shape, t):
    network = counted(double)
    fs.Field(network, time_shape=time_shape)(torch.ones(4, 1, 2), t)
    (seen,) = network.times
    assert seen.shape == shape
    assert bool((seen == 0.25).all())


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.float64, torch.float64), (torch.bfloat16, torch.float32)]
)
def test_times_and_velocities_are_never_coarser_than_float32(counted, dtype, expected):
    network = counted(double)
    assert fs.Field(network)(torch.ones(4, 2, dtype=dtype), 0.3).dtype == expected
    assert network.times[0].dtype == expected


def test_guidance_follows_its_formula_and_costs_two_forwards(counted):
    network = counted(Classes())
    field = fs.Field(network, guidance=3.0, unconditional={"label": torch.zeros(4)})
    x, label = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.arange(1.0, 5.0)
    cond, uncond = label[:, None] * x + 0.5, torch.full_like(x, 0.5)
    torch.testing.assert_close(field(x, 0.5, label=label), uncond + 3 * (cond - uncond))
    assert len(network.times) == field.forwards_per_call == 2


@pytest.mark.parametrize("guidance", [None, 1, 1.0])
def test_guidance_of_one_is_none(counted, guidance):
    network = counted(double)
    field = fs.Field(network, guidance=guidance)
    field(torch.ones(4, 2), 0.5)
    assert len(network.times) == field.forwards_per_call == 1


def test_guidance_acts_on_the_prediction_of_the_network():
    """u = A x + B m is affine in m, so guiding noise predictions guides velocities alike."""
    mixtures = {
        p: [fs.models.random_mixture(2, 3, std=0.3, seed=seed, prediction=p) for seed in (0, 1)]
        for p in ("velocity", "noise")
    }
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, v = (
        fs.Field(
            lambda x, t, which, pair=pair: pair[which](x, t),
            prediction=p,
            guidance=2.5,
            unconditional={"which": 1},
        )(x, 0.4, which=0)
        for p, pair in mixtures.items()
    )
    torch.testing.assert_close(u, v, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (lambda x, t: x[:, :1], r"shape \(3, 1\) for a state of shape \(3, 2\)"),
        (lambda x, t: (x,), "a tuple"),
    ],
)
def test_an_output_unlike_the_state_is_an_error(output, words):
    with pytest.raises(ValueError, match=f"network returned {words}"):
        fs.Field(output)(torch.ones(3, 2), 0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prediction": "epsilon"}, "prediction: must be one of"),
        ({"time_shape": "steps"}, "time_shape must be 'batch' or 'scalar', not 'steps'"),
        ({"guidance": 2.0}, "guidance=2.0 needs unconditional"),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        fs.Field(double, **options)


def test_a_model_must_be_callable():
    with pytest.raises(ValueError, match="model must be callable as model"):
        fs.Field("weights.pt")


def test_a_network_in_training_mode_is_warned_about():
    with pytest.warns(UserWarning, match=r"Dropout is in training mode.*model\.eval\(\)"):
        fs.Field(nn.Dropout())


@pytest.mark.parametrize(
    ("schedule", "moments", "mean", "std"),
    [
        (CondOT(), None, 0.0, 1.0),
        (CondOT(), (0.3, 2.0), 0.0, 1.0),
        (VE(80.0), None, 0.0, 80.0),
        (VE(80.0), (0.5, 2.0), 0.5, (80**2 + 2**2) ** 0.5),
    ],
)
def test_the_initial_state_has_the_moments_of_the_noise_end(schedule, moments, mean, std):
    noise = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    state = fs.Field(double, schedule, data_moments=moments).initial_state(noise)
    torch.testing.assert_close(state, mean + std * noise, rtol=1e-13, atol=1e-13)


def test_noise_of_unit_scale_is_handed_on_untouched():
    noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    assert fs.Field(double).initial_state(noise) is noise


def test_the_fingerprint_follows_weights_schedule_prediction_and_guidance():
    model = Classes()
    null = {"label": torch.zeros(1)}
    fields = [
        fs.Field(model),
        fs.Field(model, VP()),
        fs.Field(model, prediction="noise"),
        fs.Field(model, guidance=2.0, unconditional=null),
        fs.Field(model, guidance=2.0, unconditional={"label": torch.ones(1)}),
        fs.Field(model, data_moments=(0.0, 0.5)),
        fs.Field(model, name="other"),
    ]
    prints = [field.fingerprint() for field in fields]
    assert len(set(prints)) == len(prints)
    assert fs.Field(Classes()).fingerprint() == prints[0]
    with torch.no_grad():
        model.weight.add_(1e-6)
    assert fields[0].fingerprint() != prints[0]


def test_scalar_buffers_are_fingerprinted():
    """Batch normalisation keeps a counter of shape ()."""
    assert fs.Field(nn.BatchNorm1d(2).eval()).fingerprint()


def test_a_plain_function_needs_a_name_to_be_fingerprinted():
    with pytest.raises(ValueError, match="pass Field"):
        fs.Field(double).fingerprint()
    assert fs.Field(double, name="double-1").fingerprint() != fs.Field(double, name="double-2").fingerprint()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, [0.0, 0.25, 1.0]),
        ({"clock": (1, 0)}, [1.0, 0.75, 0.0]),
        ({"clock": (1000, 0)}, [1000.0, 750.0, 0.0]),
        ({"clock": lambda t: t**2}, [0.0, 0.0625, 1.0]),
        ({"clock": "sigma", "schedule": VE(80.0, rho=1.0)}, [80.0, 60.0, 0.0]),
        ({"clock": "sigma", "schedule": Cosine()}, [math.inf, 1 / math.tan(math.pi / 8), 0.0]),
        ({"schedule": DDPM()}, [999.0, 749.0, 0.0]),
        ({"schedule": DDPM(steps=100)}, [99.0, 74.0, 0.0]),
        ({"schedule": DDPM(), "clock": (0, 1)}, [0.0, 0.25, 1.0]),
    ],
)
def test_the_network_is_told_what_its_clock_shows(counted, options, told):
    network = counted(double)
    field = fs.Field(network, **options)
    for t in (0.0, 0.25, 1.0):
        field.predict(torch.ones(3, 2, dtype=torch.float64), t)
    field.predict(torch.ones(3, 2, dtype=torch.float64), torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64))
    seen = [float(times[0]) for times in network.times[:3]]
    assert seen == pytest.approx(told, abs=1e-9)
    assert network.times[3].tolist() == pytest.approx(told, abs=1e-9)


def test_guidance_acts_only_within_its_interval(counted):
    network = counted(Classes())
    field = fs.Field(
        network, guidance=3.0, unconditional={"label": torch.zeros(4)}, guidance_interval=(0.25, 0.5)
    )
    x, label = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.arange(1.0, 5.0)
    guided, plain = 3 * label[:, None] * x, label[:, None] * x
    for t, expected, forwards in [(0.2, plain, 1), (0.25, guided, 2), (0.5, guided, 2), (0.6, plain, 1)]:
        network.times.clear()
        torch.testing.assert_close(field(x, t, label=label), expected + t)
        assert len(network.times) == forwards
        torch.testing.assert_close(field(x, torch.tensor(t), label=label), expected + t)
    t = torch.tensor([0.2, 0.25, 0.5, 0.6])
    mixed = torch.stack([plain[0], guided[1], guided[2], plain[3]]) + t[:, None]
    torch.testing.assert_close(field(x, t, label=label), mixed)
    assert field.discontinuities == (0.25, 0.5)


def test_a_weaker_model_guides_with_the_conditions_of_the_caller(counted):
    """Autoguidance (Karras et al. 2024): away from the guide, at the same label."""
    network, guide = counted(Classes()), counted(lambda x, t, label: 0.5 * label[:, None] * x)
    field = fs.Field(network, guidance=2.0, guide=guide)
    x, label = torch.ones(4, 2), torch.arange(1.0, 5.0)
    torch.testing.assert_close(field(x, 0.3, label=label), 1.5 * label[:, None] * x + 0.6)
    assert (len(network.times), len(guide.times)) == (1, 1)
    both = fs.Field(network, guidance=2.0, guide=guide, unconditional={"label": torch.zeros(4)})
    torch.testing.assert_close(both(x, 0.3, label=label), 2 * (label[:, None] * x + 0.3))


def test_a_negative_condition_takes_the_place_of_the_empty_one():
    field = fs.Field(Classes(), guidance=2.0, unconditional={"label": -torch.ones(4)})
    x, label = torch.ones(4, 2), torch.arange(1.0, 5.0)
    torch.testing.assert_close(field(x, 0.3, label=label), (2 * label + 1)[:, None] * x + 0.3)


def test_the_reference_steps_onto_the_jumps_of_guidance():
    """dx/dt = w(t) x with w = 3 within [1/4, 1/2] and 1 elsewhere: x(1) = exp(3/2) x(0)."""
    field = fs.Field(
        lambda x, t, scale: scale * x,
        guidance=3.0,
        unconditional={"scale": 0.0},
        guidance_interval=(0.25, 0.5),
    )
    x0 = torch.ones(2, 1, dtype=torch.float64)
    solution = fs.reference.solve(field, x0, rtol=1e-9, atol=1e-9, scale=1.0)
    torch.testing.assert_close(solution.states[-1], math.exp(1.5) * x0, rtol=1e-8, atol=0)
    # Without stepping onto them, the solver would look for the jumps.
    assert solution.nfe < 200


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clock": "steps"}, "clock must be a pair .* not 'steps'"),
        ({"clock": (0, 1, 2)}, "clock must be a pair"),
        ({"clock": "timestep"}, "clock='timestep' needs a schedule with timesteps"),
        ({"guidance": 2.0, "guide": double, "guidance_interval": (0.5, 0.2)}, "two increasing times"),
        ({"guidance": 2.0, "guide": "weak.pt"}, "guide must be callable"),
    ],
)
def test_bad_clocks_and_guides_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        fs.Field(double, **options)


def test_moments_may_differ_from_pixel_to_pixel():
    mean, std = torch.tensor([0.5, -1.0]), torch.tensor([1.0, 2.0])
    field = fs.Field(double, VP(), data_moments=(mean, std))
    noise = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alpha, sigma = map(float, VP()(0.0)[:2])
    expected = alpha * mean + (sigma**2 + alpha**2 * std.double() ** 2).sqrt() * noise
    torch.testing.assert_close(field.initial_state(noise), expected)
    torch.testing.assert_close(field.initial_noise(expected), noise)


def test_identity_tells_clocks_guides_and_intervals_apart():
    network = Classes()
    fields = [
        fs.Field(network),
        fs.Field(network, clock=(1, 0)),
        fs.Field(network, guidance=2.0, guide=Classes()),
        fs.Field(network, guidance=2.0, guide=Classes(), guidance_interval=(0.0, 0.5)),
    ]
    assert len({field.fingerprint() for field in fields}) == 4


def test_another_guidance_scale_is_the_same_field_at_it(counted):
    null = {"label": torch.zeros(4)}
    x, label = torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), torch.arange(4.0)
    field = fs.Field(Classes(), guidance=2.0, unconditional=null, guidance_interval=(0.1, 0.9), shape=(2,))
    for scale in (1, 3.5):
        made = fs.Field(
            Classes(), guidance=scale, unconditional=null, guidance_interval=(0.1, 0.9), shape=(2,)
        )
        again = field.with_guidance(scale)
        assert torch.equal(again(x, 0.5, label=label), made(x, 0.5, label=label))
        assert again.describe() == made.describe()
        assert again.forwards_per_call == made.forwards_per_call
    assert field.guidance == 2.0
    with pytest.raises(ValueError, match="guidance=3 needs unconditional"):
        fs.Field(Classes()).with_guidance(3)
