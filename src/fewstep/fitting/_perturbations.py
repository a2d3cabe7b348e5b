"""Step sizes of difference quotients, forward or central, that balance rounding and truncation errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..pairs import Pairs
from ._residuals import Residuals
from ._rollout import Rollout

__all__ = ["Perturbations", "agreed", "measure", "probed"]

#: Spacings of the probes. The first is small enough that the fourth derivative stays below the noise of
#: float32; the second is for parameters whose curvature is below the noise at the first.
SPACINGS = (0.02, 0.16)
#: Number of pairs that are probed.
PROBED = 4
#: Bounds of the steps; parameters are scaled so that a unit change is of order one.
SMALLEST, LARGEST = 1e-4, 0.5
#: Error of forward differences, relative to the column, above which central ones are used.
TOLERATED = 0.03
#: Noise relative to the column at which a step is large enough: a larger one would only add curvature that
#: the probed pairs do not show.
QUIET = 0.01
#: The step where probing gives no finite result.
FALLBACK = 1e-3
#: Floor of a squared derivative, relative to its variance from noise alone.
RESOLVED = 0.1


class Perturbations(NamedTuple):
    """Step sizes, float64 of shape ``(P,)``, and which parameters take central differences."""

    step: Tensor
    central: Tensor

    @classmethod
    def forward(cls, step: float, size: int) -> Perturbations:
        """Return forward differences with one step for every parameter."""
        return cls(torch.full((size,), step, dtype=torch.float64), torch.zeros(size, dtype=torch.bool))

    @classmethod
    def balanced(cls, slope: Tensor, second: Tensor, third: Tensor, noise: Tensor) -> Perturbations:
        """Return the steps of least error for columns with these derivatives and this rounding noise.

        With noise of standard deviation ``s`` per value, a difference quotient has the mean square error

            forward   ``(h f'' / 2)^2 + 2 s^2 / h^2``,   least at ``h^2 = 2 sqrt(2) s / f''``,
            central   ``(h^2 f''' / 6)^2 + s^2 / (2 h^2)``,   least at ``h^3 = 3 s / f'''``.

        Steps are no larger than needed to make the second term negligible. Central differences cost twice as
        much, and are used where the error of forward ones exceeds a few percent of the column. All sizes are
        of shape ``(P,)``.
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
    """Measure the steps of a family's parameters on a few of the pairs.

    It costs four perturbed rollouts per parameter on at most four pairs, and four more where probing is
    repeated.
    """
    size = len(theta)

    def moved(h: float, free: Tensor) -> Tensor:
        units = torch.eye(size, dtype=torch.float64)[free]
        around = [theta + m * h * unit for m in (-2, -1, 1, 2) for unit in units]
        moves: Tensor = residuals.moves(theta, around)(pairs[:PROBED], None)[1].unflatten(0, (4, len(free)))
        return moves

    return probed(size, moved)


def probed(count: int, moved: Callable[[float, Tensor], Tensor]) -> Perturbations:
    """Measure the best step for each variable of a function from values at two distances on both sides.

    The fourth difference of five equidistant values is noise, up to a term of the fourth power of their
    distance; its variance is 70 times that of one value (the difference table of Hamming, and of Moré and
    Wild 2011, *Estimating computational noise*). The other differences give the derivatives, after their
    noise is subtracted. Variables that need a large step, but whose second or third difference is mostly
    noise, are probed again at a larger distance.

    Given a distance ``h`` and indices of variables, ``moved`` returns the changes of the function when each
    variable is changed by ``-2 h, -h, h, 2 h``: ``(4, len(free), B, ...)`` on ``B`` samples.
    """
    free = torch.arange(count)
    noise, *derivatives = torch.full((4, count), torch.nan, dtype=torch.float64)
    for h in SPACINGS:
        sizes = _variances(moved(h, free))
        noise[free] = sizes[0].fmin(noise[free])  # at a larger distance it contains more of the function
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
    """Return the steps measured by the first process, on its pairs, in all processes."""

    def work() -> Tensor:
        if not rollout.team.main:
            return torch.zeros(0, 2, dtype=torch.float64)
        step, central = measured()
        return torch.stack([step, central.double()], dim=1)

    step, central = torch.cat(rollout.together(work)).T
    return Perturbations(step, central > 0)


def _enough(noise: Tensor, slope: Tensor) -> Tensor:
    """Return the step of a forward difference at which the noise is ``QUIET`` times the column."""
    return 2**0.5 * noise / (QUIET * slope).clamp(min=torch.finfo(torch.float64).tiny)


def _variances(moved: Tensor) -> Tensor:
    """Return noise variance and mean squares of the first three differences, ``(4, P)``.

    They are means over a sample's dimensions and medians over samples, which are robust to one noise that
    moves to another mode. The moves are ``(4, P, B, ...)``.
    """
    w, x, y, z = moved.double().flatten(3)
    differences = torch.stack([w - 4 * x - 4 * y + z, z - w, w + z, z - 2 * y + 2 * x - w])
    sizes = differences.square().mean(3).median(2).values.cpu()
    sizes[0] /= 70
    return sizes
