"""Wrong uses end in one clear sentence, before any call of the network, or are right."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch

import fewstep as fs

NET = torch.nn.Linear(2, 2).eval().requires_grad_(False)
MIDPOINT = fs.classical.midpoint(2)


def decay(x, t, **conditions):
    return -x


@pytest.fixture
def field():
    return fs.Field(decay, shape=(2,), name="decay")


@pytest.mark.parametrize(
    "call",
    [
        lambda net: fs.fit(net, 4),
        lambda net: fs.search(net, (4,)),
        lambda net: fs.compare(net, MIDPOINT),
        lambda net: fs.generate(net, MIDPOINT, range(4), "out"),
        lambda net: fs.reference.pairs(net, fs.noise(4, (2,))),
        lambda net: fs.reference.solve(net, fs.noise(4, (2,))),
        lambda net: fs.check(net),
        lambda net: fs.log_likelihood(net, fs.noise(4, (2,))),
    ],
)
def test_a_network_must_be_wrapped(call):
    with pytest.raises(ValueError, match=r"field is a Linear, but must be a fewstep.Field; wrap the network"):
        call(NET)


def test_pairs_of_another_field_are_noted(field):
    """Fitted or compared on them, everything would look wrong, or right by chance."""
    other = fs.Field(lambda x, t: x, shape=(2,), name="growth")
    pairs = fs.reference.pairs(other, fs.noise(8, (2,)))
    with pytest.warns(UserWarning, match="fit: the pairs given were made by model growth, but this field"):
        fs.fit(field, 2, pairs=pairs)
    with pytest.warns(UserWarning, match="compare: the pairs given were made by model growth"):
        fs.compare(field, MIDPOINT, noise=pairs)
    guided = fs.Field(decay, shape=(2,), name="decay", unconditional={"label": 0}, guidance=2)
    with pytest.warns(UserWarning, match="guidance 2, but this field has guidance 4"):
        fs.fit(guided, 2, guidance=4, pairs=fs.reference.pairs(guided, fs.noise(8, (2,))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = fs.reference.pairs(field, fs.noise(8, (2,)))
        fs.fit(fs.Field(decay, shape=(2,)), 2, pairs=own)  # a field without a name may be the same
        fs.compare(field, MIDPOINT, noise=own)


def test_a_network_that_writes_into_its_conditions_is_refused():
    def network(x, t, label):
        return label.mul_(2.0) - x

    field, labels = fs.Field(network, shape=(2,), name="greedy"), torch.ones(4, 2)
    with pytest.raises(ValueError, match=r"wrote into its condition label, .* a copy, as by .clone()"):
        MIDPOINT.sample(field, fs.noise(4, (2,)), label=labels)

    def nested(x, t, added):
        added["label"] += 1
        return -x

    with pytest.raises(ValueError, match=r"wrote into its condition added.label"):
        fs.reference.pairs(fs.Field(nested), fs.noise(4, (2,)), per_sample={"added": {"label": labels}})


@pytest.mark.parametrize("name", ["conditions", "per_sample"])
def test_mappings_of_conditions_are_no_condition_of_sample(field, name):
    for call in (MIDPOINT.sample, fs.reference.solve):
        first = (field, fs.noise(4, (2,)))
        with pytest.raises(TypeError, match=rf"takes conditions by name, .* not {name}="):
            call(*first, **{name: {"label": torch.zeros(4)}})


@pytest.mark.parametrize(("name", "meant"), [("max_nfes", "max_nfe"), ("rtoll", "rtol"), ("time", "times")])
def test_a_misspelt_option_of_solve_is_named(field, name, meant):
    with pytest.raises(TypeError, match=f"there is no argument '{name}'; did you mean {meant}?"):
        fs.reference.solve(field, fs.noise(4, (2,)), **{name: 3})


def test_rows_go_with_numbers_in_order_or_not_at_all(field, tmp_path):
    rows = {"label": torch.arange(3)}
    with pytest.raises(ValueError, match="seeds must increase; sort both together"):
        fs.generate(field, MIDPOINT, [5, 2, 9], tmp_path / "out", per_sample=rows)
    fs.generate(field, MIDPOINT, [2, 5, 9], tmp_path / "out", per_sample=rows)
    fs.generate(field, MIDPOINT, [5, 2, 9], tmp_path / "other", per_sample={"label": torch.zeros(1)})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schedule": "VP"}, "schedule must be one of fewstep.schedules, .* not 'VP'"),
        ({"schedule": fs.schedules.VP}, "schedule must be one of fewstep.schedules"),
        ({"shape": 2}, r"shape must be sizes of one sample, such as \(3, 32, 32\), not 2"),
        ({"shape": (-2,)}, "shape must be sizes"),
        ({"shape": (2.0,)}, "shape must be sizes"),
        ({"guidance": "3", "guide": NET}, "guidance must be a finite number or None, not '3'"),
        ({"guidance": 1 + 2j, "guide": NET}, "guidance must be a finite number"),
        ({"guidance": float("nan"), "guide": NET}, "guidance must be a finite number"),
        ({"guidance": True, "guide": NET}, "guidance must be a finite number"),
        ({"guidance": 10**400, "guide": NET}, "guidance must be a finite number"),
        ({"guidance_interval": "ab"}, "guidance_interval must be two increasing times"),
        ({"clock": (float("nan"), 1)}, "clock must be a pair"),
        ({"data_moments": (0, -1)}, "data_moments must be the mean and the standard deviation"),
        ({"data_moments": (torch.tensor([0, float("inf")]), 1)}, "data_moments must be"),
        ({"data_moments": 3}, "data_moments must be"),
        ({"guidance_interval": 0.5}, "guidance_interval must be two increasing times"),
        ({"guidance_interval": (0,)}, "guidance_interval must be two increasing times"),
    ],
    ids=str,
)
def test_arguments_of_a_field_are_checked_when_it_is_made(options, words):
    with pytest.raises(ValueError, match=words):
        fs.Field(decay, **options)


def test_numbers_of_numpy_are_numbers(tmp_path):
    field = fs.Field(decay, shape=(np.int64(2),), guidance=np.float32(2), guide=decay, name="decay")
    quick = fs.fitting.GaussNewton(iterations=1)
    fit = fs.fit(field, np.array([2, 3]), guidance=np.array([1.0, 2.0]), pairs=np.int64(8), optimizer=quick)
    with pytest.raises(ValueError, match=r"nfe must be a number, whole for nfe, not 2\.5"):
        fit.at(2.5, 1)
    fit.save(tmp_path / "fit.json")
    assert fs.load(tmp_path / "fit.json").at(np.int64(2), np.float32(1.5)).nfe == 2
    one = fs.fit(field, np.int64(3), pairs=8, optimizer=quick)
    one.solver.save(tmp_path / "solver.json")
    assert fs.load(tmp_path / "solver.json").fitted_for["guidance"] == 2.0


def test_a_fit_stands_for_its_solver(field, tmp_path):
    fit = fs.fit(field, 2, pairs=8, optimizer=fs.fitting.GaussNewton(iterations=1))
    tables = (fs.compare(field, what, noise=4) for what in (fit.solver, fit, [fit], {"fitted": fit}))
    assert len({table.rows[0]["rmse"] for table in tables}) == 1
    assert fs.generate(field, fit, range(2), tmp_path / "out")["nfe"]["mean"] == 2
    with pytest.raises(ValueError, match=r"solvers must be Solver objects, .* not 'euler'"):
        fs.compare(field, "euler")
    assert fs.compare(field, MIDPOINT, noise=np.int64(4), metrics="rmse").metrics == ("rmse",)


@pytest.mark.parametrize("key", ["fitted_for", "report"])
def test_a_fit_file_with_odd_facts_is_refused(field, tmp_path, key):
    path = tmp_path / "fit.json"
    fs.fit(field, 2, pairs=8, optimizer=fs.fitting.GaussNewton(iterations=1)).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: 7}))
    with pytest.raises(ValueError, match=f"{key}: must be an object, not 7"):
        fs.load(path)


def test_nothing_to_solve_is_said(field):
    with pytest.raises(ValueError, match=r"x0: .* with B at least 1, not .* of shape \(0, 2\)"):
        fs.reference.pairs(field, torch.empty(0, 2))
    with pytest.raises(ValueError, match="batch must be a whole number of at least 1, not 0"):
        fs.reference.pairs(field, fs.noise(4, (2,)), batch=0)


def test_a_start_is_searched_for_one_number_of_calls_and_one_scale(field):
    guided = fs.Field(decay, shape=(2,), guide=decay, name="decay")
    for options in ({"nfe": (2, 3)}, {"nfe": 2, "guidance": (1, 2)}):
        with pytest.raises(ValueError, match="init='auto' starts one number of calls at one guidance scale"):
            fs.fit(guided, **options, init="auto", pairs=8)


def test_a_fit_that_a_classical_solver_beats_says_so():
    """Euler's method on times of its own stays behind methods of higher order."""
    digits, one = fs.models.bundled("digits"), fs.fitting.GaussNewton(iterations=1)
    report = fs.fit(digits, 4, pairs=8, family="timesteps", init="euler", optimizer=one).report
    assert report.ratio == 1
    assert any(note.startswith(f"no iterate beats {report.rival} on validation") for note in report.notes)
