"""Pipelines of diffusers with tiny random networks and without text encoders; prompts are embeddings."""

from __future__ import annotations

import warnings

import pytest
import torch

import fewstep as fs

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="pipelines of text to image need transformers")

__all__ = [
    "ARGUMENTS", "SCHEDULERS", "SQUARE", "VARIANTS", "build", "draw", "network", "own_solver",
    "sampled",
]  # fmt: skip

SIZE = 8  # of latents


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(kind, **settings):
    """With weights larger than fresh ones, so that the answers depend on time, state and prompt."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = getattr(diffusers, kind)(**settings)
        for parameter in made.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return made.eval().requires_grad_(False)


UNET = {
    "sample_size": SIZE,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
}
CROSS = {
    **UNET,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
}
VAE = {
    "latent_channels": 4,
    "block_out_channels": (8,) * 4,
    "norm_num_groups": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
PIPELINES = {
    "ddpm": "DDPMPipeline",
    "sd": "StableDiffusionPipeline",
    "inpaint": "StableDiffusionInpaintPipeline",
    "img2img": "StableDiffusionImg2ImgPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "flux_img2img": "FluxImg2ImgPipeline",
    "pixart": "PixArtAlphaPipeline",
    "dit": "DiTPipeline",
    "sana": "SanaPipeline",
    "aura": "AuraFlowPipeline",
    "wan": "WanPipeline",
    "qwen": "QwenImagePipeline",
    "z_image": "ZImagePipeline",
    "lumina2": "Lumina2Pipeline",
    "prx": "PRXPipeline",
}
NETWORKS = {
    "ddpm": (
        "UNet2DModel",
        {**UNET, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
         "up_block_types": ("AttnUpBlock2D", "UpBlock2D")},
    ),
    "sd": ("UNet2DConditionModel", CROSS),
    "img2img": ("UNet2DConditionModel", CROSS),
    "inpaint": ("UNet2DConditionModel", {**CROSS, "in_channels": 9}),
    "sdxl": (
        "UNet2DConditionModel",
        {**CROSS, "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
         "projection_class_embeddings_input_dim": 12 + 6 * 4},
    ),
    "sd3": (
        "SD3Transformer2DModel",
        {"sample_size": SIZE, "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 1,
         "attention_head_dim": 8, "num_attention_heads": 2, "joint_attention_dim": 16,
         "caption_projection_dim": 16, "pooled_projection_dim": 12, "pos_embed_max_size": SIZE},
    ),
    "flux": (
        "FluxTransformer2DModel",
        {"in_channels": 4 * 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
         "num_attention_heads": 2, "joint_attention_dim": 16, "pooled_projection_dim": 12,
         "guidance_embeds": True, "axes_dims_rope": (4, 4, 8)},
    ),
    "flux_img2img": (
        "FluxTransformer2DModel",
        {"in_channels": 16 * 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16,
         "num_attention_heads": 2, "joint_attention_dim": 16, "pooled_projection_dim": 12,
         "guidance_embeds": True, "axes_dims_rope": (4, 4, 8)},
    ),
    "pixart": (
        "PixArtTransformer2DModel",
        {"sample_size": SIZE, "num_layers": 1, "patch_size": 2, "attention_head_dim": 8,
         "num_attention_heads": 2, "caption_channels": 16, "in_channels": 4, "cross_attention_dim": 16,
         "out_channels": 8, "use_additional_conditions": False},
    ),
    "dit": (
        "DiTTransformer2DModel",
        {"sample_size": SIZE, "num_layers": 1, "patch_size": 2, "attention_head_dim": 8,
         "num_attention_heads": 2, "in_channels": 4, "out_channels": 8},
    ),
    "sana": (
        "SanaTransformer2DModel",
        {"in_channels": 4, "out_channels": 4, "num_layers": 1, "num_attention_heads": 2,
         "attention_head_dim": 8, "num_cross_attention_heads": 2, "cross_attention_head_dim": 8,
         "cross_attention_dim": 16, "caption_channels": 16, "sample_size": SIZE, "timestep_scale": 0.5},
    ),
    "aura": (
        "AuraFlowTransformer2DModel",
        {"sample_size": SIZE, "patch_size": 2, "in_channels": 4, "num_mmdit_layers": 1,
         "num_single_dit_layers": 1, "attention_head_dim": 8, "num_attention_heads": 2,
         "joint_attention_dim": 16, "caption_projection_dim": 16, "out_channels": 4,
         "pos_embed_max_size": SIZE**2},
    ),
    "wan": (
        "WanTransformer3DModel",
        {"patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4,
         "out_channels": 4, "text_dim": 16, "freq_dim": 16, "ffn_dim": 16, "num_layers": 1,
         "rope_max_seq_len": 16},
    ),
    "qwen": (
        "QwenImageTransformer2DModel",
        {"in_channels": 4 * 4, "out_channels": 4, "num_layers": 1, "attention_head_dim": 16,
         "num_attention_heads": 2, "joint_attention_dim": 16, "axes_dims_rope": (4, 4, 8)},
    ),
    "z_image": (
        "ZImageTransformer2DModel",
        {"in_channels": 4, "dim": 32, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2,
         "cap_feat_dim": 16, "axes_dims": [4, 4, 8], "axes_lens": [128, 32, 32]},
    ),
    "lumina2": (
        "Lumina2Transformer2DModel",
        {"sample_size": SIZE, "in_channels": 4, "hidden_size": 32, "num_layers": 1, "num_refiner_layers": 1,
         "num_attention_heads": 2, "num_kv_heads": 1, "multiple_of": 16, "axes_dim_rope": (4, 4, 8),
         "axes_lens": (64, 32, 32), "cap_feat_dim": 16},
    ),
    "prx": (
        "PRXTransformer2DModel",
        {"in_channels": 4, "patch_size": 2, "context_in_dim": 16, "hidden_size": 32, "num_heads": 2,
         "depth": 1, "axes_dim": [8, 8]},
    ),
}  # fmt: skip


def build(kind, scheduler, vae=False, **changes):
    """Return a pipeline of a kind with a scheduler."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # some of its modules use its own deprecated classes
        return _built(kind, scheduler, vae, changes)


def _built(kind, scheduler, vae, changes):
    name, settings = NETWORKS[kind]
    made = getattr(diffusers, PIPELINES[kind])
    part = "unet" if name.startswith("UNet") else "transformer"
    parts = {part: network(name, **{**settings, **changes}), "scheduler": scheduler}
    if kind in ("sd", "inpaint", "img2img"):
        parts.update(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    if kind == "sdxl":
        parts["add_watermarker"] = False
    needed = ["vae", "text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2"]
    known = made.__init__.__code__.co_varnames
    parts.update({key: None for key in (*needed, "tokenizer_3", "transformer_2") if key in known})
    if kind == "dit" or vae:
        parts["vae"] = network("AutoencoderKL", **VAE)
    pipe = made(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _prompts(count, guided, mask=None, pooled=False, own_length=5):
    given = {"prompt_embeds": draw(count, 5, 16, seed=1), "latents": draw(count, 4, SIZE, SIZE, seed=9)}
    if guided:
        given["negative_prompt_embeds"] = draw(1, own_length, 16, seed=2).expand(count, -1, -1)
    for name in [name for name in given if "prompt" in name]:
        if mask:
            shape = given[name].shape[:2]
            given[mask(name)] = torch.ones(shape, dtype=torch.long)
            given[mask(name)][:, -1] = 0
        if pooled:
            at = name.replace("prompt_embeds", "pooled_prompt_embeds")
            given[at] = draw(count, 12, seed=3 + len(name))
    return given


def _scale(guided, scale=3.5, off=1.0):
    return {"guidance_scale": scale if guided else off}


SQUARE = {"height": 8 * SIZE, "width": 8 * SIZE}
_mask_first = {"mask": lambda name: name.replace("embeds", "attention_mask")}
_mask_last = {"mask": lambda name: f"{name}_mask"}


def _packed(given):
    """Latents in patches of 2 x 2, as Flux and QwenImage keep them."""
    x = given["latents"]
    count = len(x)
    x = x.reshape(count, 4, SIZE // 2, 2, SIZE // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return {**given, "latents": x.reshape(count, SIZE**2 // 4, 16)}


#: ``ARGUMENTS[kind](count, guided)``: those of the pipeline's call.
ARGUMENTS = {
    "ddpm": lambda n, g: {"batch_size": n, "generator": torch.Generator().manual_seed(7)},
    "dit": lambda n, g: {
        "class_labels": [3, 500, 42][:n], "generator": torch.Generator().manual_seed(7), **_scale(g)
    },
    "sd": lambda n, g: {**_prompts(n, g), **_scale(g)},
    "sdxl": lambda n, g: {**_prompts(n, g, pooled=True), **_scale(g), **SQUARE},
    "sd3": lambda n, g: {**_prompts(n, g, pooled=True), **_scale(g)},
    "flux": lambda n, g: {
        **_packed(_prompts(n, g, pooled=True)), **SQUARE, "guidance_scale": 2.0,
        "true_cfg_scale": 3.5 if g else 1.0,
    },
    "pixart": lambda n, g: {
        **_prompts(n, g, **_mask_first), **_scale(g), "use_resolution_binning": False,
        "negative_prompt": None,
    },
    "sana": lambda n, g: {
        **_prompts(n, g, **_mask_first), **_scale(g), "use_resolution_binning": False,
        "negative_prompt": None, "height": 32 * SIZE, "width": 32 * SIZE,
    },
    "aura": lambda n, g: {**_prompts(n, g, **_mask_first), **_scale(g), **SQUARE},
    "wan": lambda n, g: {
        **_prompts(n, g), **_scale(g), **SQUARE, "num_frames": 9,
        "latents": draw(n, 4, 3, SIZE, SIZE, seed=9),
    },
    "qwen": lambda n, g: {
        **_packed(_prompts(n, g, **_mask_last, own_length=3)), **SQUARE, "true_cfg_scale": 3.5 if g else 1.0
    },
    "z_image": lambda n, g: {
        "prompt_embeds": list(draw(n, 5, 16, seed=1)), "latents": draw(n, 4, SIZE, SIZE, seed=9),
        **({"negative_prompt_embeds": list(draw(1, 3, 16, seed=2).expand(n, -1, -1))} if g else {}),
        **SQUARE, **_scale(g, 2.5, 0.0),
    },
    "lumina2": lambda n, g: {
        **_prompts(n, g, **_mask_first), **_scale(g), **SQUARE, "cfg_normalization": False
    },
    "prx": lambda n, g: {
        **_prompts(n, g, **_mask_first), **_scale(g), **SQUARE, "use_resolution_binning": False
    },
}  # fmt: skip


def sampled(pipe, steps, **arguments):
    """The last state of a pipeline, decoded or not."""
    states, inner = [], pipe.scheduler.step

    def step(*args, **kwargs):
        result = inner(*args, **kwargs)
        states.append(result[0] if isinstance(result, tuple) else result.prev_sample)
        return result

    pipe.scheduler.step = step
    try:
        pipe(**arguments, num_inference_steps=steps, output_type="latent")
    finally:
        del pipe.scheduler.step
    return states[-1]


def own_solver(scheduler, field):
    """Euler, or DDIM, on the scheduler's own grid."""
    if isinstance(field.schedule, fs.schedules.CondOT):
        return fs.classical.euler(grid=[1 - float(s) for s in scheduler.sigmas])
    grid = [(999 - float(k)) / 1000 for k in scheduler.timesteps]
    return fs.classical.ddim(grid=[*grid, 1.0], schedule=field.schedule)


_SD = {"steps_offset": 1, "clip_sample": False, "beta_schedule": "scaled_linear"}
FLOW = diffusers.FlowMatchEulerDiscreteScheduler
#: ``SCHEDULERS[kind]()``: one whose loop is one of our classical solvers.
SCHEDULERS = {
    "ddpm": lambda: diffusers.DDIMScheduler(clip_sample=False),
    "dit": lambda: diffusers.DDIMScheduler(clip_sample=False),
    "sd": lambda: diffusers.DDIMScheduler(**_SD),
    "sdxl": lambda: diffusers.EulerDiscreteScheduler(steps_offset=1, beta_schedule="scaled_linear"),
    "sd3": lambda: FLOW(shift=3.0),
    "flux": lambda: FLOW(use_dynamic_shifting=True),
    "pixart": lambda: diffusers.DDIMScheduler(clip_sample=False),
    "sana": lambda: FLOW(shift=3.0),
    "aura": lambda: FLOW(shift=1.73),
    "wan": lambda: FLOW(shift=3.0),
    "qwen": lambda: FLOW(use_dynamic_shifting=True),
    "z_image": lambda: FLOW(shift=3.0),
    "lumina2": lambda: FLOW(shift=6.0),
    "prx": lambda: FLOW(shift=3.0),
}
_ZERO_SNR = {
    "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
}  # fmt: skip
#: ``VARIANTS[name] = kind, scheduler``: further conventions, with schedulers that are none of our solvers.
VARIANTS = {
    "sd v": ("sd", lambda: diffusers.DDIMScheduler(**_SD, **_ZERO_SNR)),
    "sdxl edm": ("sdxl", diffusers.EDMEulerScheduler),
    "sd3 dynamic": ("sd3", lambda: FLOW(shift=3.0, use_dynamic_shifting=True)),
    "pixart multistep": ("pixart", lambda: diffusers.DPMSolverMultistepScheduler(beta_schedule="linear")),
    "wan unipc": (
        "wan",
        lambda: diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    ),
}
