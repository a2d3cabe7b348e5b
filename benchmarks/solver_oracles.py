"""Our classical solvers against those of diffusers, k-diffusion and torchdiffeq, on one random network.

    python benchmarks/solver_oracles.py                  # a Markdown table
    python benchmarks/solver_oracles.py --record FILE    # what k-diffusion does, for tests without it

Every peer runs its own loop, in float32; our table steps through the same noise levels. What is printed is
the largest difference of any coordinate, over the root mean square of the peer's samples. k-diffusion is left
out where it is not importable.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import peers
import torch
from torch import Tensor

from fewstep.classical import (
    TABLEAUX,
    ddim,
    deis,
    dpm_singlestep,
    dpm_solver,
    dpmpp,
    dpmpp_2m_sde,
    edm_heun,
    edm_stochastic,
    euler,
    euler_ancestral,
    heun,
    ipndm,
    lms,
    runge_kutta,
    sa_solver,
    unipc,
)
from fewstep.schedules import DDPM, VE, CondOT, Cosine, Schedule

EULER_AT_ZERO = "a step to sigma = 0 is Euler's"
ORDER_ONE_AT_ZERO = "a step to sigma = 0 is of order 1"
LOWER_ORDER_FINAL = "below 15 steps the order falls to 1 at the end: lower_order_final=True"


class Ours(NamedTuple):
    """One of our functions and its arguments, but for the schedule and the grid."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    options: dict[str, Any]

    def __str__(self) -> str:
        words = [
            *(getattr(arg, "name", repr(arg)) for arg in self.args),
            *(f"{key}={value!r}" for key, value in self.options.items()),
        ]
        return f"{self.function.__name__}({', '.join(words)})"


class Case(NamedTuple):
    """One line of the table; ``compare()`` is the deviation."""

    peer: str
    ours: Ours
    steps: int
    schedule: str
    quirk: str
    compare: Callable[[], float]


def call(function: Callable[..., Any], *args: Any, **options: Any) -> Ours:
    return Ours(function, args, options)


def deviation(run: peers.Run, ours: Ours, schedule: Schedule, prediction: str, predict: Any) -> float:
    """Compare the table of our function on the peer's levels with the peer."""
    # Methods of the velocity hold for any schedule.
    fixed = {} if ours.function in (euler, heun, runge_kutta) else {"schedule": schedule}
    solver = ours.function(*ours.args, **ours.options, **fixed, grid=peers.grid(run.levels, schedule))
    return peers.deviation(peers.sample(solver, run, schedule, prediction, predict), run)


# ------------------------------------------------------------------------------------------ diffusers


def at_unit_variance(x: Tensor, level: Tensor) -> Tensor:
    return peers.network(x, level.arctan())


def exploded(x: Tensor, level: Tensor) -> Tensor:
    return peers.network(x / (1 + level.to(x.dtype).square()).sqrt(), level.arctan())


def preserving(
    scheduler: Any, steps: int, ours: Ours, schedule: Schedule, prediction: str, **options: Any
) -> float:
    run = peers.diffusers_preserving(scheduler(), steps, **options)
    return deviation(run, ours, schedule, prediction, at_unit_variance)


def exploding(scheduler: Any, steps: int, ours: Ours) -> float:
    run = peers.diffusers_exploding(scheduler(), steps)
    return deviation(run, ours, VE(1.01 * float(run.levels[0])), "noise", exploded)


def edm(scheduler: Any, steps: int, ours: Ours) -> float:
    run = peers.diffusers_edm(scheduler(), steps)
    return deviation(run, ours, VE(), "data", partial(peers.edm_data, scheduler()))


def flow(scheduler: Any, steps: int, ours: Ours) -> float:
    run = peers.diffusers_flow(scheduler(), steps)
    return deviation(run, ours, CondOT(), "velocity", peers.flow_velocity)


def diffusers_cases() -> Iterator[Case]:
    """One case a scheduler, its order and its variant."""

    def vp(name: str, ours: Ours, quirk: str = "", steps: int = 8, **config: Any) -> Case:
        scheduler = partial(getattr(diffusers, f"{name}Scheduler"), **config)
        compare = partial(preserving, scheduler, steps, ours, DDPM(), "noise")
        return Case(_label(name, config), ours, steps, "DDPM", quirk, compare)

    def other(
        run: Callable[..., float],
        where: str,
        name: str,
        ours: Ours,
        quirk: str = "",
        steps: int = 8,
        **config: Any,
    ) -> Case:
        scheduler = partial(getattr(diffusers, f"{name}Scheduler"), **config)
        return Case(_label(name, config), ours, steps, where, quirk, partial(run, scheduler, steps, ours))

    yield vp(
        "DDIM",
        call(ddim),
        "ends at alpha = 1 (set_alpha_to_one); clips by default",
        clip_sample=False,
    )
    for order, variant in ((1, "1"), (2, "2M"), (3, "3M")):
        name, options = "DPMSolverMultistep", {"solver_order": order}
        half = "; order 3 has half of its last term" if order == 3 else ""
        yield vp(name, call(dpmpp, variant, lower_order_final=True), LOWER_ORDER_FINAL + half, **options)
        yield vp(name, call(dpmpp, variant), ORDER_ONE_AT_ZERO + half, 20, **options)
        options = {**options, "algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
        quirk = "refuses sigma = 0" + half
        yield vp(name, call(dpm_solver, variant, lower_order_final=True), quirk, **options)
        yield vp(name, call(dpm_solver, variant), quirk, 20, **options)
    for order in (2, 3):
        name = "DPMSolverSinglestep"
        for steps in (6, 7, 8):
            quirk = "stages at grid points; ends on shorter steps"
            yield vp(name, call(dpm_singlestep, order), quirk, steps, solver_order=order)
        quirk = "stages at grid points; lower_order_final must divide"
        for algorithm, prediction in (("dpmsolver++", "data"), ("dpmsolver", "noise")):
            ours = call(dpm_singlestep, order, prediction=prediction, lower_order_final=False)
            config = {"solver_order": order, "algorithm_type": algorithm, "final_sigmas_type": "sigma_min"}
            yield vp(name, ours, quirk, 6, **config)
    for order in (1, 2, 3):
        for steps in (8, 20):
            ours = call(deis, order, variable="log_rho", lower_order_final=steps < 15)
            quirk = "polynomials in log rho, not time; ends at timestep 0"
            yield vp("DEISMultistep", ours, quirk, steps, solver_order=order)
    for order in (1, 2, 3):
        for variant in ("bh1", "bh2"):
            for data in (True, False):
                at_zero = variant == "bh2" and data  # otherwise the peer itself returns NaN
                for last in ("zero", "sigma_min") if at_zero else ("sigma_min",):
                    config = {"solver_order": order, "solver_type": variant, "predict_x0": data}
                    ours = call(unipc, order, variant=variant, prediction="data" if data else "noise")
                    quirk = (
                        ORDER_ONE_AT_ZERO
                        if last == "zero"
                        else "its default, sigma = 0, is NaN" * (not at_zero)
                    )
                    yield vp("UniPCMultistep", ours, quirk, final_sigmas_type=last, **config)
        ours = call(unipc, order, lower_order_final=False)
        config = {"solver_order": order, "lower_order_final": False, "final_sigmas_type": "sigma_min"}
        quirk = "NaN at sigma = 0 without lower_order_final" * (order > 1)
        yield vp("UniPCMultistep", ours, quirk, **config)

    yield from _stochastic_cases()

    sigmas = [0.99, 0.95, 0.8, 0.6, 0.45, 0.3, 0.1, 0.03, 0.0]
    scheduler = partial(diffusers.IPNDMScheduler, trained_betas=sigmas)
    compare = partial(preserving, scheduler, 8, call(ipndm), Cosine(), "v")
    quirk = (
        "reads the network as v; takes its data for zero where alpha = 0, so it starts at sigma = 0.99 here"
    )
    yield Case("IPNDM(trained_betas=[...])", call(ipndm), 8, "Cosine", quirk, compare)

    for karras in (False, True):
        config = {"use_karras_sigmas": karras}
        yield other(exploding, "VE", "EulerDiscrete", call(ddim), **config)
        yield other(exploding, "VE", "HeunDiscrete", call(edm_heun), EULER_AT_ZERO, **config)
    yield other(edm, "VE", "EDMEuler", call(ddim))
    for order, variant in ((1, "1"), (2, "2M"), (3, "3M")):
        half = "; half of the last term" if order == 3 else ""
        ours, config = call(dpmpp, variant, lower_order_final=True), {"solver_order": order}
        yield other(edm, "VE", "EDMDPMSolverMultistep", ours, LOWER_ORDER_FINAL + half, **config)
        yield other(
            edm, "VE", "EDMDPMSolverMultistep", call(dpmpp, variant), ORDER_ONE_AT_ZERO + half, 20, **config
        )
    yield other(flow, "CondOT", "FlowMatchEulerDiscrete", call(euler), shift=3.0)
    quirk = EULER_AT_ZERO + ": euler_last=True"
    yield other(flow, "CondOT", "FlowMatchHeunDiscrete", call(heun, euler_last=True), quirk, shift=3.0)
    config = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    for order in (1, 2, 3):
        quirk = "starts at sigma = 1 - 1e-6"
        yield other(flow, "CondOT", "UniPCMultistep", call(unipc, order), quirk, solver_order=order, **config)
    ours = call(dpmpp, "2M", lower_order_final=True)
    yield other(flow, "CondOT", "DPMSolverMultistep", ours, "starts at sigma = 0.999", **config)


def _stochastic_cases() -> Iterator[Case]:
    """Those of diffusers that add noise, with the noises that ours adds."""

    def vp(name: str, ours: Ours, quirk: str, steps: int, step: dict[str, Any], **config: Any) -> Case:
        scheduler = partial(getattr(diffusers, f"{name}Scheduler"), **config)
        compare = partial(preserving, scheduler, steps, ours, DDPM(), "noise", **step)
        return Case(_label(name, {**config, **step}), ours, steps, "DDPM", quirk, compare)

    for eta in (0.5, 1.0):
        quirk = "ends at alpha = 1 (set_alpha_to_one)"
        yield vp("DDIM", call(euler_ancestral, eta=eta), quirk, 8, {"eta": eta}, clip_sample=False)
    yield vp("DDPM", call(euler_ancestral), "its smaller variance", 8, {}, clip_sample=False)
    for variant in ("midpoint", "heun"):
        for steps in (8, 20):
            ours = call(dpmpp_2m_sde, variant=variant, lower_order_final=steps < 15)
            quirk = LOWER_ORDER_FINAL if steps < 15 else ORDER_ONE_AT_ZERO
            config = {"algorithm_type": "sde-dpmsolver++", "solver_type": variant}
            yield vp("DPMSolverMultistep", ours, quirk, steps, {}, **config)
    for predictor, corrector in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (3, 4)):
        for tau in (0.0, 0.6, 1.0):
            ours = call(sa_solver, predictor=predictor, corrector=corrector, tau=tau)
            orders = {"predictor_order": predictor, "corrector_order": corrector}
            compare = partial(preserving, partial(_SASolver, tau, **orders), 8, ours, DDPM(), "noise")
            quirk = "its tau is 0 outside timesteps 200 to 800; here constant, and coefficients in float64"
            yield Case(_label("SASolver", {**orders, "tau": tau}), ours, 8, "DDPM", quirk, compare)


class _SASolver(diffusers.SASolverScheduler):
    """With a constant tau, and levels in float64: its sums cancel to 1e-5 in float32."""

    def __init__(self, tau: float, **config: Any) -> None:
        super().__init__(**config)
        self.tau_func = lambda t: torch.tensor(tau, dtype=torch.float64)

    def set_timesteps(self, steps: int) -> None:
        super().set_timesteps(steps)
        self.sigmas = self.sigmas.double()


def _label(name: str, config: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in config.items())})"


# ---------------------------------------------------------------------------------------- torchdiffeq


def torchdiffeq_cases() -> Iterator[Case]:
    """One case a fixed-step method, with steps of different length."""
    times = (0.0, 0.1, 0.25, 0.5, 0.6, 0.75, 0.875, 1.0)
    quirk = "the 3/8 rule, not the classical method"
    for method, tableau, note in (
        ("euler", "euler", ""),
        ("midpoint", "midpoint", ""),
        ("heun2", "heun", ""),
        ("heun3", "heun3", ""),
        ("rk4", "three_eighths", quirk),
    ):
        ours = call(runge_kutta, TABLEAUX[tableau])

        def compare(method: str = method, ours: Ours = ours) -> float:
            run = peers.torchdiffeq_path(method, times)
            return deviation(run, ours, CondOT(), "velocity", peers.flow_velocity)

        yield Case(f"odeint(method={method!r})", ours, len(times) - 1, "CondOT", note, compare)


# ---------------------------------------------------------------------------------------- k-diffusion


class Sampler(NamedTuple):
    """A sampler of k-diffusion, and ours."""

    name: str
    options: dict[str, Any]
    ours: Ours
    quirk: str = ""


def _churned(churn: float, s_tmin: float = 0.0, s_noise: float = 1.0) -> Ours:
    return call(edm_stochastic, churn=churn, s_min=s_tmin, s_max=15.0, s_noise=s_noise)


SAMPLERS = [
    Sampler("euler", {}, call(ddim)),
    Sampler("heun", {}, call(edm_heun), EULER_AT_ZERO),
    Sampler("dpm_2", {}, call(dpm_solver, "2S"), EULER_AT_ZERO),
    *(Sampler("lms", {"order": order}, call(lms, order)) for order in (1, 2, 3, 4)),
    Sampler("dpmpp_2m", {}, call(dpmpp, "2M"), ORDER_ONE_AT_ZERO),
    Sampler("dpmpp_2s_ancestral", {"eta": 0.0}, call(dpmpp, "2S"), EULER_AT_ZERO),
    *(
        Sampler("euler_ancestral", options, call(euler_ancestral, **options))
        for options in ({}, {"eta": 0.6, "s_noise": 1.1})
    ),
    *(
        Sampler(
            "dpmpp_2m_sde",
            {"solver_type": variant, **options},
            call(dpmpp_2m_sde, variant=variant, **options),
        )
        for variant, options in (("midpoint", {}), ("heun", {}), ("midpoint", {"eta": 0.4, "s_noise": 1.1}))
    ),
    *(
        Sampler("heun", {"s_churn": churn, "s_tmax": 15.0, **other}, _churned(churn, **other), EULER_AT_ZERO)
        for churn, other in ((1.0, {}), (40.0, {"s_tmin": 0.1, "s_noise": 1.003}))
    ),
]


def k_diffusion_deviation(run: peers.Run, ours: Ours) -> float:
    return deviation(run, ours, VE(), "data", peers.exploding_data)


def k_diffusion_cases(steps: int = 10) -> Iterator[Case]:
    """One case a sampler."""
    for sampler in SAMPLERS:

        def compare(sampler: Sampler = sampler) -> float:
            run = peers.k_diffusion(sampler.name, peers.karras_sigmas(steps), **sampler.options)
            return k_diffusion_deviation(run, sampler.ours)

        yield Case(
            _label(f"sample_{sampler.name}", sampler.options),
            sampler.ours,
            steps,
            "VE",
            sampler.quirk,
            compare,
        )


def record(steps: int = 6) -> dict[str, Any]:
    """Return the samples of k-diffusion as JSON; nine digits keep every bit of a float32."""
    levels, runs = peers.karras_sigmas(steps), []
    for sampler in SAMPLERS:
        run = peers.k_diffusion(sampler.name, levels, **sampler.options)
        runs.append(
            {"sampler": sampler.name, "options": sampler.options, "calls": run.calls, "end": _rows(run.end)}
        )
    return {"levels": _rows(run.levels), "start": _rows(run.start), "runs": runs}


def recorded(record: dict[str, Any]) -> list[tuple[Sampler, peers.Run]]:
    """The runs of a recording, with the samplers that made them."""
    levels = torch.tensor(record["levels"], dtype=torch.float64)
    start = torch.tensor(record["start"])
    runs = [
        peers.Run(levels, start, torch.tensor(run["end"]), run["calls"], int("s_churn" in run["options"]))
        for run in record["runs"]
    ]
    made_by = [(run["sampler"], run["options"]) for run in record["runs"]]
    if made_by != [(sampler.name, sampler.options) for sampler in SAMPLERS]:
        raise ValueError(f"recorded: the samplers are {made_by}, not those of SAMPLERS; record them again.")
    return list(zip(SAMPLERS, runs, strict=True))


def _rows(numbers: Tensor) -> Any:
    return json.loads(json.dumps(numbers.tolist()), parse_float=lambda text: float(f"{float(text):.9g}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--record", metavar="FILE", type=Path, help="write k-diffusion's runs as JSON, and stop"
    )
    record_to = parser.parse_args().record
    if record_to is not None:
        record_to.write_text(json.dumps(record()) + "\n")
        return
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    cases = [*diffusers_cases(), *torchdiffeq_cases()]
    try:
        peers.k_diffusion_sampling()
        cases += k_diffusion_cases()
    except ImportError as error:
        print(f"k-diffusion is left out: {error}\n")
    print("| peer | ours | steps | schedule | deviation | quirk matched |\n|---|---|---|---|---|---|")
    for case in cases:
        with torch.no_grad():
            found = case.compare()
        print(f"| {case.peer} | {case.ours} | {case.steps} | {case.schedule} | {found:.1e} | {case.quirk} |")


if __name__ == "__main__":
    main()
