"""Claims on use: distillation, transfer, schedules, guidance, and what a fit costs."""

from __future__ import annotations

from dataclasses import replace

import torch
from learned_solvers import guided

import fewstep as fs
from fewstep.classical.universal import Standard
from fewstep.flows import Distillation, warm_start
from fewstep.metrics import mean_psnr, per_sample_mse
from fewstep.schedules import VP, CondOT, Cosine

from ._claim import BESPOKE, BNS, TEST_SEED, Measured, Row, Size, Task, claim, task
from ._families import PAPER

BATCH = 32


def _spent(report: fs.FitReport) -> int:
    return sum(calls for part, calls in report.calls.items() if part != "errors")


@claim(
    "distillation",
    "At an equal budget of calls distillation is far behind on new noises",
    published="with the same trajectories and compute far behind on validation samples; "
    "BNS against progressive distillation, CIFAR-10, FID at 4 calls 25.20 against 3.00, at 8 calls 2.73 "
    "against 2.57",
    source=f"{BESPOKE}, Appendix K.4, Figure 19; {BNS}, Table 3",
    remark="The lowest of the three rates is the best, and lower ones were not tried. The published figures "
    "of progressive distillation are of budgets thousands of times larger, and there distillation wins",
)
def distillation(size: Size) -> Measured:
    """Distil with the calls of a fit.

    The digits, 4 calls. The budget is what the non-stationary fit took with its 64 pairs, the reference
    included; with three budgets, a tenth is spent on fresh pairs. The student starts from the flow, and is
    trained through the calls of its solver, DEIS-3 on the cosine grid, from which the fit starts too, by
    Adam (batch 32, cosine decay) on these pairs; backward passes are not counted. Of three rates, each with
    the whole budget, the one with the least RMSE on the validation pairs is shown, at its best iterate.
    """
    one, nfe, lead = task("digits", size.pairs, size.test), 4, []
    fit = one.fit(nfe)
    budget, error = _spent(fit.report), one.rmse(fit.solver)
    yield Row("fit", {"calls": budget, "RMSE": error, "how": fit.solver.name})
    for times in size.few(1, 3):
        student, how = _student(one, nfe, budget * times, times > 1, size)
        lead.append(student / error)
        figures = {"calls": budget * times, "RMSE": student, "how": how}
        yield Row(f"student, {times} times the calls", figures, student > error)
    return (
        f"the student's RMSE on new noises is {lead[0]:.2f} times that of the fit, and {lead[-1]:.2f} "
        "times with three times the calls"
    )


def _student(one: Task, nfe: int, calls: int, fresh: bool, size: Size) -> tuple[float, str]:
    """Return the test RMSE of the best student on the validation pairs, and what it was."""
    train, held_out = one.pairs.split(len(one.pairs) // 4)
    if fresh:
        count = max(8, round(0.1 * calls / (one.pairs.calls / len(one.pairs))))
        x0 = fs.noise(count, one.field.shape or (), seed=11)
        train = fs.reference.pairs(one.field, x0, rtol=1e-4, atol=1e-4)
    steps = 2 if size.quick else int((calls - train.calls) / (nfe * BATCH))
    found, solver = [], fs.classical.named("deis3/cosine", nfe)
    for rate in size.few(1e-4, 3e-5, 3e-4):
        field, how = distilled(one.field, solver, train, held_out, rate, steps)
        own = one._replace(field=field)
        found.append((own.rmse(solver, held_out), own.rmse(solver), f"rate {rate:g}, {how}"))
    _, error, how = min(found)
    return error, how


def distilled(
    teacher: fs.Field,
    solver: fs.Solver,
    train: fs.Pairs,
    held_out: fs.Pairs,
    rate: float,
    steps: int,
    *,
    batch: int = BATCH,
) -> tuple[fs.Field, str]:
    """Train a student; return it at its best iterate on the validation pairs."""
    objective = Distillation(warm_start(teacher), solver=solver)
    field = fs.Field(objective.flow, shape=teacher.shape)
    adam = torch.optim.Adam(objective.parameters(), lr=rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    generator, best, weights, at = torch.Generator().manual_seed(0), float("inf"), {}, 0
    for step in range(steps + 1):
        if step % max(1, steps // 20) == 0:
            x1 = solver.sample(field, held_out.x0)
            if (error := float(fs.metrics.rmse(x1, held_out.x1))) < best:
                weights = {name: value.clone() for name, value in objective.state_dict().items()}
                best, at = error, step
        index = torch.randint(len(train), (batch,), generator=generator)
        adam.zero_grad()
        objective(train.x1[index], train.x0[index])["loss"].backward()
        adam.step()
        decay.step()
    objective.load_state_dict(weights)
    return field, f"step {at} of {steps}"


@claim(
    "transfer",
    "A solver fitted on one model is better than RK2 on another, of another resolution",
    published="fitted on ImageNet-64, used on ImageNet-128: RMSE and PSNR better than RK2, FID better at 16 "
    "and 20 calls",
    source=f"{BESPOKE}, Figure 16",
    remark="The kernel density estimate is of the same digits. From them to MNIST the scale-time "
    "solvers do not transfer, and the non-stationary one with 8 calls only: fit again",
)
def transfer(size: Size) -> Measured:
    """Use solvers on other models.

    Solvers fitted on the digits (8x8, 64 pairs), used on the flow of MNIST (28x28; 32 noises) and on the
    kernel density estimate of the digits; beside them RK2 and DEIS-3 on the cosine grid.
    """
    home, won = task("digits", size.pairs, size.test), {"scale-time": [], "non-stationary": []}
    beats = []
    for nfe in size.few(4, 8):
        solvers = {
            "scale-time": home.papers(nfe, size),
            "non-stationary": home.fit(nfe).solver,
        }
        for model in size.few("digits-kde", "mnist"):
            one = task(model, 4, min(size.test, 32 if model == "mnist" else 256))
            plain = one.rmse(fs.classical.midpoint(nfe // 2))
            errors = {name: one.rmse(solver) for name, solver in solvers.items()}
            rival = one.rmse(fs.classical.named("deis3/cosine", nfe))
            for family, error in errors.items():
                won[family].append(error < plain)
            beats.append(min(errors.values()) < rival)
            figures = {"RK2": plain, **errors, "deis3/cosine": rival}
            yield Row(f"digits to {model}, {nfe} calls", figures, errors["scale-time"] < plain)
    said = ", ".join(
        f"{family} better than RK2 in {sum(yes)} of {len(yes)} rows" for family, yes in won.items()
    )
    return f"{said}; one of them better than deis3/cosine in {sum(beats)}"


@claim(
    "schedules",
    "After the fit the schedule of the model hardly matters",
    published="the RMSE curves of eps-VP, v-CS and FM-OT nearly coincide",
    source=f"{BESPOKE}, Figure 5 and Theorem 2.3",
)
def schedules(size: Size) -> Measured:
    """Fit one flow under three schedules.

    The digits flow as it is (CondOT), and seen under the cosine and the VP schedule, which is the case
    of Theorem 2.3: the same flow in other coordinates. RK2 in these coordinates, and scale-time RK2
    fitted there by Adam under the bound.
    """
    one, spread = task("digits", size.pairs, size.test), {"RK2": [], PAPER: []}
    for nfe in size.few(4, 8):
        errors = {name: {} for name in spread}
        for schedule in size.few(CondOT(), Cosine(), VP()):
            own = one._replace(field=one.field.reschedule(schedule))
            errors["RK2"][schedule.name] = own.rmse(fs.classical.midpoint(nfe // 2))
            errors[PAPER][schedule.name] = own.rmse(own.papers(nfe, size))
        for name, found in errors.items():
            spread[name].append(max(found.values()) / min(found.values()))
            figures = {**found, "worst / best": spread[name][-1]}
            yield Row(f"{nfe} calls, {name}", figures, None if name == "RK2" else spread[name][-1] < 1.1)
    return "worst over best schedule: " + "; ".join(
        f"{name} {max(ratios):.2f}" for name, ratios in spread.items()
    )


@claim(
    "guidance",
    "With guidance, a fitted solver is at least 9 dB above the midpoint method",
    published="text to image, 12 calls, PSNR of BNS, midpoint, Euler: 25.9, 15.1, 14.0 (w = 2), "
    "18.9, 9.7, 9.6 (6.5); noise scaled by 5 and 10 before the fit",
    source=f"{BNS}, Table 2",
)
def guidance(size: Size) -> Measured:
    """Fit guided fields.

    Exact mixture with four labels in 16 dimensions, 12 calls, at most 50 thousand network calls a fit.
    Mean PSNR for a range of 2. The second fit is to the path with noise 5 times as large, as BNS has it.
    """
    gains, louder, most = [], [], 10_000 if size.quick else 50_000
    for scale in size.few(2.0, 6.5):
        field, labels = guided(scale)
        pairs, test = (
            fs.reference.pairs(
                field, fs.noise(count, field.shape, seed=seed), rtol=1e-6, atol=1e-6, per_sample=labels(count)
            )
            for count, seed in ((size.pairs, 0), (size.test, TEST_SEED))
        )
        one = Task(field, pairs, test)
        names = {"Euler": "euler", "midpoint": "midpoint", "deis3/cosine": "deis3/cosine"}
        figures = {name: _psnr(one, fs.classical.named(solver, 12)) for name, solver in names.items()}
        fitted = _psnr(one, one.fit(12, max_calls=most).solver)
        loud = _psnr(one, _with_noise(one, 5.0, most))
        gains.append(fitted - max(figures.values()))
        louder.append(loud - fitted)
        figures |= {"fitted": fitted, "noise 5": loud}
        yield Row(f"w = {scale:g}", figures, fitted > figures["midpoint"] + 9)
    gained, changed = (", ".join(f"{value:.1f} dB" for value in each) for each in (gains, louder))
    return f"gain over the best of the three: {gained}; by the noise 5 times as large: {changed}"


def _psnr(one: Task, solver: fs.Solver) -> float:
    mse = per_sample_mse(solver.sample(one.test.bind(one.field), one.test.x0), one.test.x1)
    return round(float(mean_psnr(mse)), 1)


def _with_noise(one: Task, scale: float, most: int) -> fs.Solver:
    """Fit in the coordinates of data divided by ``scale``, and return the solver for the field itself."""
    standard = Standard(scale)
    own = Task(one.field.reschedule(standard), replace(one.pairs, x1=one.pairs.x1 / scale), one.test)
    solver = own.fit(12, max_calls=most).solver  # a classical one of data, where that is better
    return solver.to("velocity", standard).reschedule(standard, CondOT())


@claim(
    "cost",
    "A fit costs about one percent of the training of the model, and few trajectories",
    published="72,000 trajectories for CIFAR-10, 48,000 for ImageNet, 4,000 for AFHQ; 0.5 to 3.6% of the "
    "training; BNS 520 trajectories, about 600 thousand rollouts",
    source=f"{BESPOKE}, Table 2 and appendix; {BNS}",
)
def cost(size: Size) -> Measured:
    """Count trajectories and calls.

    Non-stationary fits to the digits with 8 calls. Calls are one for each sample and evaluation, the
    reference included. A training step counts three calls a sample, for the backward pass; the digits
    flow was trained with 2,500 steps of 256, 1.92 million calls.
    """
    shares, training = [], 3 * 2500 * 256
    one = task("digits", size.pairs, size.test)
    for pairs in size.few(16, 32, 64):
        fit = fs.fit(one.field, 8, pairs=pairs)
        spent, error = _spent(fit.report), one.rmse(fit.solver)
        shares.append(100 * spent / training)
        figures = {"calls": spent, "of the training": f"{shares[-1]:.1f}%", "RMSE": error}
        yield Row(f"{pairs} trajectories", figures, shares[-1] < 3.6)
    return (
        f"16 to 64 trajectories, {min(shares):.1f} to {max(shares):.1f}% of the training of this model; "
        "the share falls with the length of the training"
    )
