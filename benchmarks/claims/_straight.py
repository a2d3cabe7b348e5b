"""Claims of Fast-ODE: curvature, truncation error and quality by beta, and distillation."""

from __future__ import annotations

from pathlib import Path

import torch
from plane_couplings import CALLS, coupled, paths, study, train
from planes import PLANES, Plane

import fewstep as fs
from fewstep.flows import Coupling, FlowMatching, Independent, Learned, Settings, Trainer
from fewstep.models import load_field, load_network
from fewstep.networks import MLP, GaussianEncoder

from ._claim import FAST_ODE, TEST_SEED, Measured, Row, Size, claim, distance, task
from ._uses import distilled

BETAS = (2, 20)
VIEWS, NOISES = "straight-paths.png", "encoder-noises.png"


@claim(
    "beta-plane",
    "In the plane, a learned coupling straightens the paths, more so with a small beta",
    published="at 3 calls only the learned coupling reaches the data; beta 10, for the tree 1",
    source=f"{FAST_ODE}, Figure 1 and section 5",
    remark="The price is the distance of exact samples to the data, which is larger with the small beta: its "
    "noises are not N(0, I), as the second figure shows",
    figures=(VIEWS, NOISES),
)
def beta_plane(size: Size) -> Measured:
    """Train flows in the plane.

    Flows in the plane of 1,500 steps of 512, on two Gaussians (beta 5 and 20) and on a checkerboard and
    a tree (beta 1 and 5: their noise is N(0, I) and their scale one). Curvature on Euler paths of 128
    steps, RMSE of Euler's calls to the exact solution, and the exact Wasserstein distance of 600 exact
    samples to the data; *data* is that of two sets of data. benchmarks/plane_couplings.py
    has longer trainings.
    """
    straighter, costs = [], []
    betas = {"gaussians": (5, 20), "checkerboard": (1, 5), "tree": (1, 5)}
    chosen = {data: betas[data] for data in size.few(*betas)}
    for data in chosen:
        names = ("independent", *(f"learned-{beta:g}" for beta in chosen[data]))
        out, count = size.runs / data, 100 if size.quick else 600
        rows = study(PLANES[data], names, out, size.steps, count, 1)
        floor = rows["two sets of data"]["W2"][0]
        base = rows["independent"]
        for name in names:
            mean = {key: value for key, (value, _) in rows[name].items()}
            figures = {"curvature": mean["curvature"]}
            figures |= {f"{n} calls": mean[f"rmse {n}"] for n in CALLS}
            holds = None if name == "independent" else mean["curvature"] < base["curvature"][0]
            yield Row(f"{data}, {name}", {**figures, "W2": mean["W2"], "data": floor}, holds)
        curvatures = [rows[name]["curvature"][0] for name in names[1:]]
        straighter.append(curvatures == sorted(curvatures))
        least = rows[names[1]]
        costs.append(
            f"{data}: beta {chosen[data][0]:g} has {least['curvature'][0] / base['curvature'][0]:.3f} of the "
            f"independent curvature, and W2 {least['W2'][0]:.2f} against {base['W2'][0]:.2f}"
        )
    if size.figures:
        _draw_paths(size, chosen, size.figures / VIEWS)
        _draw_noises(size, chosen, size.figures / NOISES)
    return f"curvature grows with beta on {sum(straighter)} of {len(straighter)} data sets; " + "; ".join(
        costs
    )


def _draw_paths(size: Size, chosen: dict[str, tuple[float, ...]], path: Path) -> None:
    """Draw exact paths and Euler's with 3 calls, of the independent coupling and of one that is learned."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(11, 2.7 * len(chosen)), layout="constrained")
    panels = picture.subplots(len(chosen), 4, squeeze=False)
    for row, (data, betas) in zip(panels, chosen.items(), strict=True):
        plane = PLANES[data]
        noise = fs.noise(150, (2,), seed=TEST_SEED)
        for k, name in enumerate(("independent", f"learned-{betas[0]:g}")):
            field = load_field(size.runs / data / name / "flow.safetensors")
            for axes, calls in zip(row[2 * k : 2 * k + 2], (64, 3), strict=True):
                states = paths(field, plane, noise, calls).states
                axes.scatter(*plane.draw(1500, 1).T, s=1, color="0.82", linewidths=0)
                for states_of_one in states.unbind(1):
                    axes.plot(*states_of_one.T, linewidth=0.5, color="#2a6f97", alpha=0.4)
                axes.scatter(*states[0].T, s=3, color="0.5", linewidths=0, zorder=3)
                axes.scatter(*states[-1].T, s=6, color="#c8553d", linewidths=0, zorder=4)
                axes.set_title(f"{name}, {calls} calls", fontsize=9)
                axes.set(xticks=[], yticks=[], aspect="equal")
                axes.spines[:].set_color("0.8")
    picture.savefig(path, dpi=90)


def _draw_noises(size: Size, chosen: dict[str, tuple[float, ...]], path: Path) -> None:
    """Draw the data, coloured by place, and the noises that encoders give them."""
    from matplotlib.figure import Figure

    most = max(len(betas) for betas in chosen.values())
    picture = Figure(figsize=(2.6 * (most + 1), 2.6 * len(chosen)), layout="constrained")
    panels = picture.subplots(len(chosen), most + 1, squeeze=False)
    for row, (data, betas) in zip(panels, chosen.items(), strict=True):
        x1 = PLANES[data].draw(3000, 1)
        colour = torch.atan2(x1[:, 1] - x1[:, 1].mean(), x1[:, 0] - x1[:, 0].mean())
        _cloud(row[0], x1, colour, f"{data}: data")
        for axes, beta in zip(row[1:], betas, strict=True):
            noises = _encoded(size.runs / data / f"learned-{beta:g}", PLANES[data], x1)
            _cloud(axes, noises, colour, f"noises, beta {beta:g}")
            ring = torch.linspace(0, 2 * torch.pi, 100)
            for k in (1, 2):
                axes.plot(k * ring.cos(), k * ring.sin(), color="0.4", linewidth=0.7, linestyle=":")
    picture.savefig(path, dpi=90)


def _encoded(run: Path, plane: Plane, x1: torch.Tensor) -> torch.Tensor:
    encoder = load_network(run / "encoder.safetensors")
    with torch.no_grad():
        mean, logvar = encoder(x1 / plane.noise_std)
        return mean + (logvar / 2).exp() * fs.noise(len(x1), (2,), seed=TEST_SEED)


def _cloud(axes, points: torch.Tensor, colour: torch.Tensor, title: str) -> None:
    axes.scatter(*points.T, s=2, c=colour, cmap="twilight", linewidths=0)
    axes.set_title(title, fontsize=9)
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_color("0.8")


def digits_flow(beta: float | None, size: Size) -> fs.Field:
    """Train the digits flow with an independent or a learned coupling; settings of recipes/digits.py."""
    torch.manual_seed(0)
    flow = MLP((1, 8, 8), width=256, blocks=3)
    coupling: Coupling = Independent()
    if beta is not None:
        coupling = Learned(GaussianEncoder(MLP((1, 8, 8), width=128, blocks=1, out_channels=2)), beta=beta)
    settings = Settings(
        steps=size.steps, batch=256, lr=2e-3, warmup=200, decay="cosine", ema=(128_000,), page_every=0
    )
    out = size.runs / ("digits-independent" if beta is None else f"digits-learned-{beta:g}")
    data = fs.data.load("digits")
    trainer = Trainer(FlowMatching(flow, coupling), data, settings, out=out, device="cpu", progress=False)
    return fs.Field(trainer.run(), shape=(1, 8, 8), name=out.name)


@claim(
    "beta-digits",
    "A small beta is best at few calls, a large one at many",
    published="FFHQ-64, FID at 4, 5, 20, 128 calls: beta 10: 32.6, 25.3, 8.9, 7.0; "
    "beta 20: 38.2, 29.1, 8.8, 5.7; beta 30: 41.2, 30.8, 8.8, 4.9",
    source=f"{FAST_ODE}, as MixFlow quotes it",
    remark="The crossing lies between 16 calls of Euler and the exact samples, where beta 2 is worse than no "
    "coupling, and beta 20 the best: what straightens also takes the noises away from N(0, I)",
)
def beta_digits(size: Size) -> Measured:
    """Train digits flows.

    Digits flows of 1,500 steps of 256 with each coupling. Curvature on Euler paths of 128 steps; RMSE of
    Euler's 4 calls; distance to the digits of 1,024 samples by Euler's method with 2, 4 and 16 calls and
    of exact ones.
    """
    far, curvatures = {}, []
    for beta in (None, *size.few(*BETAS)):
        field = digits_flow(beta, size)
        noises = fs.noise(64 if size.quick else 1024, field.shape or (), seed=TEST_SEED)
        some = noises[: size.test]
        exact = fs.reference.pairs(field, noises, rtol=1e-4, atol=1e-4).x1
        x1 = {n: fs.classical.euler(n).sample(field, noises) for n in (2, 4, 16)}
        path = fs.classical.euler(128).sample(field, some, trajectory=True)
        name = "independent" if beta is None else f"beta {beta:g}"
        figures = {"curvature": fs.metrics.curvature(path).mean().item()}
        figures["RMSE, 4"] = fs.metrics.rmse(x1[4], exact).item()
        far[name] = {f"distance, {n}": distance(x) for n, x in x1.items()} | {"exact": distance(exact)}
        curvatures.append(figures["curvature"])
        yield Row(name, {**figures, **far[name]}, None if beta is None else curvatures[-1] < curvatures[0])
    best = {key: min(far, key=lambda name: far[name][key]) for key in next(iter(far.values()))}
    return (
        "least distance: "
        + ", ".join(f"{key.removeprefix('distance, ')} {name}" for key, name in best.items())
        + (" (numbers are calls)")
    )


@claim(
    "straight-mnist",
    "With a learned coupling Euler's method at 4 calls has about 0.6 times the error",
    published="MNIST at 4 calls: .051 against .086 (0.59 times), read off the figure",
    source=f"{FAST_ODE}, Figure 1",
)
def straight_mnist(size: Size) -> Measured:
    """Compare two flows on MNIST.

    The bundled flows on MNIST, independent and with a learned coupling (beta 5), which was trained for
    3,000 steps instead of 16,000. Euler's method, 32 evaluation noises; curvature on paths of 32 steps.
    """
    rows = {}
    for model in ("mnist", "mnist-straight"):
        one = task(model, 4, min(size.test, 32))
        path = fs.classical.euler(2 if size.quick else 32).sample(one.field, one.test.x0, trajectory=True)
        errors = {f"{n} calls": one.rmse(fs.classical.euler(n)) for n in size.few(4, 8)}
        rows[model] = {"curvature": fs.metrics.curvature(path).mean().item(), **errors}
        yield Row(model, rows[model])
    ratio = rows["mnist-straight"]["4 calls"] / rows["mnist"]["4 calls"]
    yield Row(
        "ratio",
        {key: value / rows["mnist"][key] for key, value in rows["mnist-straight"].items()},
        ratio < 0.7,
    )
    return f"{ratio:.2f} times at 4 calls"


@claim(
    "distilled-flows",
    "The straighter the flow, the smaller the error of its one-step student",
    published="lower curvature makes less distillation error (no table)",
    source=f"{FAST_ODE}, section 5",
)
def distilled_flows(size: Size) -> Measured:
    """Distil flows of several curvatures.

    Flows in the plane and digits flows of the two claims above. The student has one call, starts from
    the flow, and is trained by Adam (rate 1e-3, cosine decay) on 2,048 pairs for 600 steps of 128.
    RMSE on the evaluation noises against the teacher's exact samples, and over the standard deviation of
    these.
    """
    held, said = [], []
    teachers = {
        f"digits, {'independent' if b is None else f'beta {b:g}'}": b for b in (None, *size.few(*BETAS))
    }
    for kind in size.few("digits", "gaussians"):
        errors, curvatures = [], []
        for name, field in _teachers(kind, teachers, size).items():
            count = 64 if size.quick else 2048
            train_on, test = (
                fs.reference.pairs(field, fs.noise(n, field.shape or (), seed=seed), rtol=1e-5, atol=1e-5)
                for n, seed in ((count, 0), (size.test, TEST_SEED))
            )
            path = fs.classical.euler(64).sample(field, test.x0, trajectory=True)
            curvatures.append(fs.metrics.curvature(path).mean().item())
            one_call = fs.classical.euler(1)
            plain = fs.metrics.rmse(one_call.sample(field, test.x0), test.x1).item()
            fit_on, held_out = train_on.split(len(train_on) // 8)
            student, _ = distilled(
                field, one_call, fit_on, held_out, 1e-3, 5 if size.quick else 600, batch=128
            )
            errors.append(fs.metrics.rmse(one_call.sample(student, test.x0), test.x1).item())
            share = errors[-1] / test.x1.std().item()
            figures = {
                "curvature": curvatures[-1],
                "Euler, 1 call": plain,
                "student": errors[-1],
                "of the deviation": share,
            }
            yield Row(name, figures)
        order = sorted(range(len(errors)), key=lambda k: curvatures[k])
        held.append([errors[k] for k in order] == sorted(errors))
        said.append(f"{kind}: from {max(errors):.3f} to {min(errors):.3f}")
    return f"the order of errors is that of curvatures on {sum(held)} of {len(held)} data sets; " + "; ".join(
        said
    )


def _teachers(kind: str, digits: dict[str, float | None], size: Size) -> dict[str, fs.Field]:
    if kind == "digits":
        return {name: digits_flow(beta, size) for name, beta in digits.items()}
    plane, names = PLANES[kind], ("independent", "learned-5", "learned-20")
    return {
        f"{kind}, {name}": train(plane, coupled(name, plane), size.runs / kind / name, size.steps)
        for name in names
    }
