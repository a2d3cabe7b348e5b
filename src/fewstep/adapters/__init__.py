"""Fields from what other frameworks' users have.

One module a framework, each with a function ``field`` that returns a :class:`fewstep.Field`. None of them
imports the framework: a network is known by how it is called, a scheduler by its settings. Keyword arguments
that an adapter does not name itself, such as ``guidance`` or ``data_moments``, go to the field. Conditions
are keyword arguments of the network, given where the field is sampled.

    ================  ====================================================================
    framework         its network
    ================  ====================================================================
    diffusers         a pipeline, or a U-Net or transformer with its scheduler
    edm               ``net(x, sigma, class_labels) -> denoised``
    k_diffusion       ``model(x, sigma, **extra_args) -> denoised``
    flow_matching     ``model(x=x, t=t, **extras) -> velocity``
    torchcfm          ``net(t, x) -> velocity``
    dpm_solver        ``model_fn(x, t_continuous) -> noise``, with a ``NoiseScheduleVP``
    ================  ====================================================================
"""

from . import diffusers, dpm_solver, edm, flow_matching, k_diffusion, torchcfm

__all__ = ["diffusers", "dpm_solver", "edm", "flow_matching", "k_diffusion", "torchcfm"]
