"""How far to perturb each parameter, and on which sides: rounding noise against curvature."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..pairs import Pairs
from ._residuals import Residuals
from ._rollout import Rollout

__all__ = ["Perturbations", "agreed", "measure", "probed"]

#: Spacings of the probes. The first is small enough that the fourth derivative stays under the noise of
#: float32; the second is for parameters whose curvature the first cannot tell from noise.
SPACINGS = (0.02, 0.16)
#: Probes are made on this many pairs.
PROBED = 4
#: Steps stay within these; parameters are scaled so that a unit change is of order one.
SMALLEST, LARGEST = 1e-4, 0.5
#: Forward differences may be off by this share of a column before they become central.
TOLERATED = 0.03
#: A step is no larger than brings the noise under this share of the column: beyond, curvature that the
#: probed pairs do not show would be all there is to find.
QUIET = 0.01
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

        but no larger than makes the second term harmless. Central differences cost twice, and are taken
        where forward ones would be off by more than a few percent of the column.

        Args:
            slope: size of the first derivative of each column, ``(P,)``.
            second: of the second derivative.
            third: of the third derivative.
            noise: standard deviation of the endpoint's rounding.
        """
        tiny = torch.finfo(torch.float64).tiny
        enough = _enough(noise, slope)
        h = (8**0.5 * noise / second.clamp(min=tiny)).sqrt().minimum(enough).clamp(SMALLEST, LARGEST)
        k = (3 * noise / third.clamp(min=tiny)).pow(1 / 3).minimum(enough / 2).clamp(SMALLEST, LARGEST)
        forward = ((h * second / 2).square() + 2 * (noise / h).square()).sqrt()
        central = ((k.square() * third / 6).square() + (noise / k).square() / 2).sqrt()
        twice = (forward > TOLERATED * slope) & (central < forward)
        step = torch.where(twice, k, h)
        finite = (slope + second + third + noise).isfinite()
        return cls(torch.where(finite, step, FALLBACK), twice & finite)


def measure(residuals: Residuals, theta: Tensor, pairs: Pairs) -> Perturbations:
    """The steps of the parameters of a family, probed on a few of the pairs.

    Returns:
        The steps. They cost four perturbed rollouts a parameter on at most four pairs, and four more where
        probing was repeated.
    """
    size = len(theta)

    def moved(h: float, free: Tensor) -> Tensor:
        units = torch.eye(size, dtype=torch.float64)[free]
        around = [theta + m * h * unit for m in (-2, -1, 1, 2) for unit in units]
        moves: Tensor = residuals.moves(theta, around)(pairs[:PROBED], None)[1].unflatten(0, (4, len(free)))
        return moves

    return probed(size, moved)


def probed(count: int, moved: Callable[[float, Tensor], Tensor]) -> Perturbations:
    """Probe a function of several variables at two distances on both sides.

    The fourth difference of five equidistant values is noise but for a term of the fourth power of their
    distance; its variance is 70 times that of one value (the difference table of Hamming, and of Moré and
    Wild 2011, *Estimating computational noise*). The others give the derivatives, less the noise in them.
    Variables that need a large step, but whose second or third difference is mostly noise, are probed
    again, farther out.

    Args:
        count: number of variables.
        moved: given a distance ``h`` and some of the variables, how far the function moves when each is
            changed by ``-2 h, -h, h, 2 h``: ``(4, len(free), B, ...)`` on ``B`` samples.
    """
    free = torch.arange(count)
    noise, *derivatives = torch.full((4, count), torch.nan, dtype=torch.float64)
    for h in SPACINGS:
        sizes = _variances(moved(h, free))
        noise[free] = sizes[0].fmin(noise[free])  # farther out it would hold more of the function
        shares = torch.tensor([2.0, 6.0, 10.0], dtype=torch.float64)[:, None] * noise[free]
        scales = (4 * h, 4 * h**2, 2 * h**3)
        for derivative, square, share, scale in zip(derivatives, sizes[1:], shares, scales, strict=True):
            derivative[free] = torch.maximum(square - share, RESOLVED * share).sqrt() / scale
        unclear = (sizes[2:] < 3 * shares[1:]).any(dim=0)
        free = free[unclear & (_enough(noise.sqrt(), derivatives[0])[free] > h)]
        if not len(free):
            break
    slope, second, third = derivatives
    return Perturbations.balanced(slope, second, third, noise.sqrt())


def agreed(rollout: Rollout, measured: Callable[[], Perturbations]) -> Perturbations:
    """What the first of the processes measures, on its pairs, for all of them."""

    def work() -> Tensor:
        if not rollout.team.main:
            return torch.zeros(0, 2, dtype=torch.float64)
        step, central = measured()
        return torch.stack([step, central.double()], dim=1)

    step, central = torch.cat(rollout.together(work)).T
    return Perturbations(step, central > 0)


def _enough(noise: Tensor, slope: Tensor) -> Tensor:
    """The step of a forward difference whose noise is the tolerated share of the column."""
    return 2**0.5 * noise / (QUIET * slope).clamp(min=torch.finfo(torch.float64).tiny)


def _variances(moved: Tensor) -> Tensor:
    """Noise, and mean squares of the first three differences; of moves ``(4, P, B, ...)``, ``(4, P)``.

    Means are over a sample, and then the median over samples, so that one noise that falls to another
    mode does not decide.
    """
    w, x, y, z = moved.double().flatten(3)
    differences = torch.stack([w - 4 * x - 4 * y + z, z - w, w + z, z - 2 * y + 2 * x - w])
    sizes = differences.square().mean(3).median(2).values.cpu()
    sizes[0] /= 70
    return sizes
