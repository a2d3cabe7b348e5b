"""How much samples depend on what the network predicts: not at all, they should.

A Gaussian mixture's velocity, noise, data and v predictions are known in closed form under every
schedule. Every classical solver with seven or eight calls samples with each of them in float64, from t = 0
to t = 1, and is compared with itself on the closed-form velocity. The numbers are the largest deviations over
samples and dimensions, relative to the largest sample. The first call of all solvers is at t = 0, and the
last of those marked * at t = 1, where a prediction of the data repeats the state.

    python benchmarks/exactness.py
"""

from __future__ import annotations

import torch

import fewstep as fs
from fewstep.schedules import DDPM, VE, VP, CondOT, Cosine, Polynomial, Schedule

SCHEDULES = {
    "CondOT": CondOT(),
    "t^2": Polynomial(2.0),
    "VP": VP(),
    "cosine": Cosine(),
    "VE": VE(),
    "SD": DDPM("scaled_linear", 0.00085, 0.012),
    "SD, zero SNR": DDPM("scaled_linear", 0.00085, 0.012, zero_terminal_snr=True),
}
#: Seven as well, for solvers whose calls are odd in number.
CALLS, SAMPLES, DIMENSION, SEED = (7, 8), 64, 3, 0


def closed_form(schedule: Schedule, prediction: str) -> fs.Field:
    network = fs.models.random_mixture(DIMENSION, 4, std=0.3, schedule=schedule, prediction=prediction)
    mean = network.log_weights.exp() @ network.means
    return fs.Field(network, schedule, prediction, clock=(0, 1), data_moments=(mean, 1.0))


def deviations(schedule: Schedule, prediction: str) -> dict[str, float]:
    """By solver, * marking those that call the network in pure data."""
    noise = fs.noise(SAMPLES, (DIMENSION,), seed=SEED, dtype=torch.float64)
    exact, field = closed_form(schedule, "velocity"), closed_form(schedule, prediction)
    found = {}
    for calls in CALLS:
        for name, solver in fs.classical.baselines(calls, schedule).items():
            expected = solver.sample(exact, noise)
            error = (solver.sample(field, noise) - expected).abs().max() / expected.abs().max()
            found[name + "*" * (1.0 in solver.times)] = float(error)
    return found


def main() -> None:
    for prediction in ("noise", "data", "v"):
        columns = {label: deviations(schedule, prediction) for label, schedule in SCHEDULES.items()}
        print(f"\n{prediction} predictions\n")
        print("| solver | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
        for name in sorted({name for column in columns.values() for name in column}):
            cells = [f"{column[name]:.0e}" if name in column else "-" for column in columns.values()]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
