"""``fewstep export``: what is written gives the samples of the solver."""

import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import diffusers
import pytest
import torch

import fewstep as fs
from fewstep.adapters.diffusers import FewStepScheduler
from fewstep.fitting import GaussNewton

pytestmark = pytest.mark.usefixtures("few_rivals")

SHAPE = (2,)
NOISE = fs.noise(5, SHAPE, seed=0)
VP = fs.schedules.DDPM("scaled_linear", 0.00085, 0.012)


def bend(x, t):
    return torch.sin(x.roll(1, dims=1) + t[:, None])


def guided(guidance=None):
    options = {"guidance": guidance, "unconditional": {"to": 0.1}}
    return fs.Field(lambda x, t, to=0.0: bend(x, t) + to, shape=SHAPE, name="bend", **options)


@pytest.fixture
def fit_file(tmp_path):
    """Solvers for two numbers of calls and scales of guidance."""
    fit = fs.fit(guided(2.0), (2, 3), guidance=(1, 2), pairs=8, optimizer=GaussNewton(2, last_steps=0))
    fit.save(tmp_path / "fit.json")
    return "fit.json"


def rescaled(prediction="v"):
    """Write a solver for guidance of another size."""
    options = {"guidance": 2.5, "unconditional": {}, "guidance_rescale": 0.7}
    facts = fs.Field(lambda x, t: x, VP, prediction, name="bend", **options).describe()
    replace(fs.classical.ddim(2, schedule=VP), fitted_for=facts).save("rescaled.json")
    return "rescaled.json"


@pytest.fixture
def ddim_file(tmp_path):
    fs.classical.dpmpp("2M", 3, schedule=VP).save(tmp_path / "ddim.json")
    return "ddim.json"


def imported(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_wrong_target_is_told_the_three(failure):
    said = failure("export", "comfy", "x.json")
    assert (
        said == "error: fewstep export: the verb must be one of diffusers, comfyui, k-diffusion, not 'comfy' "
        "(did you mean 'comfyui'?).\n"
    )


def test_one_file_too_many_is_told(failure):
    said = failure("export", "comfyui", "a.json", "b.json", "--out", ".")
    assert said == (
        "error: b.json is one word too many; there is a place for SOLVER only; see fewstep export comfyui "
        "--help.\n"
    )


class TestDiffusers:
    @pytest.fixture
    def folder(self, tmp_path):
        old = diffusers.DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            steps_offset=1,
        )
        old.save_pretrained(tmp_path / "pipe" / "scheduler")
        (tmp_path / "pipe" / "model_index.json").write_text("{}")
        return tmp_path / "pipe"

    def test_of_a_pipeline_or_its_scheduler(self, program, ddim_file, folder):
        for where, out in ((folder, "one"), (folder / "scheduler", "two")):
            said = program("export", "diffusers", ddim_file, "--scheduler", where, "--out", out)
            assert f"wrote {out}/scheduler_config.json: 3 network calls" in said
            assert f"pipe.scheduler = FewStepScheduler.from_pretrained('{out}')" in said
            assert "pipe(..., num_inference_steps=3)" in said
        made = FewStepScheduler.from_pretrained("one")
        assert dict(made.config) == dict(FewStepScheduler.from_pretrained("two").config)
        expected = FewStepScheduler.from_solver(
            fs.load(ddim_file), diffusers.DDIMScheduler.from_pretrained(folder / "scheduler")
        )
        assert torch.equal(made.timesteps, expected.timesteps)
        output = torch.ones(1, 4, 2, 2)
        steps = [each.step(output, each.timesteps[0], 2 * output).prev_sample for each in (made, expected)]
        assert torch.equal(*steps)
        # Its own folder tells the convention too.
        program("export", "diffusers", ddim_file, "--scheduler", "one", "--out", "three")
        assert dict(FewStepScheduler.from_pretrained("three").config) == dict(made.config)

    def test_of_a_fit(self, program, ended, fit_file, tmp_path):
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(tmp_path / "flow")
        words = ("export", "diffusers", fit_file, "--scheduler", "flow", "--out", "made")
        facts = program(*words, "--guidance", 2, "--json")
        assert (facts["nfe"], facts["guidance"]) == ([2, 3], 2.0)
        assert facts["python"][-1] == "pipe(..., num_inference_steps=3, guidance_scale=2)"
        made = FewStepScheduler.from_pretrained("made")
        made.set_timesteps(2)
        times = [1000 * (1 - t) for t in fs.load(fit_file).at(2, 2.0).times]
        assert made.timesteps.tolist() == pytest.approx(times, rel=1e-6)
        assert program(*words, "--guidance", 1, "--nfe", 3, "--json")["nfe"] == [3]
        assert "choose with guidance" in ended(*words)[2]

    def test_all_of_the_guidance_is_told(self, program, folder):
        said = program("export", "diffusers", rescaled(), "--scheduler", folder, "--out", "made")
        assert "pipe(..., num_inference_steps=2, guidance_scale=2.5, guidance_rescale=0.7)" in said

    def test_another_schedule_is_a_note(self, ended, folder, tmp_path):
        solver = replace(fs.classical.euler(2), fitted_for={"schedule": fs.schedules.CondOT().to_dict()})
        solver.save(tmp_path / "flow.json")
        status, _, said = ended("export", "diffusers", "flow.json", "--scheduler", folder, "--out", "made")
        assert status == 0
        assert said.startswith("note: solver 'euler' was fitted for schedule cond_ot()")

    def test_a_file_in_the_way(self, failure, ddim_file, folder):
        said = failure("export", "diffusers", ddim_file, "--scheduler", folder, "--out", ddim_file)
        assert said == "error: --out: must be a folder, not the file ddim.json.\n"

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (None, "--scheduler: given has neither model_index.json nor scheduler_config.json;"),
            ("[", "scheduler_config.json: not a readable scheduler (not complete JSON: "),
            ("{}", "scheduler_config.json is of the class None, which is no scheduler"),
            ('{"_class_name": "UNet2DModel"}', "is of the class 'UNet2DModel', which is no scheduler"),
        ],
    )
    def test_a_folder_that_is_none(self, failure, ddim_file, tmp_path, content, said):
        (tmp_path / "given").mkdir()
        if content is not None:
            (tmp_path / "given" / "scheduler_config.json").write_text(content)
        assert said in failure("export", "diffusers", ddim_file, "--scheduler", "given", "--out", "made")
        assert not Path("made").exists()


class TestComfyUI:
    @pytest.mark.parametrize("where", ["ComfyUI", "ComfyUI/models/fewstep"])
    def test_puts_the_file_where_the_node_looks(self, program, ddim_file, where):
        Path("ComfyUI/models").mkdir(parents=True)
        said = program("export", "comfyui", ddim_file, "--out", where)
        assert "wrote ComfyUI/models/fewstep/ddim.json" in said
        assert "custom_nodes" in said
        assert fs.load("ComfyUI/models/fewstep/ddim.json") == fs.load(ddim_file)
        # ManualSigmas finds numbers so.
        levels = re.findall(r"[-+]?(?:\d*\.*\d+)", said.rpartition("another sampler: ")[2])
        expected = fs.adapters.k_diffusion.sampler(fs.load(ddim_file)).sigmas
        torch.testing.assert_close(torch.tensor([float(level) for level in levels]), expected)

    def test_small_levels_have_no_exponent(self, program, tmp_path):
        Path("models").mkdir()
        solver = fs.classical.dpmpp("2M", grid=[0, 0.5, 0.9999], schedule=fs.schedules.CondOT())
        solver.save("small.json")
        (row,) = program("export", "comfyui", "small.json", "--out", ".", "--json")["solvers"]
        assert row["sigmas"] == ["1.0", "0.5", "0.0001"]

    def test_a_fit_is_kept_whole_or_one_is_taken(self, program, fit_file):
        Path("models").mkdir()
        facts = program("export", "comfyui", fit_file, "--out", ".", "--json")
        places = [(row["nfe"], row["guidance"], len(row["sigmas"])) for row in facts["solvers"]]
        assert places == [(2, 1.0, 3), (2, 2.0, 3), (3, 1.0, 4), (3, 2.0, 4)]
        expected = fs.load(fit_file).at(3, 1.5).describe()
        assert fs.load("models/fewstep/fit.json").at(3, 1.5).describe() == expected
        facts = program("export", "comfyui", fit_file, "--out", ".", "--json", "--nfe", 3, "--guidance", 1.5)
        assert len(facts["solvers"]) == 1
        assert fs.load("models/fewstep/fit.json").describe() == expected

    def test_a_table_of_velocities_has_the_levels_of_the_model(self, program, solver_file):
        Path("models").mkdir()
        facts = program("export", "comfyui", solver_file, "--out", ".", "--json")
        assert facts["solvers"][0]["sigmas"] is None
        facts = program("export", "comfyui", solver_file, "--out", ".", "--json", "--schedule", "cond_ot")
        assert facts["solvers"][0]["sigmas"] == ["1.0", "0.75", "0.5", "0.25", "0.0"]

    def test_the_node_for_the_size_of_guidance_is_told(self, program):
        Path("models").mkdir()
        said = program("export", "comfyui", rescaled(), "--out", ".")
        assert "2 network calls, cfg 2.5, node RescaleCFG with multiplier 0.7;" in said
        said = program("export", "comfyui", rescaled("noise"), "--out", ".")
        assert "multiplier 0.7 (which rescales v, and the fit noise, so that samples differ);" in said

    def test_another_folder(self, failure, ddim_file):
        assert "--out: must be the folder of ComfyUI" in failure("export", "comfyui", ddim_file, "--out", "x")
        Path("fewstep").mkdir()
        assert not failure("export", "comfyui", "no.json", "--out", "fewstep").startswith("error: --out")


def denoiser(x, sigma, scale=1.0):
    return scale * torch.tanh(x.roll(1, dims=1) / (1 + sigma[:, None]))


def solvers():
    flow = fs.Field(bend, shape=SHAPE, name="bend")
    family = fs.families.FAMILIES["non_stationary"]((4,), None, flow)
    theta = 0.05 * torch.randn(family.size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return {
        "fitted": family.solver(theta, fitted_for=flow.describe()),
        "2m": fs.classical.dpmpp("2M", 5, schedule=VP),
        "stages": fs.classical.edm_heun(3, schedule=fs.schedules.VE(80.0)),
        "one call": fs.classical.ddim(1, schedule=VP),
    }


class TestKDiffusion:
    @pytest.mark.parametrize("name", solvers())
    def test_the_module_gives_the_same_samples(self, program, name):
        solver = solvers()[name]
        solver.save("solver.json")
        facts = program("export", "k-diffusion", "solver.json", "--json")
        (path,) = facts["files"]
        made, f = imported(path), fs.adapters.k_diffusion.sampler(solver)
        sample = getattr(made, facts["function"])
        assert path == f"{sample.__name__}.py"
        torch.testing.assert_close(torch.tensor(made.SIGMAS), f.sigmas)
        heard = [], []
        for sigmas in (None, f.sigmas):
            samples = sample(denoiser, NOISE * made.SIGMAS[0], sigmas, {"scale": 0.9}, heard[0].append)
            expected = f(denoiser, NOISE * f.sigmas[0], sigmas, {"scale": 0.9}, heard[1].append)
            error = float((samples - expected).abs().max() / expected.square().mean().sqrt())
            print(f"k-diffusion module, {name}: {error:.1e}")
            assert error < 1e-5
        for one, other in zip(*heard, strict=True):
            assert one.keys() == other.keys()
            assert one["i"] == other["i"]
            for key in ("x", "sigma", "denoised"):
                torch.testing.assert_close(one[key], other[key], rtol=1e-4, atol=1e-4)
        half = sample(denoiser, (NOISE * made.SIGMAS[0]).to(torch.bfloat16))
        assert half.dtype == torch.bfloat16
        with pytest.raises(ValueError, match=r"sigmas must be SIGMAS, .* leave them out"):
            sample(denoiser, NOISE, torch.ones(3))

    def test_it_needs_torch_alone(self, program, ddim_file):
        program("export", "k-diffusion", ddim_file, "--out", "mine.py")
        code = "import sys, mine; print({'fewstep', 'k_diffusion'} & set(sys.modules), len(mine.SIGMAS))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "set() 4\n"

    def test_one_of_a_fit(self, program, failure, fit_file):
        said = program("export", "k-diffusion", fit_file, "--nfe", 3, "--guidance", 2, "--out", "mine.py")
        assert "wrote mine.py: 3 network calls" in said
        assert "from mine import SIGMAS, sample_" in said
        assert "solvers of 2 and 3 calls; choose with nfe." in failure("export", "k-diffusion", fit_file)

    def test_what_it_says_of_itself(self, program):
        facts = {"model": "bend", "schedule": VP.to_dict(), "guidance": 7.5}
        solver = replace(fs.classical.ddim(2, schedule=VP), fitted_for=facts, citation=("A. Author, 2024",))
        solver.save("solver.json")
        program("export", "k-diffusion", "solver.json", "--out", "mine.py")
        head = Path("mine.py").read_text().partition("import torch\n")[0].splitlines()
        assert head[0] == '"""A sampler for k-diffusion, ddim, with 2 network calls.'
        comments = [line for line in head if line.startswith("#")]
        assert comments[0].startswith("# schedule: DDPM(betas='scaled_linear'")
        assert comments[-2:] == ["# fitted for: model bend, guidance 7.5", "# cite: A. Author, 2024"]

    def test_all_of_its_guidance_is_told(self, program):
        said = program("export", "k-diffusion", rescaled(), "--out", "mine.py")
        assert "# the denoiser with guidance 2.5, guidance_rescale 0.7" in said
        comments = Path("mine.py").read_text().replace("\n#  ", "")
        assert "# fitted for: model bend, guidance 2.5, guidance_rescale 0.7\n" in comments
        assert program("export", "k-diffusion", rescaled(), "--json")["guidance_rescale"] == 0.7

    def test_words_in_the_file_stay_words(self, program):
        """No name, fact or citation becomes code."""
        evil = 'x"""\nraise SystemExit(7)\r\u2028raise SystemExit(8)\n\0\\'
        facts = {"name": evil, "citation": (evil,), "fitted_for": {"model": evil, "schedule": VP.to_dict()}}
        solver = replace(fs.classical.ddim(2, schedule=VP), **facts)
        solver.save("evil.json")
        facts = program("export", "k-diffusion", "evil.json", "--out", "mine.py", "--json")
        assert facts["function"].isidentifier()
        assert callable(getattr(imported("mine.py"), facts["function"]))

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (
                ["midpoint.json"],
                "--schedule: solver 'midpoint' is a table of velocities, which names no schedule",
            ),
            (["midpoint.json", "--schedule", "x"], "schedule: must be one of cond_ot"),
            (["ddim.json", "--schedule", "vp"], "--schedule: the file names the schedule DDPM("),
            (["ddim.json", "--nfe", "5"], "solver 'dpmpp_2m': nfe is 3, not 5; leave nfe out."),
            (["ddim.json", "--guidance", "5"], "guidance is 1, not 5"),
            (["ddim.json", "--nfe", "0"], "--nfe: must be at least 1, not 0"),
            (
                ["ddim.json", "--out", "x.txt"],
                "--out: must be a Python module, such as sampler.py, not x.txt.",
            ),
            (["ddim.json", "--out", "my-x.py"], "--out: must be a Python module"),
            (["none.json"], "none.json: there is no such solver file"),
        ],
    )
    def test_refusals(self, failure, solver_file, ddim_file, words, said):
        found = failure("export", "k-diffusion", *words)
        assert found.startswith("error: ")
        assert said in found
        assert found.count("\n") == 1

    def test_a_schedule_for_a_table_that_names_none(self, program, solver_file):
        program("export", "k-diffusion", solver_file, "--schedule", "cond_ot")
        assert len(imported("sample_midpoint.py").SIGMAS) == 5


def test_a_result_as_json_is_all_that_is_printed(program, ddim_file):
    assert set(json.loads(json.dumps(program("export", "k-diffusion", ddim_file, "--json")))) == {
        "files", "nfe", "guidance", "function", "python",
    }  # fmt: skip
