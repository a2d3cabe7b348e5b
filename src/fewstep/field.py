"""The right-hand side of the sampling ODE: a network, its prediction and its schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._denoiser import Denoiser
from ._field import FieldBase
from ._time_first import TimeFirst
from ._transforms import Derived, Rescheduling, Reversing
from .schedules import Schedule

__all__ = ["Field", "check_field", "is_derived"]


class Field(FieldBase):
    """The velocity ``u(x, t) = A(t) x + B(t) model(x, t)`` whose flow turns noise into data.

    ``A`` and ``B`` follow from the schedule and from the network's kind of prediction, and are finite at both
    ends of time. Guidance is part of the field, applied at every call:

        ``m = m_away + guidance (m_model - m_away)``        for ``t`` within ``guidance_interval``,

    and ``m_model`` alone elsewhere. ``m_model`` is the network's prediction with the caller's conditions;
    ``m_away`` is that of the network, or of ``guide``, with the conditions in ``unconditional`` replacing the
    caller's. This is classifier-free guidance (Ho and Salimans 2022) with ``unconditional={"label": null}``;
    a negative prompt if ``unconditional`` has one; limited-interval guidance as in Kynkäänniemi et al.
    (2024); and autoguidance (Karras et al. 2024) if ``guide`` is a weaker model. Scale 1 is no guidance.

    The network may reuse its output buffer, write into its input, and be of half precision. It gets copies of
    state and time, the state in the type of its first floating-point parameter; predictions and velocities
    are float32 at least. Half precision is too coarse for time, which is therefore passed in float32, or in
    the network's own type if it refuses tensors of two types.

    Args:
        model: any callable ``model(x, time, **conditions) -> Tensor`` like ``x``.
        schedule: the noise schedule the model was trained with, ``CondOT()`` by default.
        prediction: ``"velocity"``, ``"noise"`` (epsilon), ``"data"`` (x1) or ``"v"``.
        shape: shape of one sample without the batch dimension, in which noise is drawn; noise of another
            shape makes samples of that shape.
        clock: the time argument passed to the network: a pair ``(at t = 0, at t = 1)``, such as ``(0, 1)``,
            or ``(1000, 0)`` for a network with time 1000 in pure noise; ``"sigma"``, the noise level
            ``sigma / alpha``; ``"timestep"``, that of a :class:`~fewstep.schedules.DDPM` or
            :class:`~fewstep.schedules.Discrete` schedule, and the default there; ``"integer"``, the nearest
            of these as int64, for networks that look it up in a table; or a function of ``t``, whose result
            is passed as int64 if it holds integers.
        time_shape: ``"batch"`` passes the time to the network as a tensor of shape ``(B,)``, ``"scalar"`` as
            one of shape ``()``.
        guidance: guidance scale; ``None`` or 1 calls the network once.
        unconditional: keyword arguments that replace the caller's in ``m_away``. A tensor, array, list or
            tuple with one row is expanded to the batch if the one it replaces has one row per sample; with as
            many rows as samples it is split into batches with them.
        guide: the model of ``m_away``, ``model`` itself by default; called in the same way.
        guidance_interval: first and last time of guidance, within [0, 1]; the noise level ``s`` is at time
            ``schedule.inverse_log_snr(-log(s))``.
        guidance_rescale: a number ``r`` in [0, 1] makes guided predictions smaller: the guided ``m`` of each
            sample is multiplied by ``1 + r (std(m_model) / std(m) - 1)``, with standard deviations over its
            entries (Lin et al. 2024, section 3.4); ``"norm"`` by the ratio of the norms of ``m_model`` and
            ``m`` over the last dimension, as the pipelines of QwenImage and Lumina2 do: that is the channels
            of latents that are tokens, ``(B, tokens, channels)``, as in QwenImage, but the width of those
            that are pictures, as in Lumina2. Samples must have two entries at least.
        joined_guidance: make both predictions of guidance in one call of a doubled batch, which is mostly
            faster, instead of two calls. By default this is done with bound conditions, of which it is known
            which have one row per sample; fits and comparisons bind them, and :meth:`bind` does.
        data_moments: mean and standard deviation of the data, if known: numbers, or tensors that broadcast to
            a sample. If the noise end of the schedule contains signal (``alpha(0) > 0``), sampling starts
            from the Gaussian with the matching moments.
        name: name of the model in provenance records and caches; needed for caching when
            ``model`` is not a ``torch.nn.Module``.

    Shape:
        ``field(x, t)``: ``x`` is ``(B, ...)`` of any dimension, ``t`` a number, or a tensor of shape
        ``()`` or ``(B,)``, in [0, 1]; the velocity is like ``x``.

    Raises:
        ValueError: on an unknown prediction, clock or time_shape, or guidance with nothing to guide away
            from.
    """

    def reversed(self) -> Field:
        """Return the field from data to noise: ``u(x, t) = -u_self(x, 1 - t)``.

        All solvers can sample it and be fitted to it; those bound to a schedule must be built for that of the
        result. Its samples are states at ``t = 0`` of this field, whose :meth:`initial_noise` converts them
        to standard normal noise.
        """
        return ReversedField(self)

    def reschedule(self, schedule: Schedule) -> Field:
        """Return the field of the same flow under another schedule (Shaul et al., ICLR 2024, Theorem 2.3).

        Its path ``xbar(s) = c_s x(t_s)`` has the signal-to-noise ratio of ``x`` and the scale of
        ``schedule``, so that the same noise leads to the same data. If ``schedule`` begins with more noise
        than this field's, the data are taken as Gaussian there; if it begins with less, the field should
        have ``data_moments``, which then decide its initial state.
        """
        return self if schedule == self.schedule else RescheduledField(self, schedule)

    def time_first(
        self, conditions: Mapping[str, Any] | None = None, per_sample: Mapping[str, Any] | None = None
    ) -> TimeFirst:
        """Return the velocity as a module ``f(t, y)``, for solvers of torchdiffeq, torchdyn and torchode.

        ``odeint(field.time_first(), field.initial_state(noise), torch.tensor([0.0, 1.0]))`` integrates it,
        and ``odeint_adjoint`` finds the network's parameters. ``f(t, y, args)`` is taken, too, with empty
        ``args``.

        Args:
            conditions: keyword arguments of the network that all samples share.
            per_sample: those with one row per sample, or one row for all; see :meth:`bind`.
        """
        return TimeFirst(self, conditions, per_sample)

    def denoiser(self, labels: str = "class_labels") -> Denoiser:
        """Return the denoiser ``D(x, sigma, class_labels=None, **conditions)`` of EDM and k-diffusion.

        It is the expected data at states ``data + sigma noise``, whatever the field's schedule and
        prediction, with its guidance; a module with the attributes that EDM's loops read.

        Args:
            labels: the network's name for ``class_labels``, which are left out if they are ``None``.
        """
        return Denoiser(self, labels)


class ReversedField(Reversing, Field):
    """The field from data to noise of :meth:`Field.reversed`."""


class RescheduledField(Rescheduling, Field):
    """The field under another schedule of :meth:`Field.reschedule`."""


def is_derived(field: Field) -> bool:
    """True for a field made of another by a change of coordinates."""
    return isinstance(field, Derived)


def check_field(field: object, function: str) -> Field:
    """Return a field; raise a ``ValueError`` for a network that is not wrapped in a field."""
    if not isinstance(field, Field):
        raise ValueError(
            f"{function}: field is a {type(field).__name__}, but must be a fewstep.Field; wrap the network, "
            "as in Field(network, shape=(3, 32, 32)), with its schedule and prediction for other models."
        )
    return field
