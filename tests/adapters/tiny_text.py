"""A pipeline of Stable Diffusion that takes prompts, with tiny random networks."""

from __future__ import annotations

import json
import string
from tempfile import TemporaryDirectory

from tiny_pipelines import SCHEDULERS, build, diffusers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

__all__ = ["pipeline"]

LENGTH, WIDTH = 8, 16  # of a prompt's embedding, in tokens and numbers


def pipeline():
    """Return the pipeline; its U-Net has one level, as its many small modules are what takes the time."""
    level = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    pipe = build("sd", SCHEDULERS["sd"](), vae=True, block_out_channels=(8,), **level)
    parts = {
        name: part for name, part in pipe.components.items() if name not in ("tokenizer", "text_encoder")
    }
    made = diffusers.StableDiffusionPipeline(**parts, **text_parts(), requires_safety_checker=False)
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
    settings = {"hidden_size": WIDTH, "intermediate_size": 16, "num_hidden_layers": 1}
    config = CLIPTextConfig(
        **settings,
        num_attention_heads=2,
        vocab_size=len(words),
        max_position_embeddings=LENGTH,
        projection_dim=WIDTH,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )
    return {"tokenizer": tokenizer, "text_encoder": CLIPTextModel(config).eval()}
