"""A pipeline of Stable Diffusion that takes prompts, with tiny random networks."""

from __future__ import annotations

import json
import string
from tempfile import TemporaryDirectory

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from tiny_pipelines import SCHEDULERS, SIZE, build, diffusers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

__all__ = ["pipeline"]

LENGTH, WIDTH = 8, 16  # of a prompt's embedding, in tokens and numbers


class UNet2DConditionModel(ModelMixin, ConfigMixin):
    """One convolution with the name and signature of diffusers', whose calls take tens of milliseconds."""

    config_name = "config.json"

    @register_to_config
    def __init__(self, sample_size=SIZE, in_channels=4, time_cond_proj_dim=None):
        super().__init__()
        self.mix, self.text = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(WIDTH, 4)

    def forward(self, sample, timestep, encoder_hidden_states, return_dict=True, **unused):
        text = self.text(encoder_hidden_states).mean(1)[..., None, None]
        time = torch.as_tensor(timestep).reshape(-1, 1, 1, 1) / 1000
        noise = sample + (self.mix(sample) + text).tanh() * time
        return UNet2DConditionOutput(noise) if return_dict else (noise,)


def pipeline():
    """Return the pipeline."""
    pipe = build("sd", SCHEDULERS["sd"](), vae=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = {
            **pipe.components,
            **text_parts(),
            "unet": UNet2DConditionModel().eval().requires_grad_(False),
        }
    made = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def text_parts():
    """Return a tokenizer of single letters and a text encoder for it."""
    letters = string.ascii_lowercase
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    with TemporaryDirectory() as folder:
        with open(f"{folder}/vocab.json", "w") as file:
            json.dump({word: number for number, word in enumerate(words)}, file)
        with open(f"{folder}/merges.txt", "w") as file:
            file.write("#version: 0.2\n")
        tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=LENGTH)
    config = CLIPTextConfig(
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=len(words),
        max_position_embeddings=LENGTH,
        projection_dim=WIDTH,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )
    return {"tokenizer": tokenizer, "text_encoder": CLIPTextModel(config).eval()}
