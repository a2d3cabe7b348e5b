"""Settings of a fit: the reference, Gauss-Newton and Adam."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from .._names import check_name
from .._ranges import COUNT, NATURAL, NOT_NEGATIVE, POSITIVE, check_fields
from ..field import Field
from ..reference import finest

__all__ = ["OPTIMIZERS", "Adam", "GaussNewton", "Optimizer", "Reference", "resolve_optimizer"]


@dataclass(frozen=True)
class Reference:
    """Settings of the reference samples of a fit.

    See :func:`fewstep.reference.pairs`.

    Args:
        rtol: relative tolerance; by default :func:`fewstep.reference.finest` of the field.
        atol: absolute tolerance; likewise.
        max_nfe: most network calls per batch.
        steps: steps of a fixed grid instead of adaptive ones, for networks that are rough in time.
        cache: folder for finished batches.

    Raises:
        ValueError: on an invalid setting.
    """

    rtol: float | None = None
    atol: float | None = None
    max_nfe: int = 2000
    steps: int | None = None
    cache: str | Path | None = None

    def __post_init__(self) -> None:
        check_fields("Reference", self, rtol=NOT_NEGATIVE, atol=NOT_NEGATIVE, max_nfe=COUNT, steps=COUNT)

    def tolerances(self, field: Field) -> dict[str, float]:
        """Return ``rtol`` and ``atol`` for a field."""
        return {
            name: finest(field) if given is None else given
            for name, given in (("rtol", self.rtol), ("atol", self.atol))
        }


@dataclass(frozen=True)
class GaussNewton:
    """Settings of forward-only Gauss-Newton (Levenberg 1944, Marquardt 1963).

    The penalty ``mu |theta|^2`` starts at a tenth of the initial loss and decays by the factor ``decay`` per
    iteration to ``shrinkage / pairs`` of it: the iterates trace a path from the prior to the data, from which
    validation chooses (iteratively regularised Gauss-Newton, Bakushinskii 1992).

    Args:
        iterations: most iterations.
        jacobian: ``"directions"``, differences along the few directions that all columns span at each call;
            ``"differences"`` of perturbed rollouts, one or two per parameter; or ``"jvp"``, exact
            forward-mode derivatives, each of which counts as two network calls. By default directions or, for
            losses of features, differences, which only evaluate the feature map.
        minibatch: training pairs per step, drawn at random; all by default. Saves calls with hundreds of
            pairs, and costs accuracy with tens.
        step: one step for all forward differences, in theta or, for directions, relative to the state. By
            default measured, for each parameter or call, from rounding noise and curvature.
        shrinkage: final penalty over the initial loss, times the number of pairs.
        decay: factor of the penalty from one iteration to the next.
        memory: bytes for the Jacobian and its rollouts, besides those of the network; more pairs than fit
            are taken in chunks, of one pair at least.
        reuse: iterations that a Jacobian serves besides its own, each after Broyden's update (1965), which
            corrects it along the last step and costs one rollout; only with one task, if the whole
            Jacobian fits in memory.
        last_steps: steps from the chosen iterate on training and validation pairs together, with the penalty
            that it had. The errors in the report are those before.

    Raises:
        ValueError: on an invalid setting.
    """

    name: ClassVar[str] = "gauss_newton"
    #: Iterations without an improvement of validation that end a fit.
    patience: ClassVar[int] = 8

    iterations: int = 40
    jacobian: Literal["directions", "differences", "jvp"] | None = None
    minibatch: int | None = None
    step: float | None = None
    shrinkage: float = 0.01
    decay: float = 0.3
    memory: int = 256 * 2**20
    reuse: int = 1
    last_steps: int = 2

    def __post_init__(self) -> None:
        check_fields("GaussNewton", self, iterations=COUNT, minibatch=COUNT, memory=COUNT)
        check_fields("GaussNewton", self, reuse=NATURAL, last_steps=NATURAL)
        check_fields("GaussNewton", self, step=POSITIVE, shrinkage=NOT_NEGATIVE, decay=POSITIVE)
        if self.jacobian not in (None, "directions", "differences", "jvp"):
            raise ValueError(
                f"GaussNewton: jacobian must be 'directions', 'differences' or 'jvp', not {self.jacobian!r}."
            )
        if self.jacobian == "jvp" and self.step is not None:
            raise ValueError(f"GaussNewton: jacobian='jvp' takes no step; leave step={self.step} out.")


@dataclass(frozen=True)
class Adam:
    """Settings of Adam (Kingma and Ba 2015) on random minibatches, with a cosine decay of the learning rate.

    Args:
        iterations: iterations.
        lr: initial learning rate.
        batch: pairs per iteration.
        report_every: iterations between validations.

    Raises:
        ValueError: on an invalid setting.
    """

    name: ClassVar[str] = "adam"
    #: Validations without an improvement that end a fit.
    patience: ClassVar[int] = 50

    iterations: int = 1500
    lr: float = 0.05
    batch: int = 32
    report_every: int = 10

    def __post_init__(self) -> None:
        check_fields("Adam", self, iterations=COUNT, lr=POSITIVE, batch=COUNT, report_every=COUNT)


Optimizer = GaussNewton | Adam
#: Settings by name of the optimiser.
OPTIMIZERS: dict[str, type[GaussNewton] | type[Adam]] = {kind.name: kind for kind in (GaussNewton, Adam)}


def resolve_optimizer(optimizer: str | Optimizer) -> Optimizer:
    """Return the given settings, or the default ones by name."""
    if isinstance(optimizer, GaussNewton | Adam):
        return optimizer
    settings = ", fitting.GaussNewton(...) or fitting.Adam(...)"
    check_name("fit: optimizer", optimizer, OPTIMIZERS, settings)
    return OPTIMIZERS[optimizer]()
