"""Solvers on fields against the sampling loops of diffusers, with its own networks and the same noise."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.adapters import diffusers as adapter

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

from tiny_pipelines import network  # noqa: E402

SMALL = {
    "sample_size": 8,
    "in_channels": 2,
    "out_channels": 2,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
NOISE = fs.noise(3, (2, 8, 8), seed=0)


def unet():
    blocks = {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    return network("UNet2DModel", **SMALL, **blocks)


def conditional_unet():
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return network("UNet2DConditionModel", **SMALL, **blocks, cross_attention_dim=6, attention_head_dim=4)


def transformer():
    return network(
        "SD3Transformer2DModel",
        sample_size=8,
        patch_size=2,
        in_channels=2,
        out_channels=2,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=6,
        caption_projection_dim=16,
        pooled_projection_dim=5,
        pos_embed_max_size=8,
    )


def loop(scheduler, state, predict):
    """The loop of every pipeline."""
    for k in scheduler.timesteps:
        output = predict(scheduler.scale_model_input(state, k), k)
        state = scheduler.step(output, k, state).prev_sample
    return state


def assert_same(ours, theirs, tolerance):
    """As close as asked, of samples that are not all alike."""
    scale = theirs.abs().max().clamp(min=1)
    assert float(theirs.std()) > 0.1
    assert float((ours - theirs).abs().max() / scale) < tolerance


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("betas", ["linear", "squaredcos_cap_v2"])
def test_ddim(prediction, betas):
    network = unet()
    scheduler = diffusers.DDIMScheduler(prediction_type=prediction, beta_schedule=betas, clip_sample=False)
    scheduler.set_timesteps(10)
    field = adapter.field(diffusers.DDPMPipeline(network, scheduler))
    assert field.shape == (2, 8, 8)
    # The last step leads from timestep 0 to pure data, at t = 1.
    grid = [(999 - int(k)) / 1000 for k in scheduler.timesteps] + [1.0]
    solver = fs.classical.ddim(grid=grid, schedule=field.schedule)
    ours = solver.sample(field, field.initial_noise(NOISE * scheduler.init_noise_sigma))
    theirs = loop(scheduler, NOISE, lambda x, k: network(x, k).sample)
    assert_same(ours, theirs, 1e-4)
    late = adapter.field(network, scheduler, clock=lambda t: (999 - 1000 * t - 20).clamp(min=0))
    assert float((solver.sample(late, field.initial_noise(NOISE)) - theirs).abs().max()) > 1e-2


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_match_euler(shift):
    """A shift moves the steps; the field is the same."""
    network = transformer()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(8)
    conditions = {"encoder_hidden_states": torch.ones(3, 4, 6), "pooled_projections": torch.ones(3, 5)}
    field = adapter.field(network, scheduler)
    assert field.shape == (2, 8, 8)
    ours = fs.classical.euler(grid=[1 - float(s) for s in scheduler.sigmas]).sample(
        field, NOISE, **conditions
    )
    state = NOISE
    for k in scheduler.timesteps:
        output = network(hidden_states=state, timestep=k.expand(3), **conditions).sample
        state = scheduler.step(output, k, state).prev_sample
    assert_same(ours, state, 1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_edm_euler(prediction):
    network = unet()
    scheduler = diffusers.EDMEulerScheduler(prediction_type=prediction)
    scheduler.set_timesteps(12)
    field = adapter.field(network, scheduler)
    grid = [float(field.schedule.inverse_log_snr(-s.double().log())) for s in scheduler.sigmas[:-1]] + [1.0]
    grid[0] = 0.0
    state = NOISE * scheduler.init_noise_sigma
    solver = fs.classical.ddim(grid=grid, schedule=field.schedule)
    ours = solver.sample(field, field.initial_noise(state))
    theirs = loop(scheduler, state, lambda x, k: network(x, k).sample)
    assert_same(ours, theirs, 1e-4)


def test_guidance_in_the_field_is_guidance_in_the_loop():
    network = conditional_unet()
    scheduler = diffusers.DDIMScheduler(clip_sample=False, beta_schedule="scaled_linear")
    scheduler.set_timesteps(5)
    text = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(1))
    empty = torch.zeros(3, 4, 6)
    field = adapter.field(network, scheduler, guidance=4.0, unconditional={"encoder_hidden_states": empty})

    def guided(x, k):
        away, towards = network(torch.cat([x, x]), k, torch.cat([empty, text])).sample.chunk(2)
        return away + 4.0 * (towards - away)

    grid = [(999 - int(k)) / 1000 for k in scheduler.timesteps] + [1.0]
    solver = fs.classical.ddim(grid=grid, schedule=field.schedule)
    ours = solver.sample(field, field.initial_noise(NOISE), encoder_hidden_states=text)
    theirs = loop(scheduler, NOISE, guided)
    assert_same(ours, theirs, 1e-4)
    plain = loop(scheduler, NOISE, lambda x, k: network(x, k, text).sample)
    assert float((plain - theirs).abs().max()) > 1e-2


def test_a_pipeline_is_known_by_its_weights():
    scheduler = diffusers.DDIMScheduler()
    field = adapter.field(diffusers.DDPMPipeline(unet(), scheduler))
    assert field.describe()["model"] == "UNet2DModel"
    assert field.fingerprint() == adapter.field(unet(), scheduler).fingerprint()
    other = unet()
    other.conv_out.bias.add_(1e-3)
    assert field.fingerprint() != adapter.field(other, scheduler).fingerprint()
