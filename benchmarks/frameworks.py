"""Models and solvers carried between fewstep and the frameworks around it: deviations, and lines of code.

    python benchmarks/frameworks.py                  # a Markdown table
    python benchmarks/frameworks.py --snippets       # and the code that was run, per framework
    python benchmarks/frameworks.py --out rows.json

Protocol: the networks are exact ones, of a mixture of ten Gaussians in 1 x 8 x 8 dimensions, with the call
signature and parametrisation of each framework (torchcfm: its own MLP, with random weights); 16 noises in
float32. A deviation is the largest over coordinates, divided by the root mean square of the samples.

* "their model here": their sampler on their model, against our table of the same method on our field.
* "our solver there": a solver fitted to that field (6 calls, 32 pairs) in their loop, against solver.sample.
* "our field there": a flow of ours in their sampler, against our table of the same method.

Lines are those of the snippets, which are run as printed, without imports. What is not importable is left
out: EDM, EDM2 and DPM-Solver are no packages, but folders for PYTHONPATH, each in a run of its own, as the
first two share names.
"""

from __future__ import annotations

import argparse
import importlib
import json
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import peers
import torch
from torch import Tensor, nn

import fewstep as fs

SHAPE = (1, 8, 8)
NOISE = fs.noise(16, SHAPE, seed=4)

#: ``load(names)`` adds the framework's own names to those that the snippets use.
Load = Callable[[dict[str, Any]], None]


class Framework(NamedTuple):
    """One framework; every snippet leaves ``samples``, and those of the first ``field``.

    Args:
        name: its name.
        load: imports it and makes the model ``net``.
        theirs: its own sampler on that model.
        here: the same method on our field.
        solver_there: our solver in its loop, if it has a place for one.
        field_there: our field in its sampler, if it takes one.
        same: the same method on that field.
    """

    name: str
    load: Load
    theirs: str
    here: str
    solver_there: str | None = None
    field_there: str | None = None
    same: str | None = None


def mixture(schedule: fs.schedules.Schedule, prediction: str) -> nn.Module:
    means = torch.randn(10, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return fs.models.GaussianMixture(means, 0.3, None, schedule, prediction)


class Keywords(nn.Module):
    """A velocity called as ``model(x=x, t=t)``."""

    def __init__(self) -> None:
        super().__init__()
        self.network = mixture(fs.schedules.CondOT(), "velocity")
        self.eval()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.network(x, t)


class TimeFirst(Keywords):
    """A velocity called as ``model(t, x)``."""

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.network(x, t)


class Denoiser(nn.Module):
    """A denoiser of ``data + sigma noise``, with what EDM's networks have besides."""

    img_channels, img_resolution, label_dim, sigma_min, sigma_max = *SHAPE[:2], 0, 0.0, float("inf")
    round_sigma = staticmethod(torch.as_tensor)

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.network, self.shift = mixture(fs.schedules.VE(200.0, rho=1.0), "data"), shift
        self.eval()

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Any = None) -> Tensor:
        return self.network(x, 1 - sigma.double().flatten() / 200) + self.shift


def load_flow_matching(names: dict[str, Any]) -> None:
    names |= {"ODESolver": importlib.import_module("flow_matching.solver").ODESolver, "net": Keywords()}


def load_torchcfm(names: dict[str, Any]) -> None:
    models = importlib.import_module("torchcfm.models")
    load_torchdiffeq(names)
    torch.manual_seed(0)
    net = models.MLP(dim=64, time_varying=True).eval()
    names |= {"net": net, "noise": NOISE.flatten(1)}


def load_torchdiffeq(names: dict[str, Any]) -> None:
    names |= {"odeint": importlib.import_module("torchdiffeq").odeint, "net": TimeFirst()}


def load_edm(names: dict[str, Any]) -> None:
    names |= {"edm_sampler": importlib.import_module("generate").edm_sampler, "net": Denoiser()}


def load_edm2(names: dict[str, Any]) -> None:
    sampler = importlib.import_module("generate_images").edm_sampler
    names |= {"edm_sampler": sampler, "net": Denoiser(), "gnet": Denoiser(0.2)}


def load_k_diffusion(names: dict[str, Any]) -> None:
    sampling = peers.k_diffusion_sampling()
    names |= {"sampling": sampling, "sigmas": sampling.get_sigmas_karras(6, 0.01, 80.0), "net": Denoiser()}


def load_dpm_solver(names: dict[str, Any]) -> None:
    module = importlib.import_module("dpm_solver_pytorch")
    network, ns = mixture(fs.schedules.VP(), "noise"), module.NoiseScheduleVP("linear")
    model_fn = module.model_wrapper(lambda x, t, _=None: network(x, 1 - t), ns, model_type="noise")
    names |= {"DPM_Solver": module.DPM_Solver, "ns": ns, "model_fn": model_fn}


#: A field of ours in the samplers of EDM and EDM2, which agree without autoguidance, and in our own loop.
IN_EDM = "samples = edm_sampler(flow.denoiser(), noise, num_steps=6)"
SAME_AS_EDM = """
    levels = fs.schedules.VE(80.0)
    grid = fs.grids.karras(6, levels)
    samples = fs.classical.edm_heun(grid=grid, schedule=levels).sample(flow.reschedule(levels), noise)
"""

FRAMEWORKS = [
    Framework(
        "flow_matching",
        load_flow_matching,
        theirs='samples = ODESolver(net).sample(noise, step_size=1 / 4, method="midpoint")',
        here="""
            field = fs.adapters.flow_matching.field(net, shape=(1, 8, 8))
            samples = fs.classical.midpoint(4).sample(field, noise)
        """,
        solver_there="samples = fs.adapters.flow_matching.ODESolver(net, solver).sample(noise)",
        field_there='samples = ODESolver(flow).sample(noise, step_size=1 / 4, method="midpoint")',
        same="samples = fs.classical.midpoint(4).sample(flow, noise)",
    ),
    Framework(
        "torchcfm",
        load_torchcfm,
        theirs="""
            def f(t, x):
                return net(torch.cat([x, t.expand(len(x))[:, None]], 1))
            samples = odeint(f, noise, torch.linspace(0, 1, 9), method="euler")[-1]
        """,
        here="""
            field = fs.adapters.torchcfm.field(net, concatenated=True)
            samples = fs.classical.euler(8).sample(field, noise)
        """,
    ),
    Framework(
        "torchdiffeq",
        load_torchdiffeq,
        theirs='samples = odeint(net, noise, torch.linspace(0, 1, 5), method="midpoint")[-1]',
        here="""
            field = fs.adapters.torchcfm.field(net)
            samples = fs.classical.midpoint(4).sample(field, noise)
        """,
        field_there="""
            grid = torch.linspace(0, 1, 5)
            samples = odeint(flow.time_first(), noise, grid, method="midpoint")[-1]
        """,
        same="samples = fs.classical.midpoint(4).sample(flow, noise)",
    ),
    Framework(
        "EDM",
        load_edm,
        theirs="samples = edm_sampler(net, noise, num_steps=6)",
        here="""
            field = fs.adapters.edm.field(net)
            grid = fs.grids.karras(6, field.schedule)
            samples = fs.classical.edm_heun(grid=grid, schedule=field.schedule).sample(field, noise)
        """,
        solver_there="samples = fs.adapters.edm.sampler(solver)(net, noise)",
        field_there=IN_EDM,
        same=SAME_AS_EDM,
    ),
    Framework(
        "EDM2, autoguidance",
        load_edm2,
        theirs="samples = edm_sampler(net, noise, gnet=gnet, guidance=2, num_steps=6)",
        here="""
            field = fs.adapters.edm.field(net, guidance=2, guide=gnet)
            grid = fs.grids.karras(6, field.schedule)
            samples = fs.classical.edm_heun(grid=grid, schedule=field.schedule).sample(field, noise)
        """,
        solver_there="samples = fs.adapters.edm.sampler(solver)(net, noise, gnet=gnet, guidance=2)",
        field_there=IN_EDM,
        same=SAME_AS_EDM,
    ),
    Framework(
        "k-diffusion",
        load_k_diffusion,
        theirs="samples = sampling.sample_dpmpp_2m(net, noise * sigmas[0], sigmas, disable=True)",
        here="""
            field = fs.adapters.k_diffusion.field(net, shape=(1, 8, 8))
            grid = fs.grids.sigmas(sigmas, field.schedule)
            samples = fs.classical.dpmpp("2M", grid=grid, schedule=field.schedule).sample(field, noise)
        """,
        solver_there="""
            sampler = fs.adapters.k_diffusion.sampler(solver)
            samples = sampler(net, noise * sampler.sigmas[0], sampler.sigmas)
        """,
        field_there="""
            samples = sampling.sample_dpmpp_2m(flow.denoiser(), noise * sigmas[0], sigmas, disable=True)
        """,
        same="""
            levels = fs.schedules.VE(80.0)
            grid = fs.grids.sigmas(sigmas, levels)
            dpmpp = fs.classical.dpmpp("2M", grid=grid, schedule=levels)
            samples = dpmpp.sample(flow.reschedule(levels), noise)
        """,
    ),
    Framework(
        "DPM-Solver",
        load_dpm_solver,
        theirs='samples = DPM_Solver(model_fn, ns).sample(noise, steps=8, order=2, method="multistep")',
        here="""
            field = fs.adapters.dpm_solver.field(model_fn, ns)
            grid = [0.999 * i / 8 for i in range(9)]
            dpmpp = fs.classical.dpmpp("2M", grid=grid, schedule=field.schedule, lower_order_final=True)
            samples = dpmpp.sample(field, field.initial_noise(noise))
        """,
    ),
]


def rows() -> Iterator[dict[str, Any]]:
    for framework in FRAMEWORKS:
        names: dict[str, Any] = {"fs": fs, "torch": torch, "noise": NOISE}
        try:
            framework.load(names)
        except ImportError as error:
            yield {"framework": framework.name, "missing": str(error)}
            continue
        names["flow"] = fs.Field(mixture(fs.schedules.CondOT(), "velocity"), shape=SHAPE, name="a flow")
        yield {"framework": framework.name, "missing": None, **measured(framework, names)}


@torch.no_grad()
def measured(framework: Framework, names: dict[str, Any]) -> dict[str, Any]:
    theirs = run(framework.theirs, names)
    found: dict[str, Any] = {"model_here": deviation(run(framework.here, names), theirs)}
    found["lines_here"] = lines(framework.here)
    if framework.solver_there is not None:
        field = names["field"]
        names["solver"] = fs.fit(field, nfe=6, pairs=32, seed=0).solver
        expected = names["solver"].sample(field, names["noise"])
        found["solver_there"] = deviation(run(framework.solver_there, names), expected)
        found["lines_solver"] = lines(framework.solver_there)
    if framework.field_there is not None:
        expected = run(framework.same, names)
        found["field_there"] = deviation(run(framework.field_there, names), expected)
        found["lines_field"] = lines(framework.field_there)
    return found


def run(snippet: str, names: dict[str, Any]) -> Tensor:
    exec(textwrap.dedent(snippet), names)
    return names["samples"]


def deviation(samples: Tensor, expected: Tensor) -> float:
    return float((samples - expected).abs().max() / expected.square().mean().sqrt())


def lines(snippet: str) -> int:
    return sum(bool(line.strip()) for line in snippet.splitlines())


def cells(row: dict[str, Any]) -> list[str]:
    if row["missing"] is not None:
        return [row["framework"], "not installed", *[""] * 5]
    marks = [row["framework"]]
    for kind, count in (("model_here", "here"), ("solver_there", "solver"), ("field_there", "field")):
        marks += (
            [f"{row[kind]:.0e}" if row[kind] else "0", str(row[f"lines_{count}"])]
            if kind in row
            else ["-", ""]
        )
    return marks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--snippets", action="store_true", help="print the code that was run, too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file, too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore", FutureWarning)
    head = ["framework", "their model here", "lines", "our solver there", "lines", "our field there", "lines"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    found = []
    for row in rows():
        print("| " + " | ".join(cells(row)) + " |", flush=True)
        found.append(row)
    if args.snippets:
        for framework in FRAMEWORKS:
            parts = (framework.here, framework.solver_there, framework.field_there)
            print(f"\n{framework.name}\n")
            print("\n\n".join(textwrap.dedent(part).strip() for part in parts if part is not None))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
