import json

import pytest
import torch

import fewstep as fs
from fewstep.families import NonStationary, ScaleTime
from fewstep.fitting import Adam, GaussNewton, Reference

ONE = GaussNewton(iterations=1)


def strictly(text):
    """JSON as the standard has it."""

    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def pairs(bending):
    return fs.reference.pairs(bending, fs.noise(16, (3,)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("nfe", [1, 2, 3, 5])
@pytest.mark.parametrize("options", [{}, {"family": "scale_time", "init": "euler"}], ids=str)
def test_the_solver_makes_exactly_the_calls_asked_for(bending, pairs, options, nfe):
    fitted = fs.fit(bending, nfe, pairs=pairs, optimizer=ONE, **options)
    assert fitted.solver.nfe == fitted.nfe == fitted.report.rows[0]["nfe"] == nfe
    bending.model.seen = 0
    fitted.solver.sample(bending, pairs.x0[:3])
    assert bending.model.seen == 3 * nfe


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"family": "scale_time"},
        {"optimizer": Adam(12)},
        {"optimizer": Adam(12), "family": "scale_time", "loss": "bound"},
        {"optimizer": Adam(12), "family": "scale_time", "init": "euler", "loss": "local"},
        {"batch": 5},
    ],
    ids=str,
)
def test_the_calls_reported_are_those_that_the_network_saw(bending, options):
    report = fs.fit(bending, 4, pairs=12, **options).report
    assert sum(report.calls.values()) == bending.model.seen


def test_calls_are_split_into_reference_fit_and_errors(bending):
    report = fs.fit(bending, 4, pairs=12, init="ab2").report
    assert set(report.calls) == {"reference", "fit", "errors"}
    bending.model.seen = 0
    made = fs.reference.pairs(bending, fs.noise(12, (3,)), rtol=1e-6, atol=1e-6)
    assert report.calls["reference"] == bending.model.seen == made.calls
    # The fitted solver, its start, and every classical one, on three pairs.
    assert report.calls["errors"] == 4 * 3 * (2 + len(fs.classical.baselines(4)))


@pytest.mark.all_rivals
def test_a_classical_solver_that_cannot_be_sampled_is_not_counted_as_if_it_were(counting):
    """Heun calls this noise prediction at t = 1, where it leaves the velocity undefined."""
    network = fs.models.random_mixture(4, 3, prediction="noise", schedule=fs.schedules.VP())
    field = fs.Field(counting(network), fs.schedules.VP(), "noise", shape=(4,))
    report = fs.fit(field, 4, pairs=8, optimizer=ONE).report
    assert report.errors["heun"] == float("inf")
    assert sum(report.calls.values()) == field.model.seen


def test_the_iterate_chosen_has_the_best_validation_psnr(bending):
    report = fs.fit(bending, 4, pairs=8, optimizer=Adam(200)).report
    quality = [entry["validation_psnr"] for entry in report.curve]
    assert report.best_iteration == quality.index(max(quality))
    assert report.start == "deis3/cosine"
    assert report.errors["fitted"] == report.curve[report.best_iteration]["validation"]
    assert report.errors["deis3/cosine"] == report.curve[0]["validation"]


def test_the_errors_are_the_rmse_on_the_last_quarter_of_the_pairs(bending, pairs):
    fitted = fs.fit(bending, 4, pairs=pairs, optimizer=GaussNewton(last_steps=0))
    assert fitted.report.pairs == {"train": 12, "validation": 4}
    for name, solver in {"fitted": fitted.solver, "midpoint": fs.classical.midpoint(2)}.items():
        error = (solver.sample(bending, pairs.x0[12:]) - pairs.x1[12:]).square().mean(1).sqrt().mean()
        assert fitted.report.errors[name] == pytest.approx(float(error), rel=1e-3, abs=1e-7)


def test_the_curve_counts_the_calls_of_the_fit(bending, pairs):
    report = fs.fit(bending, 4, pairs=pairs).report
    calls = [entry["calls"] for entry in report.curve]
    assert calls == sorted(calls)
    assert report.calls["search"] <= calls[-1] <= report.calls["search"] + report.calls["fit"]


@pytest.mark.parametrize("optimizer", ["gauss_newton", "adam"])
@pytest.mark.parametrize("more", [0, 10, 100, 500, 2000])
def test_max_calls_is_never_exceeded(bending, pairs, optimizer, more):
    limit = pairs.calls + 4 * len(pairs) + more
    bending.model.seen = pairs.calls
    options = {"optimizer": optimizer, "pairs": pairs, "loss": "mse"}
    report = fs.fit(bending, 4, max_calls=limit, **options).report
    assert bending.model.seen - report.calls["errors"] <= limit
    assert sum(report.calls.values()) == bending.model.seen
    assert report.stopped == "the budget of network calls was spent"


def test_max_calls_below_reference_and_start_is_refused(bending, pairs):
    with pytest.raises(
        ValueError, match=r"max_calls=10 is not enough: the reference took \d+ .* raise max_calls"
    ):
        fs.fit(bending, 4, pairs=pairs, max_calls=10)


def test_the_same_seed_makes_the_same_solver(bending):
    first, second = (fs.fit(bending, 4, pairs=8, seed=3).solver for _ in range(2))
    assert (first.times, first.C, first.D) == (second.times, second.C, second.D)
    assert fs.fit(bending, 4, pairs=8, seed=4).solver.D != first.D


def test_pairs_as_a_number_are_the_noises_of_the_seed(bending):
    made = fs.reference.pairs(bending, fs.noise(8, (3,), seed=3), rtol=1e-6, atol=1e-6)
    by_number = fs.fit(bending, 4, pairs=8, seed=3).solver
    assert by_number.D == fs.fit(bending, 4, pairs=made, seed=3).solver.D


def test_pairs_need_no_shape(pairs, bending):
    nameless = fs.Field(bending.model)
    assert fs.fit(nameless, 2, pairs=pairs).report.errors["fitted"] < 0.1


@pytest.mark.parametrize(
    ("init", "nfe", "size"), [(None, 4, 15), ("euler", 3, 11), ("ab2", 5, 19), ("rk4", 4, 9)]
)
def test_scale_time_starts_from_the_base_that_init_names(bending, pairs, init, nfe, size):
    fitted = fs.fit(bending, nfe, family="scale_time", init=init, pairs=pairs, optimizer=GaussNewton(2))
    assert fitted.report.start == (init or "midpoint")
    assert fitted.report.parameters == size
    assert fitted.report.errors["fitted"] < fitted.report.errors[fitted.report.start]


def test_a_family_object_and_an_initial_solver_can_be_given(bending, pairs):
    family = ScaleTime("heun", 2, train="time")
    assert fs.fit(bending, 4, family=family, pairs=pairs).report.parameters == family.size
    start = fs.classical.midpoint(2)
    report = fs.fit(bending, 4, init=start, pairs=pairs).report
    error = (start.sample(bending, pairs.x0[12:]) - pairs.x1[12:]).square().mean(1).sqrt().mean()
    assert report.start == "the given midpoint"
    assert report.errors["the given midpoint"] == pytest.approx(float(error), rel=1e-4)
    assert report.parameters == NonStationary(start).size + 4  # and the times told


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"family": "scale_time"},
        {"family": "scale_time", "init": "euler"},
        {"family": "smooth_corrections"},
    ],
    ids=str,
)
def test_fitting_beats_the_start(bending, pairs, options):
    report = fs.fit(bending, 4, pairs=pairs, **options).report
    assert report.errors["fitted"] < report.errors[report.start] / 3


@pytest.mark.parametrize("loss", ["bound", "local"])
def test_path_losses_beat_the_start(bending, pairs, loss):
    options = {"family": "scale_time", "optimizer": Adam(100)}
    report = fs.fit(bending, 4, loss=loss, pairs=pairs, **options).report
    assert report.errors["fitted"] < 0.8 * report.errors["midpoint"]


@pytest.mark.parametrize(("count", "held_out"), [(4, 2), (5, 2), (7, 2), (10, 2), (14, 4), (16, 4)])
def test_a_quarter_validates_and_two_pairs_at_least_are_left_on_either_side(bending, pairs, count, held_out):
    report = fs.fit(bending, 2, pairs=pairs[:count], optimizer=ONE).report
    assert report.pairs == {"train": count - held_out, "validation": held_out}


def test_few_iterations_say_that_they_were_used_up(bending, pairs):
    report = fs.fit(bending, 4, pairs=pairs, optimizer=GaussNewton(2)).report
    assert len(report.curve) == 1 + 2
    assert report.stopped == "the iterations were used up"


def test_the_models_parameters_stay_untouched():
    torch.manual_seed(0)
    network = fs.models.bundled("digits").model
    before = {key: value.clone() for key, value in network.state_dict().items()}
    field = fs.Field(network, shape=(1, 8, 8))
    fs.fit(field, 2, pairs=4, optimizer=Adam(3), reference=Reference(1e-3, 1e-3))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_parameters_that_require_gradients_gather_none(counting):
    network = torch.nn.Linear(3, 3).eval()
    field = fs.Field(counting(lambda x, t: network(x).tanh()), shape=(3,))
    for options in ({}, {"optimizer": Adam(3)}):
        fs.fit(field, 2, pairs=8, **options)
        assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    "options", [{}, {"optimizer": Adam(30), "family": "scale_time", "loss": "bound"}], ids=str
)
def test_a_conditional_model_is_fitted_on_its_conditions(options):
    """Sample k flows to target k; without the right targets the fit could not be this good."""
    field = fs.Field(lambda x, t, target, scale: scale * (target - x), shape=(2,))
    given = {
        "conditions": {"scale": torch.tensor(1.5)},
        "per_sample": {"target": 3 * fs.noise(16, (2,), seed=1)},
    }
    fitted = fs.fit(field, 4, pairs=16, **options, **given)
    assert fitted.report.errors["fitted"] < 0.1 * fitted.report.errors["euler"]
    fresh, target = fs.noise(5, (2,), seed=9), torch.ones(5, 2)
    exact = target + (fresh - target) * torch.tensor(-1.5).exp()
    x1 = fitted.solver.sample(field, fresh, target=target, scale=1.5)
    torch.testing.assert_close(x1, exact, rtol=0, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("optimizer", ["gauss_newton", Adam(60)], ids=str)
def test_a_network_of_low_precision_is_fitted_with_a_float32_state(dtype, optimizer):
    def network(x, t):
        return -(x.to(dtype) * (1 + t[:, None].to(dtype)))

    field = fs.Field(network, shape=(3,))
    options = {"optimizer": optimizer, "reference": Reference(1e-2, 1e-2)}
    fitted = fs.fit(field, 2, pairs=16, init="euler", **options)
    assert fitted.report.errors["fitted"] < fitted.report.errors["euler"] / 3
    assert fitted.solver.sample(field, fs.noise(2, (3,))).dtype == torch.float32


def test_the_solver_file_keeps_everything(bending, tmp_path):
    fitted = fs.fit(bending, 4, pairs=8)
    fitted.solver.save(tmp_path / "solver.json")
    loaded = fs.Solver.load(tmp_path / "solver.json")
    for name in ("times", "C", "D", "points", "end", "name", "citation", "fitted_for", "scores"):
        assert getattr(loaded, name) == getattr(fitted.solver, name)
    assert loaded.fitted_for == bending.describe()
    assert loaded.protocol == json.loads(json.dumps(fitted.solver.protocol))
    assert loaded.protocol["seed"] == 0
    assert loaded.protocol["calls"] == fitted.report.calls
    assert loaded.scores["validation_rmse"] == fitted.report.errors


@pytest.mark.all_rivals
def test_solver_file_and_report_are_strict_json_whatever_happened(tmp_path):
    """A classical solver that meets NaN at t = 1 scores infinity; pairs without an estimate have none."""

    def network(x, t):
        return torch.where(t[:, None] >= 1, torch.nan, -x * (1 + t[:, None]))

    x0 = fs.noise(8, (3,))
    pairs = fs.Pairs(x0, x0 * torch.tensor(-1.5).exp())
    fitted = fs.fit(fs.Field(network, shape=(3,)), 4, pairs=pairs)
    fitted.solver.save(tmp_path / "solver.json")
    content = strictly((tmp_path / "solver.json").read_text())
    assert content["scores"]["validation_rmse"]["heun"] is None
    assert content["protocol"]["reference_error"] is None
    assert strictly(json.dumps(fitted.report.to_dict()))["rows"][0]["errors"]["heun"] is None
    assert fs.Solver.load(tmp_path / "solver.json").scores == fitted.solver.scores


def test_the_cache_saves_the_reference_calls(bending, tmp_path):
    first = fs.fit(bending, 2, pairs=8, reference=Reference(cache=tmp_path)).solver
    bending.model.seen = 0
    again = fs.fit(bending, 2, pairs=8, reference=Reference(cache=tmp_path))
    assert again.solver.D == first.D
    assert bending.model.seen == sum(again.report.calls.values()) - again.report.calls["reference"]


@pytest.mark.all_rivals
def test_eight_calls_on_the_digits_flow_beat_every_classical_solver_three_times():
    """The main job, on noises never used in fitting: 64 pairs, at most 300 thousand network calls."""
    field = fs.models.bundled("digits")
    fit = fs.fit(field, 8, pairs=64)
    fresh = fs.reference.pairs(field, fs.noise(256, (1, 8, 8), seed=2024), rtol=1e-6, atol=1e-6)
    rivals = fs.classical.baselines(8, field.schedule, ("uniform", "cosine", "karras", "log_snr"))
    rows = fs.compare(field, {"fitted": fit.solver, **rivals}, noise=fresh).rows
    errors = {row["solver"]: row["rmse"] for row in rows}
    assert fit.report.calls["reference"] + fit.report.calls["fit"] <= 300_000
    # Measured: 3.7 times DEIS of order 3 on the cosine grid, 6 times all of the others but iPNDM there.
    assert errors.pop("fitted") < min(errors.values()) / 3


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [fs.schedules.CondOT(), fs.schedules.Cosine()], ids=lambda s: s.name)
@pytest.mark.parametrize("pairs", [8, 12, 16, 24, 48])
def test_a_fit_is_never_worse_than_its_start(pairs, schedule):
    """Seven narrow modes in 24 dimensions, where few pairs overfit: eight draws of the pairs."""
    field = fs.models.random_mixture(24, 7, schedule=schedule).field()
    fresh = fs.reference.pairs(field, fs.noise(1024, (24,), seed=31_337), rtol=1e-6, atol=1e-6)
    fits = {f"seed {seed}": fs.fit(field, 8, pairs=pairs, seed=seed).solver for seed in range(8)}
    start = fs.classical.adams_bashforth(2, 8)
    rows = fs.compare(field, {"start": start, **fits}, noise=fresh).rows
    errors = {row["solver"]: row["rmse"] for row in rows}
    assert max(errors.values()) == errors["start"]


def test_gauss_newton_takes_derivatives_and_minibatches_from_fit():
    field = fs.models.bundled("digits")
    differences, exact, few = (
        fs.fit(field, 3, pairs=16, optimizer=GaussNewton(4, **settings))
        for settings in ({}, {"jacobian": "jvp"}, {"minibatch": 4})
    )
    assert exact.report.errors["fitted"] == pytest.approx(differences.report.errors["fitted"], rel=0.2)
    assert few.report.errors["fitted"] < few.report.errors[few.report.start]
    assert few.solver.D != differences.solver.D


def test_a_fit_goes_on_from_one_with_fewer_calls():
    """It starts as good as that one on the same pairs, and ends no worse."""
    field = fs.models.bundled("digits")
    pairs = fs.reference.pairs(field, fs.noise(16, field.shape, seed=77), rtol=1e-5, atol=1e-5)
    first = fs.fit(field, 4, pairs=pairs, optimizer=GaussNewton(4, last_steps=0))
    more = fs.fit(field, 5, pairs=pairs, optimizer=GaussNewton(4), init=first.solver)
    assert more.report.start == "the given non_stationary-4, 5 calls"
    assert more.report.errors[more.report.start] == pytest.approx(first.report.errors["fitted"], rel=1e-4)
    assert more.report.errors["fitted"] < more.report.errors[more.report.start]
    with pytest.raises(ValueError, match="may make fewer"):
        fs.fit(field, 4, pairs=pairs, init=more.solver)


def test_calls_at_one_time_start_a_fit_too():
    field = fs.models.bundled("digits")
    fit = fs.fit(field, 4, pairs=8, optimizer=ONE, init=fs.classical.heun(2))
    assert fit.solver.nfe == 4
