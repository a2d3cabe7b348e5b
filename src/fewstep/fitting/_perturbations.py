"""How far to perturb each parameter, and on which sides: rounding noise against curvature."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..families import Family
from ..pairs import Pairs
from ._rollout import Rollout

__all__ = ["Perturbations", "measure"]

#: Spacing of the probes. Large enough that bfloat16 states leave their rounding cell, small enough that
#: the fourth derivative stays under the noise of float32.
SPACING = 0.02
#: Probes are made on this many pairs.
PROBED = 4
#: Steps stay within these; parameters are scaled so that a unit change is of order one.
SMALLEST, LARGEST = 1e-5, 0.2
#: Forward differences may be off by this share of a column before they become central.
TOLERATED = 0.03
#: The step where probing gives no finite answer.
FALLBACK = 1e-3
#: A derivative is told from noise when it explains this share of what noise alone would.
RESOLVED = 0.1


class Perturbations(NamedTuple):
    """Step sizes, float64 of shape ``(P,)``, and which parameters take central differences."""

    step: Tensor
    central: Tensor

    @classmethod
    def forward(cls, step: float, size: int) -> Perturbations:
        """Forward differences with one step for every parameter."""
        return cls(torch.full((size,), step, dtype=torch.float64), torch.zeros(size, dtype=torch.bool))

    @classmethod
    def balanced(cls, slope: Tensor, second: Tensor, third: Tensor, noise: Tensor) -> Perturbations:
        """The steps with the least error, of columns with these derivatives and rounding noise.

        With noise of standard deviation ``s`` a value, a difference quotient has the mean square error

            forward   ``(h f'' / 2)^2 + 2 s^2 / h^2``,   least at ``h^2 = 2 sqrt(2) s / f''``,
            central   ``(h^2 f''' / 6)^2 + s^2 / (2 h^2)``,   least at ``h^3 = 3 s / f'''``,

        each with the least step and the largest in place of one beyond. Central differences cost
        twice, and are taken where forward ones would be off by more than a few percent of the column.

        Args:
            slope: size of the first derivative of each column, ``(P,)``.
            second: of the second derivative.
            third: of the third derivative.
            noise: standard deviation of the endpoint's rounding.
        """
        tiny = torch.finfo(torch.float64).tiny
        h = (8**0.5 * noise / second.clamp(min=tiny)).sqrt().clamp(SMALLEST, LARGEST)
        k = (3 * noise / third.clamp(min=tiny)).pow(1 / 3).clamp(SMALLEST, LARGEST)
        forward = ((h * second / 2).square() + 2 * (noise / h).square()).sqrt()
        central = ((k.square() * third / 6).square() + (noise / k).square() / 2).sqrt()
        twice = (forward > TOLERATED * slope) & (central < forward)
        step = torch.where(twice, k, h)
        finite = (slope + second + third + noise).isfinite()
        return cls(torch.where(finite, step, FALLBACK), twice & finite)


def measure(rollout: Rollout, family: Family, theta: Tensor, pairs: Pairs) -> Perturbations:
    """Probe every parameter at two distances on both sides, on a few of the pairs.

    The fourth difference of five equidistant values is noise but for a term of the fourth power of their
    distance; its variance is 70 times that of one value (the difference table of Hamming, and of Moré and
    Wild 2011, *Estimating computational noise*). The second and third give the derivatives, less the noise
    in them. Sizes are root mean squares over a sample, and medians over samples, so that one noise that
    falls to another mode does not decide.

    Returns:
        The steps; their cost is four perturbed rollouts a parameter on at most four pairs.
    """
    h, P = SPACING, family.size
    units = torch.eye(P, dtype=torch.float64)
    tables = [family.table(theta + m * h * unit).unroll() for m in (-2, -1, 1, 2) for unit in units]
    part = pairs[:PROBED]
    _, moved = rollout.differences(family.table(theta).unroll(), tables, part)
    w, x, y, z = moved.double().unflatten(0, (4, P)).flatten(3)

    def size(difference: Tensor) -> Tensor:
        return difference.square().mean(2).median(1).values.cpu()

    noise = size(w - 4 * x - 4 * y + z) / 70

    def derivative(difference: Tensor, factor: float, scale: float) -> Tensor:
        variance = factor * noise
        return torch.maximum(size(difference) - variance, RESOLVED * variance).sqrt() / scale

    slope = derivative(z - w, 2, 4 * h)
    second = derivative(w + z, 6, 4 * h**2)
    third = derivative(z - 2 * y + 2 * x - w, 10, 2 * h**3)
    return Perturbations.balanced(slope, second, third, noise.sqrt())
