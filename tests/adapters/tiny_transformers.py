"""Further tiny random pipelines of diffusers, around transformers."""

from __future__ import annotations

import diffusers
import torch
from tiny_pipelines import B, Case, embeddings, frozen, randn

import fewstep as fs


def pixart():
    network = frozen(
        diffusers.PixArtTransformer2DModel, sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8,
        num_attention_heads=2, caption_channels=6, in_channels=4, cross_attention_dim=16, out_channels=8,
        attention_bias=True, activation_fn="gelu-approximate", num_embeds_ada_norm=1000,
        norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
        use_additional_conditions=False,
    )  # fmt: skip
    pipe = diffusers.PixArtAlphaPipeline(
        tokenizer=None, text_encoder=None, vae=None, transformer=network,
        scheduler=diffusers.DPMSolverMultistepScheduler(beta_schedule="linear"),
    )  # fmt: skip
    text, mask = embeddings(3, 6), torch.ones(B, 3)
    noise = randn(B, 4, 8, 8, seed=0)
    shared = {
        "encoder_attention_mask": mask, "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }  # fmt: skip
    options = {
        "guidance": 3.0,
        "unconditional": {"encoder_hidden_states": text["negative_prompt_embeds"]},
    }
    call = {
        **text, "prompt_attention_mask": mask, "negative_prompt_attention_mask": mask, "guidance_scale": 3.0,
        "latents": noise, "use_resolution_binning": False, "negative_prompt": None, "height": 64, "width": 64,
    }  # fmt: skip
    return Case(pipe, call, options, {"encoder_hidden_states": text["prompt_embeds"], **shared}, noise)


def sana():
    network = frozen(
        diffusers.SanaTransformer2DModel, patch_size=1, in_channels=4, out_channels=4, num_layers=1,
        num_attention_heads=2, attention_head_dim=4, num_cross_attention_heads=2,
        cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=6, sample_size=8,
    )  # fmt: skip
    pipe = diffusers.SanaPipeline(
        tokenizer=None, text_encoder=None, vae=None, transformer=network,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip
    text, mask = embeddings(3, 6), torch.ones(B, 3)
    noise = randn(B, 4, 8, 8, seed=0)
    options = {
        "guidance": 3.0,
        "unconditional": {"encoder_hidden_states": text["negative_prompt_embeds"]},
    }
    call = {
        **text, "prompt_attention_mask": mask, "negative_prompt_attention_mask": mask, "guidance_scale": 3.0,
        "latents": noise, "use_resolution_binning": False, "negative_prompt": None, "height": 256,
        "width": 256,
    }  # fmt: skip
    conditions = {"encoder_hidden_states": text["prompt_embeds"], "encoder_attention_mask": mask}
    return Case(pipe, call, options, conditions, noise)


def aura_flow():
    network = frozen(
        diffusers.AuraFlowTransformer2DModel, sample_size=8, patch_size=2, in_channels=4, out_channels=4,
        num_mmdit_layers=1, num_single_dit_layers=1, caption_projection_dim=8, attention_head_dim=4,
        num_attention_heads=2, joint_attention_dim=6, pos_embed_max_size=64,
    )  # fmt: skip
    pipe = diffusers.AuraFlowPipeline(
        tokenizer=None, text_encoder=None, vae=None, transformer=network,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.73),
    )  # fmt: skip
    text, mask = embeddings(3, 6), torch.ones(B, 3)
    noise = randn(B, 4, 8, 8, seed=0)
    options = {
        "guidance": 3.0,
        "unconditional": {"encoder_hidden_states": text["negative_prompt_embeds"]},
    }
    call = {
        **text, "prompt_attention_mask": mask, "negative_prompt_attention_mask": mask, "guidance_scale": 3.0,
        "latents": noise, "height": 64, "width": 64,
    }  # fmt: skip
    return Case(pipe, call, options, {"encoder_hidden_states": text["prompt_embeds"]}, noise)


def wan():
    network = frozen(
        diffusers.WanTransformer3DModel, patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12,
        in_channels=4, out_channels=4, text_dim=6, freq_dim=16, ffn_dim=16, num_layers=1,
        rope_max_seq_len=32,
    )  # fmt: skip
    pipe = diffusers.WanPipeline(
        tokenizer=None, text_encoder=None, vae=None, transformer=network,
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )  # fmt: skip
    text = embeddings(3, 6)
    noise = randn(B, 4, 2, 8, 8, seed=0)
    options = {
        "guidance": 3.0,
        "unconditional": {"encoder_hidden_states": text["negative_prompt_embeds"]},
    }
    call = {**text, "guidance_scale": 3.0, "latents": noise, "height": 64, "width": 64, "num_frames": 5}
    return Case(pipe, call, options, {"encoder_hidden_states": text["prompt_embeds"]}, noise)


def qwen_image():
    """Without guidance, which is not linear in this pipeline."""
    network = frozen(
        diffusers.QwenImageTransformer2DModel, patch_size=2, in_channels=16, out_channels=4, num_layers=1,
        attention_head_dim=16, num_attention_heads=2, joint_attention_dim=6, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    pipe = diffusers.QwenImagePipeline(
        tokenizer=None, text_encoder=None, vae=None, transformer=network,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )  # fmt: skip
    prompt, mask = randn(B, 3, 6, seed=1), torch.ones(B, 3, dtype=torch.long)
    noise = randn(B, 16, 16, seed=0)
    call = {
        "prompt_embeds": prompt, "prompt_embeds_mask": mask, "latents": noise, "true_cfg_scale": 1.0,
        "height": 64, "width": 64,
    }  # fmt: skip
    conditions = {
        "encoder_hidden_states": prompt, "encoder_hidden_states_mask": mask, "img_shapes": [[(1, 4, 4)]] * B,
    }  # fmt: skip
    return Case(pipe, call, {}, conditions, noise)


class ZImage(Case):
    """Its network takes lists, our time, and the pipeline negates its output and adds one to the scale."""

    def field(self):
        network, text = self.pipe.transformer, [list(self.call["prompt_embeds"])]
        text += [list(self.call["negative_prompt_embeds"])]

        def velocity(x, t):
            lists = list(torch.cat([x, x]).unsqueeze(2).unbind(0))
            outputs = network(lists, t.repeat(2), text[0] + text[1], return_dict=False)[0]
            towards, away = torch.stack(outputs).squeeze(2).chunk(2)
            return towards + 2.0 * (towards - away)

        return fs.Field(velocity, shape=(4, 8, 8))


def z_image():
    network = frozen(
        diffusers.ZImageTransformer2DModel, in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2,
        n_kv_heads=2, cap_feat_dim=6, axes_dims=[4, 6, 6], axes_lens=[64, 32, 32],
    )  # fmt: skip
    pipe = diffusers.ZImagePipeline(
        tokenizer=None, text_encoder=None, vae=None, transformer=network,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip
    text = {key: list(value) for key, value in embeddings(3, 6).items()}
    noise = randn(B, 4, 8, 8, seed=0)
    call = {**text, "guidance_scale": 2.0, "latents": noise, "height": 64, "width": 64}
    return ZImage(pipe, call, {}, {}, noise)
