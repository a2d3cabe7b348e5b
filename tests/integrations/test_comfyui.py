"""The node folder of ComfyUI in stand-ins of it: samples against our own loop, masks, refusals, workflows."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import comfyui_stand_ins as comfy
import pytest
import torch

import fewstep as fs
from fewstep.adapters import comfyui
from fewstep.fitting import GaussNewton

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui" / "fewstep"
SHAPE = (4, 6, 6)
NOISE = fs.noise(2, SHAPE, seed=0)
EMPTY = torch.zeros_like(NOISE)
FEW = {"pairs": 8, "optimizer": GaussNewton(2, last_steps=0)}
STABLE_DIFFUSION = fs.schedules.DDPM("scaled_linear", 0.00085, 0.012)
S = fs.schedules


class Network(torch.nn.Module):
    """Two convolutions that see the time, and a prompt."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        draw = lambda *shape: torch.nn.Parameter(0.2 * torch.randn(shape, generator=generator))  # noqa: E731
        self.first, self.last, self.scale = draw(8, 4, 3, 3), draw(4, 8, 3, 3), draw(8)

    def forward(self, x, time, prompt=0.0):
        angle = time.reshape(-1, 1).to(x) / 300 + self.scale
        h = torch.nn.functional.conv2d(x, self.first, padding=1) + angle.sin()[:, :, None, None] + prompt
        return 0.6 * x + torch.nn.functional.conv2d(h.tanh(), self.last, padding=1)


NETWORK = Network().eval().requires_grad_(False)


def minus(x, t, **conditions):
    return -NETWORK(x, t, **conditions)


class Case:
    """A kind of model: our field of the network, and ComfyUI's MODEL."""

    def __init__(self, field, states, levels, **options):
        self.field, self.sampling = field, comfy.model_sampling(states, levels, **options)
        self.model = comfy.Model(NETWORK, self.sampling)

    @property
    def schedule(self):
        return self.field.schedule


def table_field(prediction, schedule=STABLE_DIFFUSION):
    return fs.Field(NETWORK, schedule, prediction, clock="integer", shape=SHAPE, name="tiny")


EDM_FIELD = fs.adapters.edm.field(
    fs.adapters.edm.Preconditioned(NETWORK, 1.0).eval(), sigma_min=1e-4, sigma_max=120.0, shape=SHAPE
)
ZERO = S.DDPM("scaled_linear", 0.00085, 0.012, zero_terminal_snr=True)
FLOW = fs.Field(minus, S.CondOT(), "velocity", clock=(1000, 0), shape=SHAPE, name="tiny")
CASES = {
    "eps": Case(table_field("noise"), comfy.EPS, comfy.DiscreteLevels),
    "v": Case(table_field("v"), comfy.V, comfy.DiscreteLevels),
    "v, zero terminal SNR": Case(
        table_field("v", ZERO), comfy.V, comfy.DiscreteLevels, zero_terminal_snr=True
    ),
    "flow": Case(FLOW, comfy.CONST, comfy.FlowLevels),
    "flow, shift 3": Case(FLOW, comfy.CONST, comfy.FlowLevels, shift=3.0),
    "edm": Case(EDM_FIELD, comfy.EDM, comfy.ContinuousLevels),
}


def solvers(case):
    """Classical solvers of one and several calls a step, and tables of both kinds with fitted numbers."""
    return [
        fs.classical.dpmpp("2M", 5, schedule=case.schedule),
        fs.classical.edm_heun(3, schedule=case.schedule),
        replace(fs.classical.midpoint(3), fitted_for=case.field.describe()),
        *[as_if_fitted(case.field, 4, family) for family in ("non_stationary", "timesteps")],
    ]


def as_if_fitted(field, nfe, name):
    """A solver of a family, with random numbers, that names its field."""
    family = fs.families.FAMILIES[name]((nfe,), None, field)
    theta = 0.05 * torch.randn(family.size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return family.solver(theta, fitted_for=field.describe())


@pytest.fixture
def nodes(monkeypatch, tmp_path):
    """The node folder, loaded as ComfyUI loads it; solver files go into ``nodes.folder``."""
    comfy.installed(monkeypatch, tmp_path / "models")
    name = "custom_nodes_x_fewstep"
    spec = importlib.util.spec_from_file_location(
        name, FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    module.folder = tmp_path / "models" / "fewstep"
    module.folder.mkdir(parents=True)
    module.node = module.nodes.FewStepSolver
    yield module
    del sys.modules[f"{name}.nodes"]


def deviation(found, expected):
    return float((found - expected).abs().max() / expected.square().mean().sqrt())


def run(nodes, solver, model, **options):
    solver.save(nodes.folder / "solver.json")
    return nodes.node.execute(model, "solver.json", **options).result


@pytest.mark.parametrize("name", CASES)
def test_samples_are_those_of_our_loop(nodes, name):
    case, worst = CASES[name], 0.0
    for solver in solvers(case):
        sampler, sigmas = run(nodes, solver, case.model)
        assert len(sigmas) == solver.nfe + 1
        samples = comfy.Guider(case.model).sample(NOISE, EMPTY, sampler, sigmas)
        worst = max(worst, deviation(samples, solver.sample(case.field, NOISE)))
    print(f"ComfyUI, {name}: {worst:.1e}")
    assert worst < 5e-5


def test_a_field_that_does_not_round_its_timesteps_differs(nodes):
    """So a solver for ComfyUI is fitted with ``clock="integer"``."""
    case, solver = CASES["eps"], as_if_fitted(CASES["eps"].field, 4, "non_stationary")
    samples = comfy.Guider(case.model).sample(NOISE, EMPTY, *run(nodes, solver, case.model))
    unrounded = fs.Field(NETWORK, STABLE_DIFFUSION, "noise", shape=SHAPE, name="tiny")
    found = deviation(samples, solver.sample(unrounded, NOISE))
    print(f"ComfyUI, eps, against timesteps that are not rounded: {found:.1e}")
    assert found > 1e-4


@pytest.mark.parametrize("name", ["eps", "v, zero terminal SNR", "flow"])
def test_a_classical_table_of_velocities_takes_the_models_schedule(nodes, name):
    case, solver = CASES[name], fs.classical.midpoint(3)
    samples = comfy.Guider(case.model).sample(NOISE, EMPTY, *run(nodes, solver, case.model))
    # ComfyUI keeps its table in float32.
    assert deviation(samples, solver.sample(case.field, NOISE)) < 2e-4


def test_guidance_is_comfyuis(nodes):
    """``cfg`` mixes what is denoised, as our field mixes predictions."""
    case = CASES["eps"]
    options = {"guidance": 3.0, "unconditional": {"prompt": -1.0}}
    field = fs.Field(NETWORK, STABLE_DIFFUSION, "noise", clock="integer", shape=SHAPE, **options)
    solver = as_if_fitted(field, 4, "timesteps")
    sampler, sigmas = run(nodes, solver, case.model)
    guider = comfy.Guider(case.model, 3.0, {"prompt": 1.0}, {"prompt": -1.0})
    expected = solver.sample(field, NOISE, prompt=1.0)
    assert deviation(guider.sample(NOISE, EMPTY, sampler, sigmas), expected) < 5e-5


@pytest.mark.parametrize("name", ["eps", "flow, shift 3"])
def test_denoise_enters_later(nodes, name):
    """The calls that remain, by DPM-Solver++ 2M, from the image noised to the first of their levels."""
    case = CASES[name]
    solver = fs.classical.midpoint(4)
    image = torch.full_like(NOISE, 0.3)
    sampler, sigmas = run(nodes, solver, case.model, denoise=0.6)
    assert len(sigmas) == 1 + 5
    samples = comfy.Guider(case.model).sample(NOISE, image, sampler, sigmas)
    rest = fs.classical.dpmpp("2M", grid=[*solver.times[3:], 1.0], schedule=case.schedule)
    alpha, sigma = (float(c) for c in case.schedule(solver.times[3])[:2])
    start = (alpha * image + sigma * NOISE) / float(case.schedule(0.0).sigma)
    assert deviation(samples, rest.sample(case.field, start)) < 5e-5
    assert len(run(nodes, solver, case.model, denoise=0.01)[1]) == 1 + 1
    sampler, sigmas = run(nodes, solver, case.model, denoise=0.0)
    assert torch.equal(comfy.Guider(case.model).sample(NOISE, image, sampler, sigmas), image)


@pytest.mark.parametrize("name", ["eps", "v, zero terminal SNR", "flow", "edm"])
def test_inpainting(nodes, name):
    """The kept part is the image, and the rest that of many steps of ComfyUI's own Euler."""
    case = CASES[name]
    image = fs.noise(2, SHAPE, seed=5)
    mask = torch.ones_like(image)
    mask[..., :3] = 0
    mask[..., 3] = 0.5
    guider = comfy.Guider(case.model)
    solver = fs.classical.dpmpp("2M", 60, schedule=case.schedule)
    _, sigmas = run(nodes, fs.classical.ddim(200, schedule=case.schedule), case.model)
    exact = guider.sample(NOISE, image, comfy.KSAMPLER(comfy.euler), sigmas, mask)
    free = guider.sample(NOISE, image, comfy.KSAMPLER(comfy.euler), sigmas)
    errors = {}
    for one in (solver, as_if_fitted(case.field, 8, "non_stationary")):
        samples = guider.sample(NOISE, image, *run(nodes, one, case.model), mask)
        torch.testing.assert_close(samples[..., :3], image[..., :3], rtol=0, atol=5e-4)
        errors[one.nfe] = float((samples - exact)[..., 3:].square().mean().sqrt())
    changed = float((free - exact)[..., 3:].square().mean().sqrt())
    assert errors[60] < 0.15 * changed


def test_a_mask_costs_a_fitted_solver_no_accuracy(nodes):
    """RMSE to 400 steps in the part that is drawn anew, beside that of DPM-Solver++ 2M."""
    case, image, mask = CASES["flow"], fs.noise(2, SHAPE, seed=5), torch.ones_like(NOISE)
    mask[..., :3] = 0
    fitted = fs.fit(case.field, 8, pairs=24, optimizer=GaussNewton(10, last_steps=0)).solver
    fine, classical = (fs.classical.dpmpp("2M", n, schedule=case.schedule) for n in (400, 8))
    guider = comfy.Guider(case.model)
    exact, *samples = (
        guider.sample(NOISE, image, *run(nodes, solver, case.model), mask)
        for solver in (fine, fitted, classical)
    )
    table = comfyui.sampler(fitted, case.sampling).sampler
    plain = comfy.KSAMPLER(lambda model, x, sigmas, **options: table(model, x, **options))
    spoilt = guider.sample(NOISE, image, plain, table.sigmas, mask)
    rms = lambda part: float(part.square().mean().sqrt())  # noqa: E731
    ours, theirs = (rms((each - exact)[..., 3:]) for each in samples)
    kept, before = (rms((each - image)[..., :3]) for each in (samples[0], spoilt))
    print(f"ComfyUI, mask, 8 calls: fitted {ours:.1e}, DPM-Solver++ 2M {theirs:.1e}")
    print(f"ComfyUI, mask, kept part: {kept:.1e}, by the table alone {before:.1e}")
    assert ours < 0.2 * theirs
    assert kept < 1e-5 < before


@pytest.mark.parametrize("name", ["eps", "flow", "edm"])
@pytest.mark.parametrize("denoise", [1.0, 0.5])
def test_soft_masks(nodes, name, denoise):
    """All is linear for a network that looks at the time only: states and samples mix with the image."""
    case, seen = CASES[name], []

    class Model(comfy.BaseModel):
        def apply_model(self, x, sigma, **conditions):
            seen.append((x, sigma[0]))
            return torch.ones_like(x) * (1 + sigma.log1p().sin()).reshape(-1, 1, 1, 1)

    model = comfy.Model(NETWORK, case.sampling)
    model.model = Model(NETWORK, case.sampling)
    image, mask = (
        fs.noise(2, SHAPE, seed=5),
        torch.rand(SHAPE[1:], generator=torch.Generator().manual_seed(2)),
    )
    mask = mask.expand_as(image)
    solver = as_if_fitted(case.field, 4, "non_stationary")
    runs = []
    for each in (None, mask):
        sampler, sigmas = run(nodes, solver, model, denoise=denoise)
        runs.append((comfy.Guider(model).sample(NOISE, image, sampler, sigmas, each), seen.copy()))
        seen.clear()
    (free, states), (samples, masked) = runs
    torch.testing.assert_close(samples, mask * free + (1 - mask) * image, rtol=1e-4, atol=1e-4)
    for (state, level), (found, _) in zip(states, masked, strict=True):
        noised = case.sampling.noise_scaling(level, NOISE, image)
        # ComfyUI mixes once more.
        expected = mask**2 * state + (1 - mask**2) * noised
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * max(1, float(level)))


def test_masks_that_change_between_calls(nodes):
    """``DifferentialDiffusion`` is refused with solvers that would spoil what is kept."""
    case, image, mask = CASES["eps"], fs.noise(2, SHAPE, seed=5), torch.rand_like(NOISE)

    class Guider(comfy.Guider):
        def sample(self, solver):
            sampler, sigmas = run(nodes, solver, case.model)
            extra = {
                "model_options": {
                    "denoise_mask_function": lambda sigma, mask, extra_options: (mask > 0.5) * 1.0
                }
            }
            return sampler.sample(self, sigmas, extra, None, NOISE, image, mask, True)

    samples = Guider(case.model).sample(fs.classical.dpmpp("2M", 4, schedule=case.schedule))
    torch.testing.assert_close(samples[mask <= 0.5], image[mask <= 0.5], rtol=1e-4, atol=1e-4)
    with pytest.raises(
        ValueError, match=r"is not exact where a mask keeps the image .*DifferentialDiffusion"
    ):
        Guider(case.model).sample(as_if_fitted(case.field, 4, "non_stationary"))


def test_a_mask_when_the_sample_is_not_pure_data(nodes):
    """A solver that ends before: the kept part is the image at the last level, which ComfyUI scales back."""
    case = CASES["flow"]
    solver = fs.classical.dpmpp("2M", grid=[0.0, 0.4, 0.8], schedule=case.schedule)
    image, mask = fs.noise(2, SHAPE, seed=5), torch.zeros_like(NOISE)
    samples = comfy.Guider(case.model).sample(NOISE, image, *run(nodes, solver, case.model), mask)
    torch.testing.assert_close(samples, image + 0.25 * NOISE)


def test_every_call_is_heard(nodes):
    case, seen = CASES["flow"], []
    sampler, sigmas = run(nodes, fs.classical.midpoint(2), case.model)
    callback = lambda i, denoised, x, total: seen.append((i, tuple(denoised.shape), tuple(x.shape), total))  # noqa: E731
    comfy.Guider(case.model).sample(NOISE, EMPTY, sampler, sigmas, callback=callback)
    assert seen == [(i, NOISE.shape, NOISE.shape, 4) for i in range(4)]


def test_the_first_level_stays_below_that_of_which_comfyui_scales_noise_differently(nodes):
    for name in ("eps", "v, zero terminal SNR", "edm"):
        case = CASES[name]
        _, sigmas = run(nodes, fs.classical.dpmpp("2M", 4, schedule=case.schedule), case.model)
        assert 1 - 3e-5 < float(sigmas[0] / case.sampling.sigma_max) < 1 - 1e-5
    assert float(run(nodes, fs.classical.euler(2), CASES["flow"].model)[1][0]) == 1


class TestFiles:
    @pytest.fixture
    def several(self):
        """Solvers for several numbers of calls and scales of guidance."""
        options = {"guidance": 2.0, "unconditional": {"prompt": -1.0}, "shape": SHAPE, "name": "tiny"}
        field = fs.Field(minus, S.CondOT(), "velocity", clock=(1000, 0), **options)
        return fs.fit(field, (2, 3), guidance=(1, 2), conditions={"prompt": 1.0}, **FEW)

    def test_numbers_of_calls_and_scales(self, nodes, several, caplog):
        several.save(nodes.folder / "fit.json")
        model = CASES["flow"].model
        caplog.set_level("INFO")
        _, sigmas = nodes.node.execute(model, "fit.json", nfe=3, guidance=1.5).result
        assert len(sigmas) == 4
        expected = comfyui.sampler(several.at(3, 1.5), model.get_model_object("model_sampling"))
        assert torch.equal(sigmas, expected.sigmas)
        assert "3 network calls, fitted for guidance 1.5: set cfg 1.5" in caplog.text
        for options, said in (
            ({"guidance": 2.0}, "there are solvers of 2 and 3 calls; choose with nfe."),
            ({"nfe": 3}, "there are solvers for the guidance scales 1 to 2; choose with guidance."),
            ({"nfe": 1, "guidance": 2.0}, "nfe=1 is below the least number of calls fitted, 2"),
            ({"nfe": 2, "guidance": 9.0}, "guidance"),
        ):
            with pytest.raises(ValueError, match=re.escape(said)):
                nodes.node.execute(model, "fit.json", **options)

    def test_the_only_solver_needs_no_choice(self, nodes):
        fit = fs.fit(FLOW, (2,), **FEW)
        fit.save(nodes.folder / "fit.json")
        model = CASES["flow"].model
        assert len(nodes.node.execute(model, "fit.json").result[1]) == 3
        with pytest.raises(ValueError, match="this fit has one solver, of 2 calls"):
            nodes.node.execute(model, "fit.json", nfe=4)
        fit.solver.save(nodes.folder / "solver.json")
        assert len(nodes.node.execute(model, "solver.json", nfe=2, guidance=1.0).result[1]) == 3
        for options, said in (({"nfe": 4}, "nfe is 2, not 4"), ({"guidance": 3.0}, "guidance is 1, not 3")):
            with pytest.raises(ValueError, match=said):
                nodes.node.execute(model, "solver.json", **options)

    def test_what_is_no_solver(self, nodes):
        (nodes.folder / "other.json").write_text("{}")
        with pytest.raises(ValueError, match=r"other.json: not a solver file"):
            nodes.node.execute(CASES["flow"].model, "other.json")
        with pytest.raises(
            FileNotFoundError, match=r"solver: there is no file 'gone.json' in .*; put it there."
        ):
            nodes.node.execute(CASES["flow"].model, "gone.json")
        assert nodes.node.fingerprint_inputs(solver="gone.json", model=None) is None

    def test_a_changed_file_is_read_again(self, nodes):
        path = nodes.folder / "solver.json"
        fs.classical.euler(2).save(path)
        before = nodes.node.fingerprint_inputs(solver="solver.json", model=None, nfe=0)
        os.utime(path, (1, 1))
        assert nodes.node.fingerprint_inputs(solver="solver.json", model=None, nfe=0) != before


class TestOtherModels:
    """A solver and a MODEL that do not go together."""

    @pytest.mark.parametrize(
        ("solver", "model", "said"),
        [
            (fs.classical.ddim(2, schedule=STABLE_DIFFUSION), "flow", "starts at noise level 0.93"),
            (
                fs.classical.ddim(2, schedule=STABLE_DIFFUSION),
                "edm",
                "which has timesteps, but this MODEL has none",
            ),
            (
                fs.classical.ddim(2, schedule=ZERO),
                "eps",
                "other noise levels at its 1000 timesteps, up to 14.6146",
            ),
            (
                fs.classical.ddim(2, schedule=S.DDPM(steps=100)),
                "eps",
                "with 100 timesteps, but this MODEL has 1000",
            ),
            (
                fs.classical.ddim(2, schedule=S.CondOT()),
                "eps",
                "starts at noise level inf, but this MODEL at 14.6",
            ),
            (
                fs.classical.ddim(2, schedule=S.VE(500.0)),
                "edm",
                "starts at noise level 500, but this MODEL at 120",
            ),
            (fs.classical.euler(2), "edm", "names no schedule, and this MODEL has noise levels up to 120"),
        ],
        ids=lambda value: value if isinstance(value, str) else getattr(value, "name", ""),
    )
    def test_are_refused(self, nodes, solver, model, said):
        with pytest.raises(ValueError, match=re.escape(said)) as error:
            run(nodes, solver, CASES[model].model)
        assert str(error.value).startswith(f"comfyui: solver {solver.name!r} ")
        assert "\n" not in str(error.value)

    def test_the_field_of_a_fit_counts(self, nodes):
        """A table of velocities names no schedule, but its field has one."""
        solver = as_if_fitted(CASES["v, zero terminal SNR"].field, 2, "scale_time")
        with pytest.raises(ValueError, match="other noise levels at its 1000 timesteps"):
            run(nodes, solver, CASES["eps"].model)

    def test_fewer_levels_of_a_continuous_model(self, nodes):
        assert len(run(nodes, fs.classical.ddim(2, schedule=S.VE(80.0)), CASES["edm"].model)[1]) == 3

    def test_other_states_are_refused(self, nodes):
        sampling = comfy.model_sampling(comfy.CONST, comfy.FlowLevels)
        sampling.noise_scale = 2.0
        with pytest.raises(ValueError, match=r"at sigma 0\.5 this MODEL has the states 1 noise"):
            run(nodes, fs.classical.euler(2), comfy.Model(NETWORK, sampling))

    def test_other_levels_than_the_nodes(self, nodes):
        """SIGMAS of another node, or the first half of ours."""
        sampler, sigmas = run(nodes, fs.classical.euler(4), CASES["flow"].model)
        for other in (torch.linspace(1, 0, 9), sigmas[:3], sigmas.flip(0)):
            with pytest.raises(ValueError, match=r"sigmas must be its own levels, \[1.0, 0.75, .* not"):
                comfy.Guider(CASES["flow"].model).sample(NOISE, EMPTY, sampler, other)

    def test_denoise_is_a_share(self, nodes):
        with pytest.raises(ValueError, match=r"denoise must be in \[0, 1\], not 1.5"):
            run(nodes, fs.classical.euler(4), CASES["flow"].model, denoise=1.5)


class TestFolder:
    def test_the_extension_lists_the_node(self, nodes):
        extension = asyncio.run(nodes.comfy_entrypoint())
        assert asyncio.run(extension.get_node_list()) == [nodes.node]

    def test_the_list_has_the_solver_files(self, nodes):
        (nodes.folder / "notes.txt").write_text("")
        (nodes.folder / "more").mkdir()
        for name in ("b.json", "more/a.json"):
            fs.classical.euler(1).save(nodes.folder / name)
        schema = nodes.node.define_schema()
        found = {each.id: each for each in schema.inputs}
        assert found["solver"].options["options"] == ["b.json", os.path.join("more", "a.json")]
        assert [each.io_type for each in schema.outputs] == ["SAMPLER", "SIGMAS"]

    def test_its_settings(self):
        """The registry takes no name with "ComfyUI" in it, and installs what is listed."""
        text = (FOLDER / "pyproject.toml").read_text(encoding="utf-8")
        facts = dict(re.findall(r"^(\w+) = (.*)$", text, flags=re.MULTILINE))
        assert facts["version"] == f'"{fs.__version__}"'
        assert facts["dependencies"] == '["fewstep"]'
        assert "comfyui" not in (facts["name"] + facts["DisplayName"]).lower()
        assert (FOLDER / "requirements.txt").read_text(encoding="utf-8") == "fewstep\n"

    @pytest.mark.parametrize("name", ["stable-diffusion", "flux"])
    def test_workflows_are_wired(self, nodes, name):
        flow = json.loads((FOLDER / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
        by_id = {node["id"]: node for node in flow["nodes"]}
        assert (len(by_id), len(flow["links"])) == (flow["last_node_id"], flow["last_link_id"])
        for link, source, out, target, place, io_type in flow["links"]:
            given, taken = by_id[source]["outputs"][out], by_id[target]["inputs"][place]
            assert (given["type"], taken["type"], taken["link"]) == (io_type, io_type, link)
            assert link in given["links"]
        assert all(slot["link"] is not None for node in flow["nodes"] for slot in node["inputs"])
        (ours,) = (node for node in flow["nodes"] if node["type"] == nodes.node.define_schema().node_id)
        schema = nodes.node.define_schema()
        widgets = [each for each in schema.inputs if each.io_type != "MODEL"]
        assert [slot["name"] for slot in ours["inputs"]] == ["model"]
        assert [slot["type"] for slot in ours["outputs"]] == [each.io_type for each in schema.outputs]
        defaults = [each.options["default"] for each in widgets[1:]]
        assert (ours["widgets_values"][0][-5:], ours["widgets_values"][1:]) == (".json", defaults)
