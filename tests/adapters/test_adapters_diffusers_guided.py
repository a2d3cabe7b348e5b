"""Guided U-Nets of diffusers, tiny and random, with an empty prompt of one row, in batches."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

COUNT = 10
SCALE = 4.0
SIZES = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}
SDXL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 12 + 6 * 4,
}


def draw(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def prompts(rows, xl, seed):
    given = {"encoder_hidden_states": draw(rows, 5, 16, seed=seed)}
    if xl:
        sizes = torch.tensor([[8.0, 8, 0, 0, 8, 8]])  # one row for all
        given["added_cond_kwargs"] = {"text_embeds": draw(rows, 12, seed=seed + 1), "time_ids": sizes}
    return given


def spread(given, rows):
    """By hand: every tensor with as many rows as the batch, as pipelines do."""
    if isinstance(given, dict):
        return {name: spread(value, rows) for name, value in given.items()}
    return given.repeat(rows // len(given), *[1] * (given.ndim - 1))


def turned_on(given):
    """Every prompt one sample further on."""
    return {k: turned_on(v) if isinstance(v, dict) else v.roll(1, dims=0) for k, v in given.items()}


@pytest.fixture(params=[False, True], ids=["sd", "sdxl"])
def guided(request):
    """The field, the conditions, and the guided velocity by hand."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = diffusers.UNet2DConditionModel(**SIZES, **(SDXL if request.param else {})).eval()
    with torch.no_grad():
        unet.conv_out.weight.mul_(0.1)  # random flows are rough
    own, null = prompts(COUNT, request.param, 1), prompts(1, request.param, 7)
    field = fs.adapters.diffusers.field(
        unet,
        diffusers.FlowMatchEulerDiscreteScheduler(),
        guidance=SCALE,
        unconditional=null,
        name="tiny",
    )

    @torch.no_grad()
    def by_hand(x, timestep):
        cond, away = (unet(x, timestep, **spread(given, len(x))).sample for given in (own, null))
        return -(away + SCALE * (cond - away))  # noise minus data, as diffusers has it

    return field, own, by_hand


def test_one_row_of_the_empty_prompt_serves_every_batch(guided):
    field, own, by_hand = guided
    x = fs.noise(COUNT, field.shape)
    for t in (0.0, 0.5):
        expected = by_hand(x, torch.tensor(1000 - 1000 * t))
        bound = field.bind({}, own, COUNT)
        torch.testing.assert_close(bound.predict(x, t), expected, rtol=1e-4, atol=1e-5)
        parts = [bound.rows(slice(k, k + 4)).predict(x[k : k + 4], t) for k in range(0, COUNT, 4)]
        torch.testing.assert_close(torch.cat(parts), expected, rtol=1e-4, atol=1e-5)


def test_a_reference_in_batches_is_that_of_the_whole(guided):
    field, own, _ = guided
    x0 = fs.noise(COUNT, field.shape)
    options = {"rtol": 1e-3, "atol": 1e-3}
    whole = fs.reference.pairs(field, x0, per_sample=own, **options)
    split = fs.reference.pairs(field, x0, per_sample=own, batch=4, **options)
    turned = fs.reference.pairs(field, x0, per_sample=turned_on(own), **options)
    error, other = (float((pairs.x1 - whole.x1).square().mean().sqrt()) for pairs in (split, turned))
    assert error < 3e-3
    assert other > 5 * error  # that of every sample with its neighbour's prompt


def test_it_is_fitted(guided):
    field, own, _ = guided
    fitted = fs.fit(
        field,
        2,
        per_sample=own,
        pairs=COUNT,
        batch=16,
        optimizer=fs.fitting.GaussNewton(iterations=2),
        reference=fs.fitting.Reference(rtol=1e-3, atol=1e-3),
    )
    assert fitted.report.errors["fitted"] <= fitted.report.errors["start"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gets_the_timestep_in_float32(guided, dtype):
    field, own, by_hand = guided
    x = fs.noise(COUNT, field.shape)
    expected = by_hand(x, torch.tensor(1000.0))
    field.model.to(dtype)

    def half(given):
        return {k: half(v) if isinstance(v, dict) else v.to(dtype) for k, v in given.items()}

    field.unconditional = half(field.unconditional)
    found = field.bind({}, half(own), COUNT).predict(x, 0.0).detach()
    assert found.dtype == torch.float32
    error = float((found - expected).norm() / expected.norm())
    assert error < (0.01 if dtype == torch.float16 else 0.1)
