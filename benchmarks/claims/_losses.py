"""Claims on losses: which is best, the Lipschitz constant of the bound, and when to stop."""

from __future__ import annotations

from functools import cache, partial

from torch import Tensor

import fewstep as fs
from fewstep.families import ScaleTime
from fewstep.fitting import LOSSES, Adam, bound_weights
from fewstep.fitting._adam import PathObjective, adam
from fewstep.fitting._rollout import Rollout
from fewstep.metrics import mean_psnr

from ._claim import BESPOKE, Measured, Row, Size, Task, claim, distance, task

#: Noises for a distance to the data.
MANY = 2048


@claim(
    "losses",
    "By RMSE, the sample's RMSE is the best loss, the bound second, the local error worst",
    published="RMSE best, bound second, local error worst by RMSE; by FID the RMSE is worst, and the local "
    "error leads below 10 calls",
    source=f"{BESPOKE}, Appendix K.1, Figure 15, ImageNet-64",
    remark="The losses of the path change places: the weights of the bound do not pay. The distance is of "
    "pixels, and follows the RMSE. On the kernel density estimate, a rough field, Adam on the RMSE ends in "
    "poorer minima than on the path",
)
def losses(size: Size) -> Measured:
    """Compare three losses.

    Scale-time RK2 by Adam (100 iterations of 32 pairs, rate 0.05 with a cosine decay), 64 pairs. For the
    digits also the distance of 2,048 samples to the data, with that of exact samples in the last column,
    where the claim is that the RMSE is the worst loss.
    """
    names = ("rmse", "bound", "local")
    orders, quality = [], []
    for model in size.few("digits", "digits-kde"):
        one = task(model, size.pairs, size.test)
        for nfe in size.few(4, 6, 8, 10) if model == "digits" else (4, 8):
            solvers = {name: one.papers(nfe, size, loss=name) for name in names}
            errors = {name: one.rmse(solver) for name, solver in solvers.items()}
            orders.append(sorted(names, key=lambda name: errors[name]))
            yield Row(f"{model}, {nfe} calls, RMSE", {**errors, "exact": 0.0}, orders[-1] == list(names))
            if model == "digits":
                far = {name: distance(_samples(solver, one.field, size)) for name, solver in solvers.items()}
                quality.append(max(names, key=lambda name: far[name]))
                figures = {**far, "exact": distance(_exact(one.field, size))}
                yield Row(f"{model}, {nfe} calls, distance", figures, quality[-1] == "rmse")
    first, last = sum(o[0] == "rmse" for o in orders), sum(o[-1] == "local" for o in orders)
    bound = sum(o.index("bound") < o.index("local") for o in orders)
    return (
        f"by RMSE the RMSE is the best loss in {first} of {len(orders)} rows, the local error the worst in "
        f"{last}, the bound better than it in {bound}; by distance the RMSE is the worst loss in "
        f"{quality.count('rmse')} of {len(quality)}"
    )


@cache
def _exact(field: fs.Field, size: Size) -> Tensor:
    return fs.reference.pairs(field, _noises(field, size), rtol=1e-4, atol=1e-4).x1


def _noises(field: fs.Field, size: Size) -> Tensor:
    return fs.noise(64 if size.quick else MANY, field.shape or (), seed=TEST_MANY)


def _samples(solver: fs.Solver, field: fs.Field, size: Size) -> Tensor:
    return solver.sample(field, _noises(field, size))


#: Noises of distances are others than those of errors.
TEST_MANY = 20_261_122


def _iterates(
    one: Task, family: ScaleTime, size: Size, lipschitz: float = 1.0
) -> tuple[list[Tensor], fs.Pairs]:
    """Return Adam's iterates under the bound, and the validation pairs."""
    ready, _ = LOSSES["bound"].prepared(one.pairs, one.field, rtol=1e-5, atol=1e-5)
    train, held_out = ready.split(len(ready) // 4)
    weights = partial(bound_weights, family, lipschitz=lipschitz)
    objective = PathObjective(Rollout(one.field, 4096), family, weights)
    settings = Adam(size.iterations, report_every=5)
    return [iterate.theta for iterate in adam(objective, family.size, train, settings)], held_out


@claim(
    "lipschitz",
    "The bound's Lipschitz constant L_tau can be set to 1",
    published="L_tau = 1 in all experiments",
    source=BESPOKE,
)
def lipschitz(size: Size) -> Measured:
    """Compare Lipschitz constants.

    Scale-time RK2 by Adam under the bound, with weights for several constants; 0 leaves only what the
    scales contribute to the weights.
    """
    constants, spread = (0.0, 1.0, 5.0), []
    for model in ("digits",):
        one = task(model, size.pairs, size.test)
        for nfe in size.few(4, 8):
            family, errors = ScaleTime("midpoint", nfe // 2), {}
            for constant in constants:
                thetas, held_out = _iterates(one, family, size, constant)
                best = min(thetas, key=lambda theta: one.rmse(family.solver(theta), held_out))
                errors[f"L = {constant:g}"] = one.rmse(family.solver(best))
            spread.append(errors["L = 1"] / min(errors.values()))
            yield Row(f"{model}, {nfe} calls", errors, spread[-1] < 1.1)
    return f"L = 1 is within {max(spread):.2f} times the best constant of three in every row"


@claim(
    "stopping",
    "Stopping at the best quality or at the best RMSE gives the same",
    published="the curves look the same",
    source=f"{BESPOKE}, Appendix K.5, Figure 20",
)
def stopping(size: Size) -> Measured:
    """Compare rules of stopping.

    Scale-time RK2 on the digits by Adam under the bound. Every fifth iterate is judged by the RMSE of
    the 16 validation pairs, by their mean PSNR, and by the distance of 2,048 samples of further noises
    (seed 3) to the digits. The chosen ones are measured on the evaluation noises.
    """
    one, same = task("digits", size.pairs, size.test), []
    noises = fs.noise(64 if size.quick else 2048, one.field.shape or (), seed=3)
    for nfe in size.few(4, 8):
        family = ScaleTime("midpoint", nfe // 2)
        thetas, held_out = _iterates(one, family, size)
        solvers = [family.solver(theta) for theta in thetas]
        mse = [
            fs.metrics.per_sample_mse(solver.sample(one.field, held_out.x0), held_out.x1)
            for solver in solvers
        ]
        scores = {
            "RMSE": [float(each.sqrt().mean()) for each in mse],
            "PSNR": [-float(mean_psnr(each)) for each in mse],
            "distance": [distance(solver.sample(one.field, noises)) for solver in solvers],
        }
        errors = []
        for name, found in scores.items():
            at = found.index(min(found))
            errors.append(one.rmse(solvers[at]))
            far = distance(_samples(solvers[at], one.field, size))
            figures = {"iterate": 5 * at, "RMSE": errors[-1], "distance": far}
            yield Row(f"{nfe} calls, stopped by {name}", figures)
        same.append(max(errors) / min(errors))
    return f"the RMSE of the chosen iterates differs by at most {100 * (max(same) - 1):.0f} percent"
