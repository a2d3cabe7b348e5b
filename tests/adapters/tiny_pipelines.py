"""Tiny random pipelines of diffusers without text encoders; prompts are passed as embeddings."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import diffusers
import torch

import fewstep as fs

B = 2  # two different prompts


class Case(NamedTuple):
    """A pipeline, how it is called, and what its network gets in our loop."""

    pipe: object
    call: dict
    options: dict
    conditions: dict
    noise: torch.Tensor

    def field(self):
        """The field of the network, before or after the scheduler is replaced."""
        return fs.adapters.diffusers.field(self.pipe, **self.options)


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def frozen(kind, **settings):
    """With weights larger than fresh ones, so that the answers depend on time, state and prompt."""
    torch.manual_seed(0)
    network = kind(**settings)
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network.eval().requires_grad_(False)


@cache
def unet(**settings):
    return frozen(
        diffusers.UNet2DConditionModel,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=6,
        attention_head_dim=4,
        **settings,
    )


def tiny_vae(channels=4):
    return frozen(
        diffusers.AutoencoderKL,
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
    )


def embeddings(*shape):
    return {
        "prompt_embeds": randn(B, *shape, seed=1),
        "negative_prompt_embeds": randn(B, *shape, seed=2),
    }


def stable_diffusion(kind="StableDiffusionPipeline", vae=None, **settings):
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
        steps_offset=1, **settings,
    )  # fmt: skip
    pipe = getattr(diffusers, kind)(
        vae=vae, text_encoder=None, tokenizer=None, unet=unet(), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    text = embeddings(3, 6)
    noise = randn(B, 4, 8, 8, seed=0)
    guided = {
        "guidance": 3.0,
        "unconditional": {"encoder_hidden_states": text["negative_prompt_embeds"]},
    }
    call = {**text, "guidance_scale": 3.0, "latents": noise}
    return Case(pipe, call, guided, {"encoder_hidden_states": text["prompt_embeds"]}, noise)


def stable_diffusion_v():
    return stable_diffusion(prediction_type="v_prediction", rescale_betas_zero_snr=True)


def stable_diffusion_xl(scheduler=None):
    scheduler = scheduler or diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear")
    network = unet(
        addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=29
    )
    pipe = diffusers.StableDiffusionXLPipeline(
        vae=None, text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None, unet=network,
        scheduler=scheduler, add_watermarker=False,
    )  # fmt: skip
    # The pipeline asks the second text encoder for the size of its embedding, unless there is none.
    text = embeddings(3, 6)
    pooled = {
        "pooled_prompt_embeds": randn(B, 5, seed=3),
        "negative_pooled_prompt_embeds": randn(B, 5, seed=4),
    }
    ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]]).repeat(B, 1)
    noise = randn(B, 4, 8, 8, seed=0)

    def conditions(kind):
        added = {"text_embeds": pooled[f"{kind}pooled_prompt_embeds"], "time_ids": ids}
        return {"encoder_hidden_states": text[f"{kind}prompt_embeds"], "added_cond_kwargs": added}

    options = {"guidance": 3.0, "unconditional": conditions("negative_")}
    call = {**text, **pooled, "guidance_scale": 3.0, "latents": noise, "height": 64, "width": 64}
    return Case(pipe, call, options, conditions(""), noise)


def stable_diffusion_xl_edm():
    return stable_diffusion_xl(diffusers.EDMEulerScheduler())


def stable_diffusion_3(**settings):
    network = frozen(
        diffusers.SD3Transformer2DModel, sample_size=8, patch_size=2, in_channels=4, out_channels=4,
        num_layers=1, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=6,
        caption_projection_dim=16, pooled_projection_dim=5, pos_embed_max_size=8,
    )  # fmt: skip
    pipe = diffusers.StableDiffusion3Pipeline(
        transformer=network, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, **settings),
        vae=None, text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
        text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip
    text = embeddings(3, 6)
    pooled = {
        "pooled_prompt_embeds": randn(B, 5, seed=3),
        "negative_pooled_prompt_embeds": randn(B, 5, seed=4),
    }
    noise = randn(B, 4, 8, 8, seed=0)

    def conditions(kind):
        return {
            "encoder_hidden_states": text[f"{kind}prompt_embeds"],
            "pooled_projections": pooled[f"{kind}pooled_prompt_embeds"],
        }

    options = {"guidance": 3.0, "unconditional": conditions("negative_")}
    call = {**text, **pooled, "guidance_scale": 3.0, "latents": noise, "height": 64, "width": 64}
    return Case(pipe, call, options, conditions(""), noise)


def stable_diffusion_3_dynamic():
    return stable_diffusion_3(use_dynamic_shifting=True)


def flux(kind="FluxPipeline", vae=None, true_guidance=None, channels=4):
    network = frozen(
        diffusers.FluxTransformer2DModel, patch_size=1, in_channels=4 * channels, num_layers=1,
        num_single_layers=1,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=6, pooled_projection_dim=5,
        axes_dims_rope=(2, 2, 4), guidance_embeds=True,
    )  # fmt: skip
    pipe = getattr(diffusers, kind)(
        transformer=network, vae=vae, text_encoder=None, tokenizer=None, text_encoder_2=None,
        tokenizer_2=None, scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )  # fmt: skip
    prompt, pooled = randn(B, 3, 6, seed=1), randn(B, 5, seed=3)
    noise = randn(B, 16, 16, seed=0)  # 8 x 8 latents, packed by two in both directions
    ids = torch.zeros(4, 4, 3)
    ids[..., 1] += torch.arange(4)[:, None]
    ids[..., 2] += torch.arange(4)[None, :]
    conditions = {
        "encoder_hidden_states": prompt, "pooled_projections": pooled, "guidance": torch.full((B,), 3.5),
        "img_ids": ids.reshape(16, 3), "txt_ids": torch.zeros(3, 3),
    }  # fmt: skip
    call = {
        "prompt_embeds": prompt, "pooled_prompt_embeds": pooled, "guidance_scale": 3.5, "latents": noise,
        "height": 64, "width": 64,
    }  # fmt: skip
    options = {}
    if true_guidance is not None:
        away = {"encoder_hidden_states": randn(B, 3, 6, seed=2), "pooled_projections": randn(B, 5, seed=4)}
        options = {"guidance": true_guidance, "unconditional": away}
        call["true_cfg_scale"] = true_guidance
        call["negative_prompt_embeds"] = away["encoder_hidden_states"]
        call["negative_pooled_prompt_embeds"] = away["pooled_projections"]
    return Case(pipe, call, options, conditions, noise)


def flux_true_guidance():
    return flux(true_guidance=3.0)
