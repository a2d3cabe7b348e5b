"""Networks of diffusers: exact ones, read in every way its schedulers know."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep.adapters import diffusers as adapter
from fewstep.schedules import DDPM, VE, CondOT, Discrete

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

BETAS = [
    (DDPM(), {}),
    (
        DDPM("scaled_linear", 0.00085, 0.012, 500),
        {
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "num_train_timesteps": 500,
        },
    ),
    (DDPM("squared_cosine"), {"beta_schedule": "squaredcos_cap_v2"}),
    (DDPM(zero_terminal_snr=True), {"rescale_betas_zero_snr": True}),
]
PREDICTIONS = [("epsilon", "noise"), ("v_prediction", "v"), ("sample", "data")]


class Sample:
    """As diffusers returns it."""

    def __init__(self, sample):
        self.sample = sample


class UNet(nn.Module):
    """An exact network told timesteps, as ``(sample, timestep)``; ``make`` turns both into its answer."""

    def __init__(self, make, output=Sample, **settings):
        super().__init__()
        self.make, self.output, self.config = make, output, settings
        self.eval()

    def forward(self, sample, timestep, shift=0.0):
        assert timestep.shape == (len(sample),)
        return self.output(self.make(sample, timestep) + shift)


class Transformer(UNet):
    """The same, with the names and order of diffusers' transformers."""

    def forward(self, hidden_states, encoder_hidden_states=None, timestep=None, return_dict=True):
        assert encoder_hidden_states is None
        return super().forward(hidden_states, timestep)


def stepwise(network, steps):
    """The exact network told the timestep ``k``, which lies at ``(T - 1 - k) / T``."""
    return lambda x, k: network(x, (steps - 1 - k) / steps)


@pytest.mark.parametrize(("schedule", "settings"), BETAS, ids=lambda value: repr(value)[:40])
@pytest.mark.parametrize(("theirs", "ours"), PREDICTIONS)
def test_networks_with_betas_give_the_exact_velocity(exact, deviation, schedule, settings, theirs, ours):
    scheduler = diffusers.DDIMScheduler(**settings, prediction_type=theirs)
    network = UNet(stepwise(exact(schedule, ours), schedule.count))
    # Below timestep 0, which lies at t = 1 - 1 / T, the network is not told more.
    times = (0.0 if ours == "v" else 0.01, 0.2, 0.5, 0.99)
    for source in (scheduler, dict(scheduler.config)):
        field = adapter.field(network, source)
        assert field.schedule == schedule
        assert field.prediction == ours
        assert deviation(field, schedule, times) < 1e-9


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of HeunDiscrete's
@pytest.mark.parametrize(
    "name",
    ["DDPM", "PNDM", "EulerDiscrete", "HeunDiscrete", "DPMSolverMultistep", "UniPCMultistep", "LMSDiscrete"],
)
def test_the_schedulers_of_one_network_lead_to_one_field(exact, deviation, name):
    scheduler = getattr(diffusers, f"{name}Scheduler")(beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    field = adapter.field(UNet(stepwise(exact(DDPM(), "noise"), 1000)), scheduler)
    assert field.schedule == DDPM()
    assert deviation(field, DDPM()) < 1e-9


@pytest.mark.parametrize(("schedule", "settings"), BETAS, ids=lambda value: repr(value)[:40])
def test_either_table_is_that_of_the_scheduler(schedule, settings):
    scheduler = diffusers.DDIMScheduler(**settings)
    named = adapter.field(lambda x, k: x, scheduler).schedule
    assert isinstance(named, DDPM)
    own = SimpleNamespace(config={}, alphas_cumprod=scheduler.alphas_cumprod)
    given = adapter.field(lambda x, k: x, own).schedule
    assert isinstance(given, Discrete)
    for table in (named.table, given.table):
        table = torch.tensor(table, dtype=torch.float64)
        torch.testing.assert_close(table, scheduler.alphas_cumprod.double(), rtol=1e-4, atol=1e-6)


def test_a_table_that_is_not_what_its_betas_promise_counts():
    """CogVideoX shifts the signal-to-noise ratio of named betas."""
    scheduler = diffusers.CogVideoXDDIMScheduler(snr_shift_scale=3.0, rescale_betas_zero_snr=False)
    table = adapter.field(lambda x, k: x, scheduler).schedule.table
    torch.testing.assert_close(torch.tensor(table), scheduler.alphas_cumprod.float())


def test_betas_may_be_given_one_by_one():
    betas = torch.linspace(0.01, 0.3, 20).tolist()
    scheduler = diffusers.DDIMScheduler(trained_betas=betas, num_train_timesteps=20)
    tables = [adapter.field(lambda x, k: x, s).schedule.table for s in (scheduler, dict(scheduler.config))]
    expected = torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), 0)
    for table in tables:
        torch.testing.assert_close(torch.tensor(table, dtype=torch.float64), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("output", [lambda m: m, lambda m: (m, "else"), Sample])
@pytest.mark.parametrize("kind", [UNet, Transformer])
def test_networks_may_be_called_and_may_answer_in_several_ways(exact, deviation, kind, output):
    network = kind(stepwise(exact(DDPM(), "noise"), 1000), output)
    assert deviation(adapter.field(network, diffusers.DDIMScheduler()), DDPM()) < 1e-9


@pytest.mark.parametrize(
    ("settings", "variance"),
    [({}, "learned_range"), ({"in_channels": 1, "out_channels": 2}, None), ({}, "learned")],
)
def test_a_learned_variance_is_left_out(exact, deviation, settings, variance):
    half = stepwise(exact(DDPM(), "noise"), 1000)
    network = UNet(lambda x, k: torch.cat([half(x, k), 7 + x], dim=1), **settings)
    scheduler = diffusers.DDPMScheduler(**({"variance_type": variance} if variance else {}))
    assert deviation(adapter.field(network, scheduler), DDPM()) < 1e-9
    plain = adapter.field(UNet(network.make), diffusers.DDPMScheduler())
    with pytest.raises(ValueError, match=r"shape \(1, 2, 2, 2\) for a state of shape \(1, 1, 2, 2\)"):
        plain(torch.ones(1, 1, 2, 2), 0.5)


class SD3Transformer2DModel(Transformer):
    """Told the scheduler's timestep."""


def flow(network, scale=1000.0, sign=-1):
    """The exact velocity as diffusers' networks tell it: noise minus data, at ``1000 sigma``."""
    return lambda x, k: sign * network(x, 1 - k / scale)


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        diffusers.FlowMatchHeunDiscreteScheduler(),
        diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0
        ),
        diffusers.DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
    ],
    ids=lambda s: type(s).__name__,
)
def test_flow_matching_networks_give_the_exact_velocity(exact, deviation, scheduler):
    settings = {"_class_name": type(scheduler).__name__, **scheduler.config}
    for source in (scheduler, settings):
        field = adapter.field(SD3Transformer2DModel(flow(exact(CondOT(), "velocity"))), source)
        assert field.schedule == CondOT()
        assert deviation(field, CondOT(), times=(0.0, 0.3, 0.8, 1.0)) < 1e-9


def test_flow_matching_may_predict_noise(exact, deviation):
    scheduler = diffusers.UniPCMultistepScheduler(prediction_type="epsilon", use_flow_sigmas=True)
    network = UNet(flow(exact(CondOT(), "noise"), sign=1))
    assert deviation(adapter.field(network, scheduler), CondOT()) < 1e-9


class FluxTransformer2DModel(Transformer):
    """Told ``1 - t``, as the Flux pipelines do."""


class Lumina2Transformer2DModel(Transformer):
    """Told ``t``; its velocity is ours, as Lumina's pipeline negates it."""


def test_transformers_that_count_time_otherwise_are_known(exact, deviation):
    velocity, scheduler = exact(CondOT(), "velocity"), diffusers.FlowMatchEulerDiscreteScheduler()
    fields = [
        adapter.field(FluxTransformer2DModel(flow(velocity, scale=1.0)), scheduler),
        adapter.field(Lumina2Transformer2DModel(lambda x, k: velocity(x, k)), scheduler),
        adapter.field(Transformer(flow(velocity, scale=50.0)), scheduler, clock=(50, 0)),
    ]
    for field in fields:
        assert deviation(field, CondOT()) < 1e-9


def test_the_clock_of_a_network_that_is_not_known_is_guessed_with_a_warning(exact, deviation):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.warns(UserWarning, match=r"Transformer is not among .* guessed .* \(1000, 0\) .* -dx/dt"):
        field = adapter.field(Transformer(flow(exact(CondOT(), "velocity"))), scheduler)
    assert deviation(field, CondOT()) < 1e-9


def test_networks_may_scale_the_timestep(exact, deviation):
    class SanaTransformer2DModel(Transformer):
        pass

    network = SanaTransformer2DModel(flow(exact(CondOT(), "velocity"), scale=1.0), timestep_scale=0.001)
    assert deviation(adapter.field(network, diffusers.FlowMatchEulerDiscreteScheduler()), CondOT()) < 1e-9


def test_inverted_levels_are_our_time(exact, deviation):
    """Mochi's scheduler counts levels up from noise, and steps along the network's own output."""
    velocity = exact(CondOT(), "velocity")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    network = SD3Transformer2DModel(lambda x, k: velocity(x, k / 1000))
    assert deviation(adapter.field(network, scheduler), CondOT()) < 1e-9
    scheduler.set_timesteps(5)
    x = theirs = fs.noise(2, (1, 2, 2), seed=0, dtype=torch.float64)
    for k in scheduler.timesteps:
        theirs = scheduler.step(network(theirs, timestep=k.double().expand(2)).sample, k, theirs).prev_sample
    solver = fs.classical.euler(grid=scheduler.sigmas.tolist())
    ours = solver.sample(adapter.field(network, scheduler), x)
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_edm_schedulers_precondition_raw_networks(exact, deviation, kind, name):
    """The raw network is solved for with the scheduler's own formulas, of which the adapter knows nothing."""
    settings = {"prediction_type": kind, "sigma_data": 0.7, "sigma_max": 50.0}
    scheduler, path = getattr(diffusers, name)(**settings), VE(50.0)
    data = exact(path, "data")

    def raw(scaled, c_noise):
        sigma = (4 * c_noise).exp().reshape(-1, 1, 1, 1)
        x = scaled / scheduler.precondition_inputs(torch.ones_like(sigma), sigma)
        zero = torch.zeros_like(x)
        skip = scheduler.precondition_outputs(x, zero, sigma)
        out = scheduler.precondition_outputs(zero, torch.ones_like(x), sigma)
        return (data(x, path.inverse_log_snr(-sigma.flatten().log())) - skip) / out

    field = adapter.field(UNet(raw), scheduler)
    assert field.schedule == path
    assert deviation(field, path) < 1e-9
    assert bool(field(torch.ones(2, 1, 2, 2), 1.0).isfinite().all())


def test_euler_with_continuous_timesteps_is_edm_with_data_of_deviation_one(exact, deviation):
    """The formulas of EulerDiscreteScheduler.step for v_prediction; as in Stable Video Diffusion."""
    scheduler = diffusers.EulerDiscreteScheduler(
        prediction_type="v_prediction", timestep_type="continuous", sigma_min=0.002, sigma_max=70.0
    )
    path = VE(70.0)
    data = exact(path, "data")

    def raw(scaled, c_noise):
        sigma = (4 * c_noise).exp().reshape(-1, 1, 1, 1)
        x = scaled * (sigma**2 + 1) ** 0.5
        D = data(x, path.inverse_log_snr(-sigma.flatten().log()))
        return (D - x / (sigma**2 + 1)) / (-sigma / (sigma**2 + 1) ** 0.5)

    assert deviation(adapter.field(UNet(raw), scheduler), path) < 1e-9


@pytest.mark.filterwarnings("ignore:diffusers. Linear is not among the flow-matching networks known")
def test_readings_of_the_same_weights_are_told_apart():
    unet = nn.Linear(1, 1).eval()
    schedulers = [
        diffusers.EDMEulerScheduler(),
        diffusers.EDMEulerScheduler(prediction_type="v_prediction"),
        diffusers.EDMEulerScheduler(sigma_data=1.0),
        diffusers.FlowMatchEulerDiscreteScheduler(),
        diffusers.DDIMScheduler(),
        diffusers.DDIMScheduler(prediction_type="sample"),
    ]
    fields = [adapter.field(unet, scheduler) for scheduler in schedulers]
    assert len({field.fingerprint() for field in fields}) == len(fields)
    assert {field.describe()["model"] for field in fields} == {"Linear"}
    assert fields[0].fingerprint() == adapter.field(unet, diffusers.EDMEulerScheduler()).fingerprint()


def test_a_pipeline_holds_both(exact):
    scheduler = diffusers.DDIMScheduler()
    network = UNet(stepwise(exact(DDPM(), "noise"), 1000))
    x = torch.ones(2, 1, 2, 2, dtype=torch.float64)
    expected = adapter.field(network, scheduler)(x, 0.5)
    for parts in ({"unet": network}, {"transformer": network, "unet": None}):
        pipeline = SimpleNamespace(scheduler=scheduler, **parts)
        assert torch.equal(adapter.field(pipeline)(x, 0.5), expected)
    other = adapter.field(SimpleNamespace(scheduler=scheduler, unet=network), diffusers.EDMEulerScheduler())
    assert other.schedule == VE()


class Net2DModel(nn.Module):
    """A network with settings."""

    def __init__(self, **settings):
        super().__init__()
        self.config = settings
        self.eval()


class Net3DModel(Net2DModel):
    """One whose ``sample_size`` does not tell its shape."""


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (Net2DModel(in_channels=4, out_channels=4, sample_size=8), (4, 8, 8)),
        (Net2DModel(in_channels=4, out_channels=8, sample_size=(8, 6)), (4, 8, 6)),
        (Net2DModel(in_channels=9, out_channels=4, sample_size=8), None),
        (Net2DModel(in_channels=64), None),
        (Net3DModel(in_channels=4, out_channels=4, sample_size=8), None),
    ],
)
def test_the_shape_is_read_where_the_settings_tell_it(network, shape):
    assert adapter.field(network, diffusers.DDIMScheduler()).shape == shape


def test_thresholding_is_warned_about():
    with pytest.warns(UserWarning, match="dynamic thresholding is not part of an ODE"):
        adapter.field(lambda x, k: x, diffusers.DDIMScheduler(thresholding=True))


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (None, "scheduler is missing"),
        (3, "scheduler must be one of diffusers, .* or the mapping of its settings, not a int"),
        (
            diffusers.ScoreSdeVeScheduler(),
            "diffusers: the convention of ScoreSdeVeScheduler is unknown",
        ),
        (diffusers.CMStochasticIterativeScheduler(), "the convention of .* is unknown"),
        (diffusers.CosineDPMSolverMultistepScheduler, "the convention of .* is unknown"),
        (
            SimpleNamespace(config={"beta_schedule": "linear", "prediction_type": "score"}),
            "'score' is unknown",
        ),
        ({"beta_schedule": "sigmoid"}, r"settings alone \(beta_schedule='sigmoid'\) do not give"),
        ({"use_flow_sigmas": True, "prediction_type": "v_prediction"}, "no meaning on straight flow paths"),
        ({"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}, "unknown to EDM's schedulers"),
        ({"_class_name": "EDMEulerScheduler"}, "must hold sigma_min and sigma_max"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_read_is_named(scheduler, words):
    if isinstance(scheduler, type):
        scheduler = SimpleNamespace(config={"_class_name": scheduler.__name__, "sigma_data": 1.0})
    with pytest.raises(ValueError, match=words):
        adapter.field(lambda x, k: x, scheduler)


def test_a_pipeline_without_a_network_is_named():
    with pytest.raises(ValueError, match="SimpleNamespace has neither unet nor transformer"):
        adapter.field(SimpleNamespace(scheduler=diffusers.DDIMScheduler()))
