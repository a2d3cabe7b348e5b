"""Lifted solvers: what they make, what they refuse, and what is kept of an interrupted training."""

import copy
import dataclasses
import pickle

import pytest
import torch

import fewstep as fs
from fewstep.lifting import Training
from fewstep.lifting._lift import _better
from fewstep.networks import Corrector

FEW = Training(iterations=60, batch=64, validate_every=20, lr=5e-3, width=16)


@pytest.fixture(scope="module")
def field():
    return fs.models.random_mixture(2, 5).field("mixture")


@pytest.fixture(scope="module")
def solver():
    return fs.classical.midpoint(1)


@pytest.fixture(scope="module")
def pairs(field):
    return fs.reference.pairs(field, fs.noise(400, (2,), seed=1), rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def lifted(solver, field, pairs):
    return fs.lift(solver, field, pairs=pairs, training=FEW)


@pytest.fixture(scope="module")
def test_pairs(field):
    return fs.reference.pairs(field, fs.noise(300, (2,), seed=2), rtol=1e-3, atol=1e-3)


def error(solver, field, pairs):
    return float(fs.metrics.rmse(solver.sample(field, pairs.x0), pairs.x1))


class Untrained:
    """A corrector with random weights, which changes every state."""

    @staticmethod
    def of(shape, calls, states=None, **options):
        torch.manual_seed(0)
        made = Corrector(shape, calls, states or range(1, calls + 1), width=8, **options)
        with torch.no_grad():
            for weight in made.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
        return made.eval().requires_grad_(False)


def by_hand(lifted, field, x0):
    """The definition, row by row, in velocities."""
    states, calls = [field.initial_state(x0)], []
    for i in range(1, lifted.nfe + 1):
        calls.append(field(states[-1], lifted.times[i - 1]))
        x = sum(c * y for c, y in zip(lifted.C[i - 1], states, strict=True))
        x = x + sum(d * u for d, u in zip(lifted.D[i - 1], calls, strict=True))
        if lifted.corrector.corrects(i):
            x = lifted.corrector(i, states[0], calls, x)
        states.append(x)
    return states[-1]


class TestSampling:
    @pytest.mark.parametrize("states", [[4], [1, 2, 3, 4], [2]])
    def test_is_the_table_with_corrections(self, field, states):
        solver = fs.classical.named("ab3", 4, field.schedule)
        lifted = fs.Lifted.of(solver, Untrained.of((2,), 4, states))
        x0 = fs.noise(5, (2,), seed=0)
        found = lifted.sample(field, x0)
        torch.testing.assert_close(found, by_hand(lifted, field, x0))
        assert (found - solver.sample(field, x0)).abs().max() > 0.01
        torch.testing.assert_close(lifted.sample(field, x0, trajectory=True).x1, found)
        assert (lifted.nfe, lifted.name) == (4, "lifted ab3")

    def test_without_weights_it_is_the_solver_bit_for_bit(self, field, solver):
        lifted = fs.Lifted.of(solver, Corrector((2,), 2, [1, 2]))
        x0 = fs.noise(5, (2,), seed=0)
        assert torch.equal(lifted.sample(field, x0), solver.sample(field, x0))

    @pytest.mark.parametrize("prediction", ["data", "noise", "v"])
    def test_a_network_with_another_prediction(self, field, prediction):
        inner = fs.classical.midpoint(2, grid=[0.1, 0.5, 0.9])
        lifted = fs.Lifted.of(inner, Untrained.of((2,), 4))
        other = fs.Field(
            lambda x, t: field.predict_as(prediction, x, t), field.schedule, prediction, shape=(2,), name="m"
        )
        x0 = fs.noise(5, (2,), seed=0).double()
        torch.testing.assert_close(lifted.sample(other, x0), lifted.sample(field, x0), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("shape", [(3,), (1, 4), (2, 20, 30), (1, 4, 8, 8)])
    def test_shapes(self, shape):
        field = fs.Field(lambda x, t: -x, shape=shape, name="m")
        lifted = fs.Lifted.of(fs.classical.euler(2), Untrained.of(shape, 2))
        x0 = fs.noise(3, shape, seed=0)
        assert lifted.sample(field, x0).shape == x0.shape

    @pytest.mark.parametrize("patch", [1, 2, 4])
    def test_convolutions_take_other_sizes(self, patch):
        field = fs.Field(lambda x, t: -x, name="m")
        lifted = fs.Lifted.of(fs.classical.euler(2), Untrained.of((3, 32, 32), 2, patch=patch))
        assert lifted.sample(field, fs.noise(2, (3, 17, 40), seed=0)).shape == (2, 3, 17, 40)

    @pytest.mark.parametrize("made", [(3,), (1, 4), (3, 32, 32)])
    @pytest.mark.parametrize("given", [(4,), (1, 5), (4, 32, 32)])
    def test_samples_of_another_shape_are_refused(self, made, given):
        lifted = fs.Lifted.of(fs.classical.euler(2), Untrained.of(made, 2))
        with pytest.raises(ValueError, match=r"samples must have .*, as in the training .* not shape \("):
            lifted.sample(fs.Field(lambda x, t: -x, name="m"), fs.noise(2, given, seed=0))

    def test_a_kernel_has_a_middle(self):
        with pytest.raises(ValueError, match="Training: kernel must be odd, not 4"):
            Training(kernel=4)


class TestLift:
    def test_is_better_on_new_noises(self, lifted, solver, field, test_pairs):
        assert error(lifted, field, test_pairs) < 0.85 * error(solver, field, test_pairs)
        assert set(lifted.lift["validation_rmse"]) == {"solver", "lifted"}
        assert lifted.lift["pairs"] == {"train": 340, "validation": 60}

    def test_the_last_state_alone_needs_no_gradients(self, solver, field, pairs, test_pairs):
        black_box = fs.Field(lambda x, t: field(x.detach(), t), shape=(2,), name="mixture")
        lifted = fs.lift(solver, black_box, pairs=pairs, states="last", training=FEW)
        assert error(lifted, field, test_pairs) < 0.9 * error(solver, field, test_pairs)
        assert [lifted.corrector.corrects(i) for i in (1, 2)] == [False, True]
        assert lifted.lift["calls"]["rollouts"] == 2 * 400
        with pytest.raises(ValueError, match="passes none to its state; pass states='last'"):
            fs.lift(solver, black_box, pairs=pairs, training=FEW)

    def test_a_teacher_makes_the_targets(self, solver, field, test_pairs, tmp_path):
        teacher = fs.classical.named("midpoint", 20, field.schedule)
        lifted = fs.lift(solver, field, pairs=300, teacher=teacher, training=FEW, folder=tmp_path)
        assert error(lifted, field, test_pairs) < 0.9 * error(solver, field, test_pairs)
        assert lifted.lift["targets"]["method"] == "midpoint"
        assert lifted.lift["calls"]["targets"] == 300 * 20
        assert len(list((tmp_path / "pairs").iterdir())) == 2

    def test_where_nothing_is_gained_the_solver_is_returned(self, field, solver):
        x0 = fs.noise(200, (2,), seed=1)
        x1 = solver.sample(field, x0) + 0.1 * fs.noise(200, (2,), seed=2)
        with pytest.warns(UserWarning, match="the corrections are not clearly better on validation"):
            found = fs.lift(solver, field, pairs=fs.Pairs(x0, x1), training=FEW)
        assert type(found) is fs.Solver
        assert found == solver

    def test_the_typical_sample_decides_where_few_decide_the_mean(self):
        rmse = fs.fitting.LOSSES["rmse"]
        before = torch.linspace(0.5, 1.5, 300)
        before[0] = 1000.0  # lies between two modes, and falls to the right one by chance
        for factor, expected in ((0.6, True), (1.0, False), (1.2, False)):
            after = factor * before
            after[0] = 1.0
            assert _better(rmse, before.square(), after.square()) is expected
        after = 0.6 * before
        after[0] = 3000.0
        assert not _better(rmse, before.square(), after.square())
        steady = torch.full((300,), 2.0)
        steady[:100] = 1.0
        assert _better(rmse, steady.square(), steady.square() * torch.tensor([1.05, 0.5, 1.05] * 100))

    @pytest.mark.parametrize(("iterations", "validations"), [(10, 2), (20, 2), (25, 3)])
    def test_the_last_step_is_validated(self, solver, field, pairs, iterations, validations):
        few = dataclasses.replace(FEW, iterations=iterations)
        lifted = fs.lift(solver, field, pairs=pairs, training=few, states="last")
        assert lifted.lift["steps"] == {"made": iterations, "best": iterations}
        assert len(lifted.lift["curve"]) == validations

    def test_steps_are_passes_through_the_pairs(self):
        assert [Training().steps(count) for count in (27, 256, 3482, 10**6)] == [150, 300, 3000, 3000]
        assert Training(iterations=7).steps(10**6) == 7

    def test_features_are_a_loss(self, solver, field, pairs):
        loss = fs.fitting.Features(lambda x: x[:, :1], name="first")
        lifted = fs.lift(solver, field, pairs=pairs, loss=loss, states="last", training=FEW)
        x = lifted.sample(field, pairs.x0)
        before = solver.sample(field, pairs.x0)
        gains = (x - pairs.x1).square().mean(0) / (before - pairs.x1).square().mean(0)
        assert gains[0] < 0.8
        assert gains[0] < gains[1]

    def test_conditions_belong_to_their_samples(self):
        field = fs.Field(lambda x, t, pull: pull - x, shape=(2,), name="m")
        pull = torch.linspace(-2, 2, 200)[:, None].expand(200, 2)
        solver = fs.classical.euler(1)
        lifted = fs.lift(solver, field, pairs=200, per_sample={"pull": pull}, training=FEW)
        assert lifted.lift["validation_rmse"]["lifted"] < 0.5 * lifted.lift["validation_rmse"]["solver"]

    def test_the_field_and_the_conditions_are_those_of_the_fit(self, tmp_path):
        field = fs.Field(lambda x, t, pull: pull - x * (1 + x.square()), shape=(2,), name="m")
        fit = fs.fit(field, 1, pairs=16, conditions={"pull": 1.0})
        with pytest.raises(ValueError, match=r"was fitted with the conditions \['pull'\], and the"):
            fs.lift(fit, pairs=fs.Pairs(fs.noise(64, (2,)), fs.noise(64, (2,))))
        lifted = fs.lift(fit, pairs=200, conditions={"pull": 1.0}, training=FEW)
        assert lifted.lift["validation_rmse"]["lifted"] < 0.8 * lifted.lift["validation_rmse"]["solver"]
        fit.save(tmp_path / "fit.json")
        for other in (fs.load(tmp_path / "fit.json"), copy.copy(fit), pickle.loads(pickle.dumps(fit))):
            with pytest.raises(ValueError, match="lift: field is missing"):
                fs.lift(other)

    def test_an_interrupted_training_ends_as_if_it_had_not_been(self, solver, field, pairs, tmp_path):
        def stopped_at(most):
            calls = 0

            def network(x, t):
                nonlocal calls
                calls += x.requires_grad
                if calls == most:
                    raise KeyboardInterrupt
                return field(x, t)

            return fs.Field(network, shape=(2,), name="mixture")

        options = {"pairs": pairs, "training": FEW}
        whole = fs.lift(solver, stopped_at(None), **options)
        with pytest.raises(KeyboardInterrupt):
            fs.lift(solver, stopped_at(60), folder=tmp_path, **options)
        assert (tmp_path / "training.safetensors").exists()
        resumed = fs.lift(solver, stopped_at(None), folder=tmp_path, **options)
        assert resumed.describe() == whole.describe()
        with pytest.raises(ValueError, match="it is of another solver, other pairs or settings"):
            fs.lift(solver, field, folder=tmp_path, seed=5, **options)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"fit": "midpoint"}, "lift: fit must be a fewstep.Solver or Fit, not a str"),
            ({"states": "all"}, "lift: states must be one of every, last, not 'all'"),
            ({"loss": "l1"}, "lift: loss must be one of mse, rmse"),
            ({"loss": fs.fitting.LOSSES["nodes"]}, "lift: loss must be a name or fitting.Features"),
            ({"pairs": 2.5}, "lift: pairs must be a number of pairs or Pairs, not 2.5"),
            ({"fit": fs.classical.euler_ancestral(3)}, "lift: solver 'euler_ancestral' adds"),
            (
                {"teacher": fs.classical.euler(2)},
                "teacher must make more than the 2 calls of 'midpoint', not 2",
            ),
            ({"training": {"iterations": 3}}, "lift: training must be fewstep.lifting.Training"),
            ({"pairs": 10}, "lift: pairs must be 64 at least"),
            ({"field": fs.Field(lambda x, t: -x, name="m"), "pairs": 64}, "give it to the Field"),
            ({"field": None}, "lift: field is missing, and 'midpoint' is no fit made here"),
        ],
    )
    def test_refused(self, field, solver, change, message):
        with pytest.raises(ValueError, match=message):
            fs.lift(**{"fit": solver, "field": field, **change})


class TestFiles:
    def test_a_folder_is_exact(self, lifted, field, tmp_path):
        lifted.save(tmp_path / "made")
        x0 = fs.noise(5, (2,), seed=0)
        for found in (fs.load(tmp_path / "made"), fs.load(tmp_path / "made" / "solver.json")):
            assert isinstance(found, fs.Lifted)
            assert torch.equal(found.sample(field, x0), lifted.sample(field, x0))
            assert (found.describe(), found.lift) == (lifted.describe(), lifted.lift)
        assert fs.Solver.load(tmp_path / "made" / "solver.json") == lifted.uncorrected

    def test_pretrained(self, lifted, tmp_path):
        lifted.save_pretrained(tmp_path)
        assert fs.Lifted.from_pretrained(tmp_path).describe() == lifted.describe()
        card = (tmp_path / "README.md").read_text(encoding="utf-8")
        assert "fs.Lifted.from_pretrained" in card
        assert "corrector.safetensors" in card
        (tmp_path / "corrector.safetensors").unlink()
        with pytest.raises(FileNotFoundError, match="corrector"):
            fs.Lifted.from_pretrained(tmp_path)

    def test_corrections_of_another_solver_are_refused(self, lifted, tmp_path):
        lifted.save(tmp_path)
        fs.classical.heun(1).save(tmp_path / "solver.json")
        with pytest.raises(ValueError, match="its corrections are not those of the solver"):
            fs.load(tmp_path)

    def test_another_network_is_refused(self, lifted, tmp_path):
        lifted.save(tmp_path)
        fs.networks.save_network(tmp_path / "corrector.safetensors", fs.networks.MLP((2,)))
        with pytest.raises(ValueError, match="its corrections are not those"):
            fs.load(tmp_path)

    def test_a_file_is_no_folder(self, lifted, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ValueError, match="a lifted solver is a folder, but this is a file"):
            lifted.save(tmp_path / "file")

    def test_corrections_for_another_number_of_calls(self):
        with pytest.raises(ValueError, match="is for solvers of 3 calls, but 'lifted euler' makes 2"):
            fs.Lifted.of(fs.classical.euler(2), Corrector((2,), 3, [3]))


class TestElsewhere:
    def test_what_would_drop_the_corrections_is_refused(self, lifted, field):
        for make in (
            lifted.unroll,
            lambda: lifted.to("data", field.schedule),
            lambda: lifted.reschedule(field.schedule, fs.schedules.Cosine()),
        ):
            with pytest.raises(ValueError, match="would leave the corrections of 'lifted midpoint' behind"):
                make()
        assert lifted.uncorrected.unroll().nfe == 2

    def test_it_is_compared_beside_its_solver(self, lifted, solver, field):
        table = fs.compare(field, [solver, lifted], noise=64, keep=4)
        errors = {row["solver"]: row["rmse"] for row in table.rows}
        assert errors["lifted midpoint"] < errors["midpoint"]
        page = str(table.page().html())
        assert "The lifts on their validation pairs" in page
        assert f"{lifted.lift['validation_rmse']['lifted']:.3g}" in page
        assert "The fits on their validation pairs" not in page
        alone = str(fs.compare(field, lifted, noise=8, keep=4).page().html())
        assert "Network calls and seconds" in page
        assert "Network calls and seconds" not in alone  # which would have no number

    def test_the_fingerprint_sees_the_weights(self, solver):
        first, second = (Corrector((2,), 2, [2]) for _ in range(2))
        with torch.no_grad():
            second.parts["2"].linear.weight.add_(1)
        prints = {fs.Lifted.of(solver, each).describe()["fingerprint"] for each in (first, second)}
        assert len(prints | {solver.describe()["fingerprint"]}) == 3

    def test_it_is_sampled_in_a_program(self, lifted, field):
        x0 = fs.noise(4, (2,), seed=0)
        compiled = torch.compile(lambda x: lifted.sample(field, x), backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x0), lifted.sample(field, x0))
