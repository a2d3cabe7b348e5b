"""Stand-ins of the parts of ComfyUI that the nodes meet, after its source, in our own words.

``model_sampling`` (states, timesteps), the MODEL and its guider, ``comfy.samplers.KSAMPLER`` with the wrapper
for masks, ``folder_paths``, and ``comfy_api.latest``.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import torch


def broadcast(sigma, x):
    return sigma.reshape(()) if sigma.numel() == 1 else sigma.reshape(-1, *[1] * (x.ndim - 1))


class EPS:
    """The network gets ``x / sqrt(sigma^2 + sigma_data^2)`` and predicts the noise."""

    sigma_data = 1.0

    def calculate_input(self, sigma, noise):
        return noise / (broadcast(sigma, noise) ** 2 + self.sigma_data**2) ** 0.5

    def calculate_denoised(self, sigma, model_output, model_input):
        return model_input - model_output * broadcast(sigma, model_output)

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        sigma = broadcast(sigma, noise)
        return noise * ((1 + sigma**2).sqrt() if max_denoise else sigma) + latent_image

    def inverse_noise_scaling(self, sigma, latent):
        return latent


class V(EPS):
    sign = -1

    def calculate_denoised(self, sigma, model_output, model_input):
        sigma, data = broadcast(sigma, model_output), self.sigma_data
        total = sigma**2 + data**2
        return model_input * data**2 / total + self.sign * model_output * sigma * data / total**0.5


class EDM(V):
    sign = 1


class CONST:
    """Flow matching: the network gets ``x`` and predicts noise minus data."""

    noise_scale = 1.0

    def calculate_input(self, sigma, noise):
        return noise

    def calculate_denoised(self, sigma, model_output, model_input):
        return model_input - model_output * broadcast(sigma, model_output)

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        sigma = broadcast(sigma, noise)
        return sigma * (self.noise_scale * noise) + (1 - sigma) * latent_image

    def inverse_noise_scaling(self, sigma, latent):
        return latent / (1 - broadcast(sigma, latent))


class Levels:
    sigmas: torch.Tensor

    @property
    def sigma_min(self):
        return self.sigmas[0]

    @property
    def sigma_max(self):
        return self.sigmas[-1]


class DiscreteLevels(Levels):
    """Timesteps, the nearest of which in ``log sigma`` the network gets."""

    def __init__(self, start=0.00085, end=0.012, steps=1000, zero_terminal_snr=False):
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
        squares = (1 - betas).cumprod(0)
        if zero_terminal_snr:
            root = squares.sqrt()
            squares = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
            squares[-1] = 4.8973451890853435e-08
        self.num_timesteps = steps
        self.sigmas = ((1 - squares) / squares).sqrt().float()

    def timestep(self, sigma):
        return (sigma.log() - self.sigmas.log()[:, None]).abs().argmin(0).reshape(sigma.shape)


class ContinuousLevels(Levels):
    def __init__(self, low=0.002, high=120.0, data=1.0):
        self.sigma_data = data
        self.sigmas = torch.linspace(math.log(low), math.log(high), 1000).exp()

    def timestep(self, sigma):
        return 0.25 * sigma.log()


class FlowLevels(Levels):
    def __init__(self, shift=1.0, multiplier=1000):
        self.multiplier = multiplier
        t = torch.arange(1, 1001) / 1000
        self.sigmas = shift * t / (1 + (shift - 1) * t)

    def timestep(self, sigma):
        return sigma * self.multiplier


def model_sampling(states, levels, **options):
    """Return an object of both, as ComfyUI makes them for a model."""
    return type("ModelSampling", (levels, states), {})(**options)


class BaseModel:
    def __init__(self, network, sampling):
        self.network, self.model_sampling = network, sampling

    def apply_model(self, x, sigma, **conditions):
        scaled = self.model_sampling.calculate_input(sigma, x)
        output = self.network(scaled, self.model_sampling.timestep(sigma).float(), **conditions)
        return self.model_sampling.calculate_denoised(sigma, output.float(), x)

    def scale_latent_inpaint(self, sigma, noise, latent_image, **others):
        shape = [len(sigma)] + [1] * (noise.ndim - 1)
        return self.model_sampling.noise_scaling(sigma.reshape(shape), noise, latent_image)


class Model:
    """A MODEL."""

    def __init__(self, network, sampling):
        self.model = BaseModel(network, sampling)

    def get_model_object(self, name):
        return getattr(self.model, name)


class Guider:
    """``CFGGuider``: calls the model with conditions, and without, and mixes what is denoised."""

    def __init__(self, model, cfg=1.0, positive=None, negative=None):
        self.inner_model, self.cfg = model.model, cfg
        self.positive, self.negative = positive or {}, negative or {}

    def __call__(self, x, sigma, model_options=None, seed=None):
        found = self.inner_model.apply_model(x, sigma, **self.positive)
        if self.cfg == 1:
            return found
        away = self.inner_model.apply_model(x, sigma, **self.negative)
        return away + (found - away) * self.cfg

    def sample(self, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None):
        if len(sigmas) == 0:
            return latent_image
        extra = {"model_options": {}, "seed": 3}
        return sampler.sample(self, sigmas, extra, callback, noise, latent_image, denoise_mask, True)


class MaskedDenoiser:
    """``KSamplerX0Inpaint``."""

    def __init__(self, model, sigmas):
        self.inner_model, self.sigmas = model, sigmas

    def __call__(self, x, sigma, denoise_mask, model_options=None, seed=None):
        if denoise_mask is not None and "denoise_mask_function" in (model_options or {}):
            facts = {"model": self.inner_model, "sigmas": self.sigmas}
            denoise_mask = model_options["denoise_mask_function"](sigma, denoise_mask, extra_options=facts)
        if denoise_mask is not None:
            kept = self.inner_model.inner_model.scale_latent_inpaint(
                x=x, sigma=sigma, noise=self.noise, latent_image=self.latent_image, denoise_mask=denoise_mask
            )
            x = x * denoise_mask + kept * (1 - denoise_mask)
        out = self.inner_model(x, sigma, model_options=model_options, seed=seed)
        return out if denoise_mask is None else out * denoise_mask + self.latent_image * (1 - denoise_mask)


class KSAMPLER:
    def __init__(self, sampler_function, extra_options=None, inpaint_options=None):
        self.sampler_function, self.extra_options = sampler_function, extra_options or {}

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar
    ):
        extra_args["denoise_mask"] = denoise_mask
        model = MaskedDenoiser(model_wrap, sigmas)
        model.latent_image, model.noise = latent_image, noise
        sampling = model_wrap.inner_model.model_sampling
        top, first, total = float(sampling.sigma_max), float(sigmas[0]), len(sigmas) - 1
        most = first > top or math.isclose(top, first, rel_tol=1e-5)
        x = sampling.noise_scaling(sigmas[0], noise, latent_image, most)

        def heard(facts):
            if callback is not None:
                callback(facts["i"], facts["denoised"], facts["x"], total)

        x = self.sampler_function(
            model,
            x,
            sigmas,
            extra_args=extra_args,
            callback=heard,
            disable=disable_pbar,
            **self.extra_options,
        )
        return sampling.inverse_noise_scaling(sigmas[-1], x)


def euler(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """A sampler of k-diffusion, to compare with."""
    for level, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        denoised = model(x, level * x.new_ones(len(x)), **(extra_args or {}))
        x = x + (x - denoised) / level * (following - level)
    return x


class FolderPaths(ModuleType):
    def __init__(self, models_dir):
        super().__init__("folder_paths")
        self.models_dir, self.known = str(models_dir), {}

    def add_model_folder_path(self, folder_name, full_folder_path, is_default=False):
        paths = self.known.setdefault(folder_name, ([], set()))[0]
        if full_folder_path not in paths:
            paths.insert(0 if is_default else len(paths), full_folder_path)

    def get_folder_paths(self, folder_name):
        return self.known[folder_name][0][:]

    def get_filename_list(self, folder_name):
        found = {
            os.path.relpath(os.path.join(where, name), path)
            for path in self.known[folder_name][0]
            for where, _, names in os.walk(path)
            for name in names
        }
        return sorted(found)

    def get_full_path(self, folder_name, filename):
        for path in self.known[folder_name][0]:
            full = os.path.join(path, os.path.relpath(os.path.join("/", filename), "/"))
            if os.path.isfile(full):
                return full
        return None


def kind(io_type, *own):
    """A type of input and output, whose inputs take the options of all and their own, and no others."""
    shared = ("display_name", "optional", "tooltip", "lazy", "advanced")

    class Input:
        def __init__(self, id, **options):
            assert not set(options) - {*shared, *own}, options
            self.id, self.io_type, self.options = id, io_type, options

    class Output:
        def __init__(self, id=None, display_name=None, tooltip=None, is_output_list=False):
            self.id, self.io_type, self.name = id, io_type, display_name or io_type

    return SimpleNamespace(Input=Input, Output=Output, io_type=io_type)


@dataclass
class Schema:
    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    description: str = ""


class NodeOutput:
    def __init__(self, *args, ui=None):
        self.result = args


def installed(monkeypatch, models_dir):
    """Put the modules in place for this test."""
    io = ModuleType("comfy_api.latest.io")
    io.ComfyNode, io.Schema, io.NodeOutput = type("ComfyNode", (), {}), Schema, NodeOutput
    numbers = ("default", "min", "max", "step", "display_mode")
    io.Model, io.Sampler, io.Sigmas = kind("MODEL"), kind("SAMPLER"), kind("SIGMAS")
    io.Combo = kind("COMBO", "default", "options")
    io.Int, io.Float = kind("INT", *numbers), kind("FLOAT", *numbers, "round")
    latest = ModuleType("comfy_api.latest")
    latest.io, latest.ComfyExtension = io, type("ComfyExtension", (), {})
    samplers = ModuleType("comfy.samplers")
    samplers.KSAMPLER = KSAMPLER
    folders = FolderPaths(models_dir)
    parents = {"comfy": ModuleType("comfy"), "comfy_api": ModuleType("comfy_api")}
    modules = {"comfy.samplers": samplers, "comfy_api.latest": latest, "folder_paths": folders, **parents}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return folders
