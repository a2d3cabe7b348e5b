"""Conditions: shared ones are passed on untouched, those of the samples are cut and gathered with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.metrics import inversion_error

pytestmark = pytest.mark.usefixtures("few_rivals")

EULER = fs.classical.euler(4)
TIGHT = {"rtol": 1e-8, "atol": 1e-8}
#: Few iterations are enough for fields that are nearly linear.
QUICK = fs.fitting.GaussNewton(iterations=4)


def target_of(value):
    """The number that a label of any kind stands for."""
    if isinstance(value, torch.Tensor):
        return value.double()
    return torch.as_tensor(
        [float(one if isinstance(one, torch.Tensor) else str(one)[-1]) for one in value]
    ).double()


def towards(x, t, label):
    """``dx/dt = label - x``, ``x(1) = label + (x(0) - label) / e``, for labels in any form, one a state."""
    goal = target_of(label["class"] if isinstance(label, dict) else label)
    assert goal.shape == x.shape[:1]
    return goal[:, None].to(x) - x


def exact(x0, goal):
    goal = goal[:, None].to(x0)
    return goal + (x0 - goal) * torch.tensor(-1.0, dtype=torch.float64).exp().to(x0)


COUNT = 12
DIGITS = [k % 7 for k in range(COUNT)]
KINDS = {
    "tensor": torch.tensor(DIGITS),
    "array": np.array(DIGITS),
    "strings": [f"class {k}" for k in DIGITS],
    "tuple": tuple(DIGITS),
    "tensors": [torch.tensor(k) for k in DIGITS],
    "string array": np.array([f"class {k}" for k in DIGITS]),
    "nested": {"class": torch.tensor(DIGITS)},
    "nested list": {"class": [f"class {k}" for k in DIGITS]},
}
GOAL = torch.tensor(DIGITS)


@pytest.fixture(params=list(KINDS), ids=str)
def label(request):
    return KINDS[request.param]


@pytest.fixture
def field():
    return fs.Field(towards, shape=(2,), name="towards")


class TestPerSample:
    """Split into batches or not, every sample goes to its own target, whatever its label comes in."""

    x0 = fs.noise(COUNT, (2,), dtype=torch.float64)

    def test_of_the_reference(self, field, label):
        pairs = fs.reference.pairs(field, self.x0, batch=5, per_sample={"label": label}, **TIGHT)
        torch.testing.assert_close(pairs.x1, exact(self.x0, GOAL), rtol=0, atol=1e-6)
        part = pairs[torch.tensor([7, 0, 7])]
        torch.testing.assert_close(part.bind(field)(part.x0, 0.0), GOAL[[7, 0, 7]][:, None] - part.x0)

    def test_of_the_adaptive_solver(self, field, label):
        slow = fs.Field(lambda x, t, label: (1 + 9 * (x[:, :1].abs() > 1)) * towards(x, t, label))
        result = fs.Adaptive(1e-8, 1e-8).sample(slow, self.x0, per_sample={"label": label})
        assert len(result.nfe.unique()) > 1  # samples that arrive leave the others
        alone = torch.cat([
            fs.Adaptive(1e-8, 1e-8).sample(slow, x[None], conditions={"label": GOAL[k : k + 1]}).x1
            for k, x in enumerate(self.x0)
        ])  # fmt: skip
        torch.testing.assert_close(result.x1, alone, rtol=0, atol=1e-9)

    def test_of_the_likelihood(self, field, label):
        found = fs.log_likelihood(field, self.x0, batch=5, per_sample={"label": label}, **TIGHT)
        latents = GOAL[:, None] + (self.x0 - GOAL[:, None]) * torch.tensor(1.0, dtype=torch.float64).exp()
        torch.testing.assert_close(found.latents, latents, rtol=0, atol=1e-5)

    def test_of_generated_files(self, field, label, tmp_path):
        fs.generate(
            field, EULER, range(COUNT), tmp_path, batch=5, shard=8, formats=["pairs"],
            per_sample={"label": label},
        )  # fmt: skip
        made = [fs.Pairs.load(path) for path in sorted(tmp_path.glob("pairs-*"))]
        x0, x1 = (torch.cat([getattr(part, name) for part in made]) for name in ("x0", "x1"))
        goal = GOAL[:, None].float()
        torch.testing.assert_close(x1, goal + (x0 - goal) * 0.75**4)

    def test_of_a_comparison(self, field, label):
        options = {"noise": COUNT, "per_sample": {"label": label}, "keep": 1}
        split, whole = (
            fs.compare(field, EULER, batch=batch, **options).rows[0]["rmse"] for batch in (5, COUNT)
        )
        assert split == pytest.approx(whole, rel=1e-5)
        x0 = fs.noise(COUNT, (2,), seed=1_000_003)
        goal = GOAL[:, None].float()
        expected = fs.metrics.rmse(goal + (x0 - goal) * 0.75**4, exact(x0, GOAL))
        assert whole == pytest.approx(float(expected), rel=1e-4)

    def test_of_a_fit(self, field, label):
        found = fs.fit(
            field,
            2,
            pairs=COUNT,
            batch=7,
            optimizer=QUICK,
            per_sample={"label": label},
        )
        x1 = found.solver.sample(field, self.x0.float(), label=label)
        assert float((x1 - exact(self.x0.float(), GOAL)).square().mean().sqrt()) < 0.02

    def test_of_an_inversion(self, field, label):
        split, whole = (
            inversion_error(field, EULER, self.x0, batch=batch, per_sample={"label": label}).error.value
            for batch in (5, COUNT)
        )
        assert split == pytest.approx(whole, rel=1e-12)

    def test_of_a_grid_search(self, field, label):
        split, whole = (
            fs.grids.gits(
                field, 2, COUNT, candidates=fs.grids.uniform(6), batch=b, per_sample={"label": label}
            )
            for b in (5, COUNT)
        )
        assert split.grid == whole.grid
        assert split.cost == pytest.approx(whole.cost, rel=1e-4)


def test_a_check_takes_the_rows_of_its_data():
    data = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)).sign()
    oracle = fs.Field(lambda x, t, answer: answer["value"], prediction="data", shape=(4,))
    found = fs.check(oracle, data, samples=32, per_sample={"answer": {"value": data}})
    assert found.loss < -6  # a thousandth of the error of the best linear filter


@pytest.mark.parametrize("count", [16, 17, 32])
def test_shared_values_are_never_cut_whatever_their_size(tmp_path, count):
    """Sixteen tokens that all samples share, for 16 samples: the mean is that of all of them."""
    ids = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    seen = set()

    def network(x, t, ids):
        seen.add(id(ids))
        return ids.mean(0) - x

    field, given = fs.Field(network, shape=(2,), name="mean"), {"ids": ids}
    x0, mean = fs.noise(count, (2,)), ids.mean(0)
    solved = mean + (x0 - mean) * torch.tensor(-1.0).exp()
    pairs = fs.reference.pairs(field, x0, batch=4, conditions=given, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(pairs.x1, solved, rtol=0, atol=1e-5)
    adaptive = fs.Adaptive(1e-6, 1e-6).sample(field, x0, conditions=given)
    torch.testing.assert_close(adaptive.x1, solved, rtol=0, atol=1e-5)
    fs.generate(field, EULER, range(count), tmp_path, batch=8, formats=("pairs",), conditions=given)
    (path,) = tmp_path.glob("pairs-*")
    torch.testing.assert_close(fs.Pairs.load(path).x1, mean + (x0 - mean) * 0.75**4)
    fitted = fs.fit(field, 2, pairs=pairs, batch=5, optimizer=QUICK)
    torch.testing.assert_close(fitted.solver.sample(field, x0, **given), solved, rtol=0, atol=1e-3)
    assert seen == {id(ids)}  # handed on untouched, not even copied


@pytest.mark.parametrize("name", ["batch", "seed", "max_nfe", "progress", "field", "x0", "device"])
def test_a_condition_may_be_called_like_an_argument(name):
    field = fs.Field(lambda x, t, **given: given[name][:, None] - x, shape=(2,))
    x0 = fs.noise(COUNT, (2,))
    pairs = fs.reference.pairs(field, x0, batch=5, per_sample={name: GOAL}, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(pairs.x1, exact(x0, GOAL), rtol=0, atol=1e-5)


def test_one_row_serves_all_samples(field):
    x0 = fs.noise(COUNT, (2,))
    for one in (torch.tensor([3]), ["class 3"], (3,), np.array([3])):
        pairs = fs.reference.pairs(field, x0, batch=5, per_sample={"label": {"class": one}})
        torch.testing.assert_close(pairs.x1, exact(x0, torch.full((COUNT,), 3)), rtol=0, atol=1e-4)
        assert len(pairs[2:4].per_sample["label"]["class"]) == 1


def never(x, t, **conditions):
    raise NotImplementedError("the network was called")


CALLERS = {
    "pairs": lambda field, **given: fs.reference.pairs(field, fs.noise(12, (2,)), batch=5, **given),
    "fit": lambda field, **given: fs.fit(field, 4, pairs=12, **given),
    "several calls": lambda field, **given: fs.fit(field, (4, 6), pairs=12, **given),
    "search": lambda field, **given: fs.search(field, (4,), pairs=8, test=4, **given),
    "compare": lambda field, **given: fs.compare(field, EULER, noise=12, **given),
    "check": lambda field, **given: fs.check(field, torch.zeros(12 + 8, 2)[:16], samples=16, **given),
    "Adaptive": lambda field, **given: fs.Adaptive().sample(field, fs.noise(12, (2,)), **given),
    "generate": lambda field, **given: fs.generate(field, EULER, range(12), "never written", **given),
    "likelihood": lambda field, **given: fs.log_likelihood(field, fs.noise(12, (2,)), **given),
    "inversion": lambda field, **given: inversion_error(field, EULER, fs.noise(12, (2,)), **given),
    "gits": lambda field, **given: fs.grids.gits(field, 3, 12, **given),
}


@pytest.mark.parametrize("call", list(CALLERS.values()), ids=list(CALLERS))
class TestMistakes:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (
                {"per_sample": {"label": torch.zeros(8)}},
                r"^label has 8 rows for (12|16) \w+; pass one row for",
            ),
            ({"per_sample": {"added": {"text": ["a"] * 5}}}, r"^added\.text has 5 rows for (12|16) \w+; "),
            ({"per_sample": {"scale": 2.0}}, "scale is a float without rows; .* or put it into conditions"),
            ({"per_sample": {"prompt": "a cat"}}, "prompt is a str without rows"),
            ({"per_sample": torch.zeros(12)}, "per_sample: must be a mapping .*, not Tensor"),
            ({"conditions": {"a": 1}, "per_sample": {"a": torch.zeros(12)}}, "a is in conditions too"),
        ],
    )
    def test_are_named_before_any_call(self, call, given, message):
        with pytest.raises(ValueError, match=message):
            call(fs.Field(never, shape=(2,), name="never"), **given)

    def test_of_spelling_are_type_errors(self, call):
        with pytest.raises(TypeError, match="unexpected keyword argument 'max_call'"):
            call(fs.Field(never, shape=(2,), name="never"), max_call=10)

    def test_of_unconditional_are_named(self, call):
        null = {"label": torch.zeros(3)}
        field = fs.Field(never, shape=(2,), name="never", guidance=2.0, unconditional=null)
        with pytest.raises(ValueError, match=r"^unconditional label has 3 rows for (12|16) \w+; "):
            call(field, per_sample={"label": torch.zeros(1)})


class TestUnconditional:
    """``away + w (given - away)`` with ``given = label - x`` and ``away = null - x``."""

    x0 = fs.noise(COUNT, (2,))

    @staticmethod
    def guided(null, **options):
        return fs.Field(towards, shape=(2,), name="guided", guidance=3.0, unconditional=null, **options)

    @pytest.mark.parametrize("rows", [1, COUNT])
    @pytest.mark.parametrize("nested", [False, True])
    @pytest.mark.parametrize("kind", ["tensor", "array", "list"])
    def test_one_row_is_expanded_and_many_are_cut(self, rows, nested, kind):
        make = {"tensor": torch.tensor, "array": np.array, "list": list}[kind]
        null = torch.arange(float(rows)) % 5
        wrap = (lambda value: {"label": {"class": value}}) if nested else (lambda value: {"label": value})
        field = self.guided(wrap(make(null.int().tolist())))
        goal = null.int().expand(COUNT) + 3 * (GOAL - null.int().expand(COUNT))
        for given in (GOAL, GOAL[:1]):
            target = goal if len(given) > 1 else null.int() + 3 * (GOAL[:1] - null.int())
            target = target.expand(COUNT)
            own = wrap(make(given.tolist()))
            pairs = fs.reference.pairs(field, self.x0, batch=5, per_sample=own, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(pairs.x1, exact(self.x0, target), rtol=0, atol=1e-4)
        fitted = fs.fit(
            field,
            2,
            pairs=COUNT,
            batch=7,
            optimizer=QUICK,
            per_sample=wrap(make(DIGITS)),
        )
        x1 = fitted.solver.sample(pairs_bound := field.bind({}, wrap(make(DIGITS)), COUNT), self.x0)
        torch.testing.assert_close(x1, exact(self.x0, goal), rtol=0, atol=0.1)
        torch.testing.assert_close(
            EULER.sample(pairs_bound.reversed().rows(slice(2, 5)), self.x0[2:5]),
            goal[2:5, None] + (self.x0[2:5] - goal[2:5, None]) * 1.25**4,
        )

    def test_one_row_is_expanded_in_plain_calls_where_what_it_replaces_has_the_rows_of_the_batch(self):
        field = self.guided({"label": torch.zeros(1)})
        torch.testing.assert_close(field(self.x0, 0.3, label=GOAL), 3 * GOAL[:, None] - self.x0)
        x1 = EULER.sample(field, self.x0, label=GOAL)
        goal = 3 * GOAL[:, None]
        torch.testing.assert_close(x1, goal + (self.x0 - goal) * 0.75**4)

    def test_what_replaces_a_shared_value_is_handed_on_untouched(self):
        seen = []

        def network(x, t, text):
            seen.append(tuple(text.shape))
            return text.mean(0) - x

        field = fs.Field(network, shape=(2,), guidance=2.0, unconditional={"text": torch.zeros(1, 2)})
        shared = {"text": torch.ones(COUNT, 2)}
        fs.reference.pairs(field, self.x0, batch=5, conditions=shared)
        assert set(seen) == {(1, 2), (COUNT, 2)}

    def test_what_has_no_rows_stands_for_all(self):
        def network(x, t, label):
            return -x if label is None else towards(x, t, label)

        field = fs.Field(network, shape=(2,), guidance=2.0, unconditional={"label": None})
        pairs = fs.reference.pairs(field, self.x0, batch=5, per_sample={"label": GOAL}, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(pairs.x1, exact(self.x0, 2 * GOAL), rtol=0, atol=1e-4)


class TestBinding:
    def test_a_bound_field_takes_no_conditions(self, field):
        bound = field.bind({}, {"label": GOAL}, COUNT)
        with pytest.raises(TypeError, match="its conditions are bound, but label came besides"):
            bound(torch.zeros(COUNT, 2), 0.0, label=GOAL)
        with pytest.raises(ValueError, match="bound already"):
            bound.bind({"scale": 2}, None, COUNT)

    def test_it_must_be_called_with_its_samples(self, field):
        bound = field.bind({}, {"label": GOAL}, COUNT)
        with pytest.raises(ValueError, match="label has 12 rows for 5 states"):
            bound(torch.zeros(5, 2), 0.0)
        with pytest.raises(ValueError, match="bound for 12 samples, not for 5 pairs"):
            fs.reference.pairs(bound, torch.zeros(5, 2))

    def test_it_can_be_solved_in_batches(self, field):
        x0 = fs.noise(COUNT, (2,))
        pairs = fs.reference.pairs(field.bind({}, {"label": GOAL}, COUNT), x0, batch=5)
        torch.testing.assert_close(pairs.x1, exact(x0, GOAL), rtol=0, atol=1e-4)

    def test_derived_fields_bind_the_field_that_they_are_made_of(self, field):
        x0 = fs.noise(COUNT, (2,))
        for derive in (fs.Field.reversed, lambda one: one.reschedule(fs.schedules.Cosine())):
            expected = derive(field)(x0[3:8], 0.4, label=GOAL[3:8])
            for bound in (
                derive(field.bind({}, {"label": GOAL}, COUNT)),
                derive(field).bind({}, {"label": GOAL}, COUNT),
            ):
                assert torch.equal(bound.rows(slice(3, 8))(x0[3:8], 0.4), expected)

    @pytest.mark.parametrize(
        "index", [slice(2, 9, 3), torch.tensor([5, 5, -1]), torch.arange(COUNT) % 3 == 1], ids=str
    )
    def test_rows_are_those_of_the_index(self, field, index, label):
        x = torch.zeros(COUNT, 2, dtype=torch.float64)[index]
        u = field.bind({}, {"label": label}, COUNT).rows(index)(x, 0.0)
        assert torch.equal(u, GOAL[index][:, None].double().expand(-1, 2))

    def test_conditions_are_part_of_the_fingerprint(self, field):
        whole = field.bind({}, {"label": GOAL}, COUNT)
        every = [field, whole, whole.rows(slice(3)), field.bind({"label": GOAL}, {}, COUNT)]
        assert len({one.fingerprint() for one in every}) == 4
