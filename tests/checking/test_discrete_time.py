"""Networks of discrete timesteps: what is suggested for them can be written down and called."""

import json

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep.checking._whole import Whole, table_sizes, wants_whole
from fewstep.checking._wiring import alternatives, declared
from fewstep.schedules import DDPM, VP, CondOT, Discrete

STEPS = 150


class Table(nn.Module):
    """An exact network that looks its time up in an embedding table."""

    def __init__(self, network, times, labels=4):
        super().__init__()
        self.network = network
        self.labels = nn.Embedding(labels, 3)
        self.times = nn.Embedding(len(times), 1, dtype=torch.float64)
        self.times.weight.data[:, 0] = torch.as_tensor(times)
        self.requires_grad_(False).eval()

    def forward(self, x, k):
        return self.network(x, self.times(k)[:, 0])


@pytest.fixture(scope="module")
def ddpm():
    """An exact noise prediction under DDPM's linear betas, and data of it."""
    schedule = DDPM(steps=STEPS)
    network = fs.models.random_mixture(24, 7, schedule=schedule, prediction="noise")
    return network, network.sample_data(512, torch.Generator().manual_seed(5)).float()


@pytest.fixture(scope="module")
def table(ddpm):
    return Table(ddpm[0], [(STEPS - 1 - k) / STEPS for k in range(STEPS)])


def timesteps(network):
    return lambda x, k: network(x, (STEPS - 1 - k) / STEPS)


def check_suggestion(check, model, data):
    """What is suggested can be evaluated as it is printed, called at both ends of time, and passes."""
    space = {name: getattr(fs.schedules, name) for name in fs.schedules.__all__}
    numbers = DDPM(steps=STEPS).table
    expression = check.suggestion.partition("try ")[2]
    field = eval(expression, {"Field": fs.Field, "model": model, "alphas_cumprod": numbers, **space})
    for made in (field, check.corrected):
        for t in (0, 0.0, 0.37, 1.0, torch.tensor(1.0), torch.linspace(0, 1, 16)):
            assert made(data[:16], t).isfinite().all()
        assert fs.check(made, data).ok
    return field


class TestEmbeddingTables:
    @pytest.mark.parametrize("real", [True, False], ids=["data", "no data"])
    def test_the_clock_of_whole_numbers_is_named(self, table, ddpm, real):
        data = ddpm[1]
        check = fs.check(fs.Field(table, DDPM(steps=STEPS), "noise", shape=(24,)), data if real else None)
        assert [finding.name for finding in check.findings] == ["time"]
        assert "takes whole numbers as time" in check.findings[0].words
        assert "clock 'integer', not 'timestep'" in check.suggestion
        assert check.suggestion.endswith(
            "try Field(model, DDPM(steps=150), prediction='noise', clock='integer')"
        )
        assert json.loads(check.to_json())["findings"][0]["measured"] is None
        assert "measured" not in str(check)
        check_suggestion(check, table, data)

    @pytest.mark.parametrize(
        ("schedule", "prediction", "clock"),
        [
            (Discrete(DDPM(steps=STEPS).table), "velocity", None),
            (DDPM(steps=STEPS), "v", "integer"),
            (DDPM(), "noise", "integer"),  # looks beyond the end of the table
            (VP(), "noise", None),
            (CondOT(), "velocity", (1, 0)),
        ],
        ids=["discrete", "v", "too long", "vp", "flow"],
    )
    def test_other_mistakes_besides(self, table, ddpm, schedule, prediction, clock):
        wrong = fs.Field(table, schedule, prediction, shape=(24,), clock=clock)
        check = fs.check(wrong, ddpm[1])
        assert not check.ok
        right = check_suggestion(check, table, ddpm[1])
        assert right.prediction == "noise"
        assert right.clock == "integer"
        assert right.schedule.count == STEPS

    def test_a_flow_gets_a_function_that_rounds(self):
        network = fs.models.random_mixture(24, 7)
        data = network.sample_data(512, torch.Generator().manual_seed(5)).float()
        table = Table(network, torch.linspace(0, 1, STEPS, dtype=torch.float64))
        check = fs.check(fs.Field(table, shape=(24,)), data)
        assert check.suggestion.endswith("try Field(model, clock=lambda t: (149 * t).round().long())")
        check_suggestion(check, table, data)

    def test_the_right_wiring_passes(self, table, ddpm):
        assert fs.check(fs.Field(table, DDPM(steps=STEPS), "noise", shape=(24,), clock="integer"), ddpm[1]).ok

    def test_errors_for_other_reasons_come_out_as_they_are(self, ddpm):
        def broken(x, t):
            raise ValueError("no such layer")

        for data in (ddpm[1], None):
            with pytest.raises(ValueError, match="no such layer"):
                fs.check(fs.Field(broken, shape=(24,)), data)

        def needs_a_label(x, t, label):
            return x

        with pytest.raises(TypeError, match="label"):
            fs.check(fs.Field(needs_a_label, shape=(24,)), ddpm[1])

    def test_errors_of_whole_numbers(self):
        k = torch.tensor([0.5])
        for look_up in (
            nn.Embedding(4, 2),
            lambda k: torch.arange(4)[k],
            nn.functional.one_hot,
            lambda k: torch.arange(4).gather(0, k),
            lambda k: [1, 2][k],
        ):
            with pytest.raises((RuntimeError, IndexError, TypeError)) as caught:
                look_up(k)
            assert wants_whole(caught.value), caught.value
        with pytest.raises(RuntimeError) as caught:
            torch.zeros(2, 3) @ torch.zeros(2, 3)
        assert not wants_whole(caught.value)
        assert not wants_whole(None)

    def test_tables_of_labels_are_too_small(self, table):
        assert table_sizes(table) == [STEPS]
        assert table_sizes(lambda x, t: x) == []

    @pytest.mark.parametrize("clock", [Whole(9, 0), Whole(0, 9)], ids=str)
    def test_clocks_are_what_they_say(self, clock):
        t = torch.linspace(0, 1, 7)
        said = eval(repr(clock))(t)
        assert clock(t).dtype == said.dtype == torch.int64
        assert torch.equal(clock(t), said)
        assert (int(clock(t)[0]), int(clock(t)[-1])) == (clock.start, clock.end)


class TestTimesteps:
    """A schedule's own timesteps are suggested, whatever clock was declared."""

    @pytest.mark.parametrize("clock", [(0, 1), (1, 0), (1000, 0), (0, 1000)], ids=str)
    @pytest.mark.parametrize("kind", ["ddpm", "discrete"])
    def test_they_are_found(self, ddpm, kind, clock):
        network, data = ddpm
        schedule = DDPM(steps=STEPS) if kind == "ddpm" else Discrete(DDPM(steps=STEPS).table)
        model = timesteps(network)
        check = fs.check(fs.Field(model, schedule, "noise", shape=(24,), clock=clock), data)
        assert "to expect the clock 'timestep', not " in check.suggestion
        assert check_suggestion(check, model, data).clock == check.corrected.clock == "timestep"

    def test_they_are_among_the_alternatives_under_all_schedules(self):
        single, further = alternatives(declared(fs.Field(lambda x, t: x, DDPM(steps=STEPS), clock=(0, 1))))
        under = {other.schedule for other in (*single, *further) if other.clock == (149, -1)}
        assert {DDPM(steps=STEPS), DDPM("scaled_linear", steps=STEPS), CondOT(), VP()} <= under

    def test_other_betas_of_as_many_steps_are_tried(self, ddpm):
        network, data = ddpm
        wrong = fs.Field(timesteps(network), DDPM("squared_cosine", steps=STEPS), "noise", shape=(24,))
        assert check_suggestion(fs.check(wrong, data), timesteps(network), data).schedule == DDPM(steps=STEPS)

    def test_no_table_of_numbers_is_printed(self, ddpm):
        network, data = ddpm
        schedule = Discrete(DDPM(steps=STEPS).table)
        check = fs.check(fs.Field(timesteps(network), schedule, "velocity", shape=(24,)), data)
        assert "Discrete(<150 alphas_cumprod from 0.9999 to 0.2" in str(check)
        assert "Field(model, Discrete(alphas_cumprod), prediction='noise')" in str(check)
        assert max(map(len, str(check).splitlines())) < 250
        assert repr(Discrete((0.9, 0.5))) == "Discrete(alphas_cumprod=(0.9, 0.5))"


class TestSuggestionsRun:
    """A wiring that fits the data but fails at an end of time is not suggested."""

    def network(self, refused):
        exact = fs.models.random_mixture(24, 7)

        def network(x, t):
            if refused(t):
                raise ValueError("no such time")
            return exact(x, t.clamp(0, 1))

        return network, exact.sample_data(512, torch.Generator().manual_seed(5)).float()

    def test_with_data(self):
        network, data = self.network(lambda t: bool((t < 0.02).any()))
        check = fs.check(fs.Field(network, prediction="noise", shape=(24,)), data)
        assert not check.ok
        assert check.corrected is None or check.corrected(data[:4], 0.0).isfinite().all()

    def test_without_data(self):
        network, data = self.network(lambda t: bool((t > 0.97).any()))
        check = fs.check(fs.Field(network, prediction="noise", shape=(24,)))
        assert check.corrected is None or check.corrected(data[:4], 1.0).isfinite().all()

    def test_the_same_network_without_refusals_gets_a_suggestion(self):
        network, data = self.network(lambda t: False)
        assert fs.check(fs.Field(network, prediction="noise", shape=(24,)), data).corrected is not None
