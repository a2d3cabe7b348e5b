"""Model cards: metadata that the Hub reads, figures of the report, and lines of code that run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import fewstep as fs
from fewstep._card import CITATION
from fewstep.fitting import GaussNewton
from fewstep.networks import MLP, ReverseTime, SongUNet

cards = pytest.importorskip("huggingface_hub")


@pytest.fixture
def written(tmp_path, monkeypatch):
    """``written(thing)``: the card of a thing that was saved to the folder ``thing``, and its Python."""
    monkeypatch.chdir(tmp_path)

    def write(thing, **options):
        thing.save_pretrained("thing", **options)
        card = cards.ModelCard.load(Path("thing/README.md"))
        return card, re.findall(r"```python\n(.*?)```", card.text, flags=re.DOTALL)

    return write


def rows(text):
    """The rows of the table of a card, as dicts."""
    lines = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in re.findall(r"^\|.*", text, re.M)
    ]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_metadata(written, fit):
    card, _ = written(fit.solver, license="apache-2.0", base_model="someone/net")
    assert card.data.to_dict() == {
        "library_name": "fewstep", "tags": ["fewstep", "ode-solver"], "license": "apache-2.0",
        "base_model": "someone/net",
    }  # fmt: skip
    assert fs.__version__ in card.text


def test_metadata_that_are_not_given_are_not_there(written, fit):
    card, _ = written(fit)
    assert card.data.to_dict() == {"library_name": "fewstep", "tags": ["fewstep", "ode-solver"]}


@pytest.mark.parametrize("whole", [False, True])
def test_figures_are_those_of_the_report(written, fit, whole):
    card, _ = written(fit if whole else fit.solver)
    errors, [row] = fit.report.errors, rows(card.text)
    assert row["network calls"] == "3"
    assert row["RMSE"] == f"{errors['fitted']:.4g}"
    assert row["best other solver"] == f"{fit.report.rival}, {errors[fit.report.rival]:.4g}"
    assert row["ratio"] == f"{fit.report.ratio:.2f}x"
    assert f"the same {fit.report.pairs['validation']} noises" in card.text
    for note in fit.report.notes:
        assert f"- {note}" in card.text
    for work in (*fit.solver.citation, CITATION):
        assert f"- {work}" in card.text
    assert "- network: `bend`" in card.text
    assert "- shape of a sample: 3" in card.text


def test_several_solvers_have_a_row_each(written, several):
    card, _ = written(several)
    expected = {f"{row['guidance']:g}": f"{row['errors']['fitted']:.4g}" for row in several.report.rows}
    assert {row["guidance"]: row["RMSE"] for row in rows(card.text)} == expected
    assert set(expected) >= {"1", "4"}
    assert "- guidance: 1 to 4" in card.text


def test_rows_that_were_not_fitted_are_marked(written, fit):
    other = {**fit.report.rows[0], "nfe": 4, "trained": False}
    made = replace(fit, report=replace(fit.report, rows=(*fit.report.rows, other)))
    card, _ = written(made)
    assert [row["network calls"] for row in rows(card.text)] == ["3", "4\\*"]
    assert "not fitted, only validated" in card.text


def test_what_is_not_known_is_left_out(written, fit):
    for solver in (
        fs.classical.midpoint(2),
        replace(fit.solver, scores=None, protocol=None),
        replace(fit.solver, scores={"validation_rmse": {"fitted": 0.1}}, protocol={}),
        replace(fit.solver, scores={"validation_rmse": {}}, protocol={}),
    ):
        card, _ = written(solver)
        assert "RMSE" not in card.text
        assert "None" not in card.text
    card, _ = written(fs.classical.midpoint(2))
    assert "not fitted to any network" in card.text
    assert "## Fitted for" not in card.text
    assert "## Limits" not in card.text


def test_an_error_without_bound_is_no_rival(written, fit):
    card, _ = written(
        replace(fit.solver, scores={"validation_rmse": {"fitted": 0.1, "rk4": None, "ab2": 0.2}})
    )
    assert rows(card.text)[0]["best other solver"] == "ab2, 0.2"


def test_names_do_not_break_the_card(written, fit):
    facts = {**fit.fitted_for, "model": "a|b `c`\n<script>"}
    card, _ = written(replace(fit.solver, fitted_for=facts))
    assert "- network: `a\\|b 'c' <script>`" in card.text


def test_lines_for_fewstep_run(written, fit, network):
    _, blocks = written(fit.solver)
    names = {"network": network}
    exec(blocks[0], names)
    assert torch.equal(names["samples"], fit.sample(fs.Field(network), fs.noise(16, (3,), seed=0)))


@pytest.mark.parametrize("kind", ["fit", "several"])
def test_lines_for_fits_run(written, request, network, kind):
    _, blocks = written(request.getfixturevalue(kind))
    names = {"network": network, "guide": network, "unconditional": {}}
    exec(blocks[0], names)
    assert names["solver"].nfe == {"fit": 3, "several": 2}[kind]
    assert names["samples"].isfinite().all()


def test_lines_of_a_classical_solver_run(written, network):
    _, blocks = written(fs.classical.midpoint(2))
    names = {"network": network, "shape": (3,)}
    exec(blocks[0], names)
    assert names["samples"].shape == (16, 3)


def test_lines_of_a_solver_for_one_schedule_run(written, network):
    solver = fs.classical.dpmpp("2M", steps=3, schedule=fs.schedules.VP())
    _, blocks = written(solver)
    names = {"network": network, "shape": (3,)}
    exec(blocks[0], names)
    expected = solver.sample(fs.Field(network, fs.schedules.VP()), fs.noise(16, (3,), seed=0))
    assert torch.equal(names["samples"], expected)


def test_a_field_in_other_coordinates_is_not_made_from_its_network(written, network):
    field = fs.Field(network, shape=(3,)).reversed()
    card, [code] = written(replace(fs.classical.midpoint(2), fitted_for=field.describe()))
    names = {"field": field}
    exec(code, names)
    assert names["samples"].shape == (16, 3)
    assert "k_diffusion" not in card.text


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"schedule": fs.schedules.VP(), "prediction": "noise"},
        {"schedule": fs.schedules.VP(beta_max=10.0), "prediction": "v", "clock": (1000, 0)},
        {"schedule": fs.schedules.CondOT(), "clock": "sigma", "prediction": "data"},
        {"guidance": 3.0, "guide": lambda x, t: x, "guidance_interval": (0.1, 0.9)},
        {"clock": lambda t: 2 * t},
    ],
    ids=["plain", "noise", "v", "sigma", "guided", "clock"],
)
def test_the_field_in_the_card_is_the_one_of_the_fit(written, network, options):
    field = fs.Field(network, shape=(3,), **options)
    solver = replace(fs.classical.midpoint(2), fitted_for=field.describe())
    _, blocks = written(solver)
    names = {"network": network, "unconditional": {}, **{key: options.get(key) for key in ("clock", "guide")}}
    exec(blocks[0].rpartition("samples =")[0], names)
    assert names["field"].describe() == field.describe()
    x = fs.noise(2, (3,))
    assert torch.equal(names["field"](x, 0.5), field(x, 0.5))


def test_lines_for_k_diffusion_run(written, network):
    field = fs.Field(network, shape=(3,))
    solver = replace(fs.classical.midpoint(2), fitted_for=field.describe())
    _, blocks = written(solver)

    def model(x, sigma):  # states of k-diffusion are data + sigma noise, ours are data and noise mixed
        t = 1 / (1 + sigma)
        y = x * t[:, None]
        return y + (1 - t)[:, None] * field(y, t)

    names = {"fs": fs, "solver": solver, "model": model}
    exec(next(block for block in blocks if "k_diffusion" in block), names)
    expected = solver.sample(field, fs.noise(16, (3,), seed=0))
    assert (names["samples"] - expected).abs().max() < 1e-3


def test_lines_for_diffusers_run(written):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler()
    _, blocks = written(fs.classical.midpoint(2))

    class Pipe:
        def __call__(self, prompt, num_inference_steps):
            self.scheduler.set_timesteps(num_inference_steps)
            return type("Output", (), {"images": [len(self.scheduler.timesteps)]})

    pipe = Pipe()
    pipe.scheduler = scheduler
    names = {"fs": fs, "solver": fs.Solver.from_pretrained("thing"), "pipe": pipe}
    exec(next(block for block in blocks if "diffusers" in block), names)
    assert names["image"] == 4
    assert isinstance(pipe.scheduler, fs.adapters.diffusers.FewStepScheduler)


def test_lines_for_flow_matching_run(written, fit, network):
    _, blocks = written(fit.solver)
    names = {"fs": fs, "solver": fit.solver, "velocity_model": lambda x, t: network(x, t)}
    exec(next(block for block in blocks if "flow_matching" in block), names)
    expected = fit.sample(fs.Field(network), fs.noise(16, (3,), seed=0))
    assert torch.allclose(names["samples"], expected, atol=1e-6)


def test_only_networks_of_velocities_are_for_flow_matching(written, fit):
    facts = {**fit.fitted_for, "prediction": "noise", "schedule": fs.schedules.VP().to_dict()}
    card, _ = written(replace(fit.solver, fitted_for=facts))
    assert "flow_matching" not in card.text


def test_the_card_of_a_network(written):
    network = MLP((2,), width=16, blocks=1).eval()
    card, [code] = written(network, schedule=fs.schedules.VP(), prediction="noise", license="mit")
    weights = sum(p.numel() for p in network.parameters())
    for part in (
        "`fewstep.networks.MLP`", f"weights: {weights:,}", "prediction: noise", "schedule: vp(beta_min=0.1",
        "`width=16`", CITATION,
    ):  # fmt: skip
        assert part in card.text
    assert card.data.to_dict() == {
        "library_name": "fewstep",
        "license": "mit",
        "tags": ["fewstep", "ode-solver"],
    }
    names = {}
    exec(code, names)
    x = fs.noise(2, (2,))
    assert torch.equal(names["network"](x, torch.tensor(0.5)), network(x, torch.tensor(0.5)))
    assert (names["field"].prediction, names["field"].schedule) == ("noise", fs.schedules.VP())


def test_the_card_of_a_nested_network(written):
    small = {"model_channels": 16, "channel_mult": [1], "num_blocks": 1}
    card, [code] = written(ReverseTime(SongUNet(8, 1, 1, **small)))
    assert "Arguments" not in card.text
    names = {}
    exec(code, names)
    assert isinstance(names["network"], ReverseTime)


def test_the_citation_is_that_of_the_repository():
    path = Path(__file__).parents[2] / "CITATION.cff"
    cited = yaml.safe_load(path.read_text(encoding="utf-8"))
    authors = ", ".join(author["name"] for author in cited["authors"])
    assert CITATION == f"{authors}. {cited['title']}. Version {cited['version']}."


def test_a_card_has_all_its_parts(written):
    mixture = fs.models.random_mixture(4, 2)
    field = mixture.field("mixture")
    fit = fs.fit(field, nfe=2, pairs=8, optimizer=GaussNewton(1))
    card, blocks = written(fit)
    assert card.text.count("## ") == 5
    names = {"network": field.model}
    exec(blocks[0], names)
    assert names["samples"].shape == (16, 4)
