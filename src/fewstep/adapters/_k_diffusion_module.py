"""A sampler of k-diffusion as Python source that needs torch alone."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

import torch
from torch import Tensor

from .._fitted_for import own_schedule
from .._fitted_guidance import in_words
from .._version import __version__
from ..lifted import Lifted
from ..schedules import Schedule
from ..solver import Solver
from ._k_diffusion_sampler import sampler

__all__ = ["module"]

_SOURCE = '''\
"""A sampler for k-diffusion, {about}.

    x = torch.randn(shape, device=device) * SIGMAS[0]
    samples = {name}(model, x, extra_args=...)

``model(x, sigma, **extra_args)`` returns the denoised ``x``, data + sigma noise, for ``sigma`` of shape (B,).
Written by fewstep {version}; this file needs torch alone.
"""

{facts}

import torch

__all__ = ["SIGMAS", "{name}"]

# Noise levels: that of the noise handed in, one for each further call of the model, and that of the samples.
SIGMAS = {sigmas}
# Levels at which the model is called.
LEVELS = {levels}
# Row i: the state of call i, and last the samples, as coefficients of x and of what calls 0, 1, ... denoised.
ROWS = {rows}


@torch.no_grad()
def {name}(model, x, sigmas=None, extra_args=None, callback=None, disable=None):
    """Return samples from ``x = randn * SIGMAS[0]``; there is one level per call of the model.

    It begins at the first of SIGMAS only: images that are noised less need fewstep itself.
    """
    if sigmas is not None:
        given, own = torch.as_tensor(sigmas).float().cpu(), torch.tensor(SIGMAS)
        if given.shape != own.shape or not torch.allclose(given, own, rtol=1e-3, atol=1e-6):
            raise ValueError(f"sigmas must be SIGMAS, {{SIGMAS}}, not {{given.tolist()}}; leave them out.")
    wide = torch.promote_types(x.dtype, torch.float32)
    terms = [x.to(wide)]
    for i, level in enumerate(LEVELS):
        state = sum(c * term for c, term in zip(ROWS[i], terms)).to(x.dtype)
        sigma = x.new_full((len(x),), level)
        denoised = model(state, sigma, **(extra_args or {{}}))
        if callback is not None:
            callback({{"x": state, "i": i, "sigma": sigma[0], "sigma_hat": sigma[0], "denoised": denoised}})
        terms.append(denoised.to(wide))
    return sum(c * term for c, term in zip(ROWS[-1], terms)).to(x.dtype)
'''


def module(solver: Solver, schedule: Schedule | None = None) -> str:
    """Return Python source of a sampler of k-diffusion, to be used where fewstep is not installed.

    It has ``SIGMAS`` and a function with the signature of k-diffusion's samplers, which makes the samples of
    :func:`fewstep.adapters.k_diffusion.sampler`, from the first level on.

    Args:
        solver: the solver.
        schedule: as for the sampler.

    Raises:
        ValueError: as for the sampler; and for a lifted solver, whose corrections need fewstep.
    """
    if isinstance(solver, Lifted):
        raise ValueError(
            f"module: the corrections of {solver.name!r} are networks of fewstep, which a file that needs "
            "torch alone cannot hold; use k_diffusion.sampler(lifted), or export lifted.uncorrected."
        )
    f = sampler(solver, schedule)
    levels, states = [], []

    def record(x: Tensor, sigma: Tensor) -> Tensor:
        """Stand in for the model of call i: what it denoises is the unit vector ``i + 1``."""
        states.append(x[0].tolist())
        levels.append(float(sigma))
        return unit[len(states)].unsqueeze(0)

    # A sampler is linear in x and in what is denoised, so that unit vectors give its coefficients.
    unit = torch.eye(solver.nfe + 1, dtype=torch.float64)
    states.append(f(record, unit[:1])[0].tolist())
    rows = [_tuple(state[: i + 1]) + "," for i, state in enumerate(states)]
    about = re.sub(r'["\\]', "'", _line(solver.name))  # nothing that ends a string of Python
    return _SOURCE.format(
        about=f"{about}, with {solver.nfe} network calls",
        name="sample_" + re.sub(r"\W+", "_", solver.name, flags=re.ASCII).strip("_"),
        version=__version__,
        facts=_facts(solver),
        sigmas=_tuple(f.sigmas.double().tolist()),
        levels=_tuple(levels),
        rows="\n".join(["(", *(line for row in rows for line in _wrapped(row, "    ", "        ")), ")"]),
    )


def _facts(solver: Solver) -> str:
    """Return comments: the field that it was fitted for, and what to cite."""
    facts = solver.fitted_for or {}
    shown = [*([f"model {facts['model']}"] if "model" in facts else []), in_words(facts)]
    lines = [f"schedule: {own_schedule(solver)!r}"] if own_schedule(solver) else []
    lines += [f"fitted for: {', '.join(filter(None, shown))}"] if any(shown) else []
    lines += [f"cite: {work}" for work in solver.citation]
    return "\n".join(piece for line in lines for piece in _wrapped(_line(line), "# ", "#   "))


def _tuple(numbers: Sequence[float]) -> str:
    """Return a tuple as Python writes it, in lines."""
    return "\n".join(_wrapped(repr(tuple(numbers)), "", "    "))


def _wrapped(text: str, first: str, more: str) -> list[str]:
    return textwrap.wrap(
        text,
        110,
        initial_indent=first,
        subsequent_indent=more,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _line(text: str) -> str:
    """Return text on one line, so that a comment does not end in it."""
    return "".join(char for char in " ".join(text.split()) if char.isprintable())
