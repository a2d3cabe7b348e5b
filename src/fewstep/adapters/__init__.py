"""Adapters: fields from the networks of other frameworks.

There is one module per framework, with a function ``field`` that returns a :class:`fewstep.Field`. None of
them imports the framework: only the call signature of a network and the settings of a scheduler matter. Other
keyword arguments, such as ``guidance`` or ``data_moments``, are passed to the field. Conditions are keyword
arguments of the network, given when the field is sampled. ``diffusers.from_pipeline`` reads field and
conditions from a call of a pipeline.

    ================  ====================================================================
    framework         network
    ================  ====================================================================
    diffusers         a pipeline, or a U-Net or transformer with its scheduler
    edm               ``net(x, sigma, class_labels) -> denoised``
    k_diffusion       ``model(x, sigma, **extra_args) -> denoised``
    flow_matching     ``model(x=x, t=t, **extras) -> velocity``
    torchcfm          ``net(t, x) -> velocity``, or of ``cat([x, t[:, None]], 1)``
    dpm_solver        ``model_fn(x, t_continuous) -> noise``, with a ``NoiseScheduleVP``
    ================  ====================================================================

Some of them run our solvers in turn: ``diffusers.FewStepScheduler`` in its pipelines (it imports diffusers on
first use), ``k_diffusion.sampler``, ``edm.sampler`` and ``flow_matching.ODESolver`` where those of the
framework are taken, and ``comfyui.sampler`` for the node in ``integrations/comfyui``. Fields of ours go to
other samplers by :meth:`fewstep.Field.time_first` and :meth:`fewstep.Field.denoiser`.
"""

from . import comfyui, diffusers, dpm_solver, edm, flow_matching, k_diffusion, torchcfm

__all__ = ["comfyui", "diffusers", "dpm_solver", "edm", "flow_matching", "k_diffusion", "torchcfm"]
