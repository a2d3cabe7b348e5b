"""The verdict on correct fields, and on fields mis-wired on purpose."""

import json
import math

import pytest
import torch

import fewstep as fs
from fewstep.schedules import DDPM, VE, VP, CondOT, Cosine

PREDICTIONS = ("velocity", "noise", "data", "v")
SCHEDULES = (CondOT(), VP(), Cosine(), VE(), DDPM("scaled_linear"))


def mixture(prediction="velocity", schedule=None):
    """An exact field, and data of it."""
    network = fs.models.random_mixture(24, 7, schedule=schedule, prediction=prediction)
    data = network.sample_data(512, torch.Generator().manual_seed(5)).float()
    return network.field(), data


def declare(field, model=None, **changes):
    """The field with some of what it declares replaced."""
    facts = {
        "schedule": field.schedule,
        "prediction": field.prediction,
        "shape": field.shape,
        "clock": field.clock,
        **changes,
    }
    return fs.Field(model or field.model, name="network", **facts)


class TestCorrectFields:
    @pytest.mark.parametrize("real", [True, False], ids=["data", "no data"])
    @pytest.mark.parametrize(
        ("schedule", "prediction"),
        list(zip(SCHEDULES, ("velocity", "noise", "v", "data", "noise"), strict=True)),
        ids=lambda value: getattr(value, "name", value),
    )
    def test_exact_fields_pass(self, schedule, prediction, real):
        field, data = mixture(prediction, schedule)
        check = fs.check(field, data if real else None, seed=1)
        assert check.ok, str(check)
        assert check.corrected is None
        assert check.loss < -1  # narrow modes: a linear filter is far worse

    @pytest.mark.parametrize("real", [True, False], ids=["data", "no data"])
    def test_a_trained_flow_passes(self, flow, digits, real):
        check = fs.check(flow, digits if real else None, seed=1)
        assert check.ok, str(check)
        assert check.calls < 100

    def test_a_field_of_gaussian_data_passes_with_data_and_is_as_good_as_linear(self):
        network = fs.models.random_mixture(16, 1, std=0.7)
        data = network.sample_data(4096, torch.Generator().manual_seed(5)).float()
        check = fs.check(network.field(), data, samples=256)
        assert check.ok
        assert check.loss == pytest.approx(0, abs=0.03)
        assert check.calibration == pytest.approx(0, abs=0.03)

    def test_without_data_a_gaussian_field_cannot_be_told_from_a_broken_one(self):
        network = fs.models.random_mixture(16, 1, std=0.7)
        assert [finding.name for finding in fs.check(network.field(), samples=48).findings] == ["structure"]


class TestMistakes:
    @pytest.mark.parametrize(
        "real", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["data", "no data"]
    )
    @pytest.mark.parametrize(
        ("changes", "suggestion"),
        [
            ({"prediction": "noise"}, "to predict the velocity, not the noise"),
            ({"prediction": "data"}, "to predict the velocity, not the data"),
            ({"prediction": "v"}, "to predict the velocity, not v"),
            ({"clock": (1, 0)}, "to expect the clock (0, 1), not (1, 0)"),
            ({"clock": (1000, 0)}, "to expect the clock (0, 1), not (1000, 0)"),
            ({"schedule": VP()}, "to be trained under CondOT(), not VP()"),
            ({"schedule": Cosine()}, "to be trained under CondOT(), not Cosine()"),
        ],
        ids=str,
    )
    def test_a_mistake_with_the_digits_is_found_and_named(self, flow, digits, changes, suggestion, real):
        check = fs.check(declare(flow, **changes), digits if real else None, seed=1)
        assert not check.ok
        assert suggestion in check.suggestion
        key = next(iter(changes))
        assert getattr(check.corrected, key) == getattr(flow, key)

    @pytest.mark.parametrize(
        "real", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["data", "no data"]
    )
    def test_minus_the_velocity(self, flow, digits, real):
        wrong = declare(flow, lambda x, t: -flow.model(x, t))
        check = fs.check(wrong, digits if real else None, seed=1)
        assert "to predict minus the velocity" in check.suggestion
        x, t = torch.randn(4, 1, 8, 8), 0.3
        torch.testing.assert_close(check.corrected(x, t), flow(x, t))

    @pytest.mark.parametrize(
        "real", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["data", "no data"]
    )
    def test_the_convention_from_data_to_noise_in_thousandths(self, flow, digits, real):
        """As in Stable Diffusion 3: noise minus data, told 1000 in pure noise."""
        wrong = declare(flow, lambda x, t: -flow.model(x, 1 - t / 1000))
        check = fs.check(wrong, digits if real else None, seed=1)
        assert "try Field(lambda x, t, **c: -model(x, t, **c), clock=(1000, 0))" in check.suggestion

    def test_reversed_time_without_data(self, flow):
        check = fs.check(declare(flow, clock=(1, 0)), samples=48)
        assert {finding.name for finding in check.findings} == {"structure", "calibration"}
        assert check.corrected.clock == (0, 1)

    def test_two_mistakes_at_once(self, flow, digits):
        check = fs.check(declare(flow, prediction="noise", schedule=Cosine()), digits, seed=1)
        assert (check.corrected.prediction, check.corrected.schedule) == ("velocity", CondOT())

    def test_a_neighbouring_schedule_that_the_network_hardly_minds_needs_data(self):
        field, data = mixture("data", Cosine())
        check = fs.check(declare(field, schedule=CondOT()), data, seed=1)
        assert [finding.name for finding in check.findings] == ["wiring"]
        assert check.corrected.schedule == Cosine()

    def test_networks_that_return_no_numbers(self, digits):
        broken = fs.Field(lambda x, t: x / 0, shape=(1, 8, 8))
        for data in (digits, None):
            check = fs.check(broken, data, samples=16)
            assert check.findings[0].name == "finite"
            assert json.loads(check.to_json())["findings"][0]["measured"] is None

    def test_a_network_that_refuses_other_times_is_still_judged(self, flow, digits):
        def strict(x, t):
            if t.max() > 1:
                raise IndexError("no such timestep")
            return flow.model(x, t)

        assert "clock (0, 1)" in fs.check(declare(flow, strict, clock=(1, 0)), digits).suggestion


class TestWhatCannotBeToldApart:
    def test_clocks_of_a_network_without_time(self):
        field, data = mixture("data", Cosine())
        blind = declare(field, lambda x, t: field.model(x, torch.full_like(t, 0.5)), schedule=VE())
        assert "to expect the clock (1, 0), not (0, 1)" in fs.check(blind, data).alike


def test_a_straight_flow_passes():
    """Each coordinate is pushed to its side: ``x1 = sign(x0) + x0 / 5``, along straight lines."""

    def velocity(x, t):
        x0 = x.sign() * (x.abs() - t[:, None]).clamp(min=0) / (1 - 0.8 * t[:, None])
        return x.sign() + x0 / 5 - x0

    x0 = torch.randn(2048, 8, generator=torch.Generator().manual_seed(0))
    field = fs.Field(velocity, shape=(8,))
    for data in (x0.sign() + x0 / 5, None):
        check = fs.check(field, data)
        assert check.ok, str(check)
    # The same flow is wrong for data that it does not lead to.
    assert not fs.check(field, x0.sign() + x0 / 5 + 1).ok


class TestArguments:
    def test_the_same_seed_measures_the_same(self, flow, digits):
        first, again, other = (fs.check(flow, digits, seed=seed) for seed in (3, 3, 4))
        assert first.loss == again.loss
        assert first.loss != other.loss

    def test_calls_are_counted(self, flow, digits, counted):
        network = counted(flow.model)
        check = fs.check(declare(flow, network), digits)
        assert check.calls == len(network.times) <= 80

    def test_guidance_is_switched_off_and_said_to_be(self, flow, digits):
        seen = []

        def network(x, t, label):
            seen.append(label)
            return flow.model(x, t)

        guided = fs.Field(network, shape=flow.shape, guidance=5.0, unconditional={"label": None})
        check = fs.check(guided, digits, conditions={"label": "cat"})
        assert check.ok
        # What guidance leads away from is judged by itself.
        assert seen.count(None) == 7
        assert set(seen) == {"cat", None}
        assert "guidance was switched off" in str(check)
        assert guided.guidance == 5.0

    def test_conditions_of_the_data_go_with_them(self, flow, digits):
        """A network that returns what belongs to each row denoises perfectly."""

        def oracle(x, t, answer):
            return answer

        field = fs.Field(oracle, prediction="data", shape=flow.shape)
        check = fs.check(field, digits, samples=32, per_sample={"answer": digits})
        assert check.loss == pytest.approx(math.log(1e-3))

    def test_no_more_samples_than_data(self, flow, digits):
        assert fs.check(flow, digits[:40]).samples == 40

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"per_sample": {"label": torch.zeros(9)}}, "label has 9 rows for 128 samples"),
            ({"samples": 4}, "needs 16 samples or more, not samples=4"),
            ({"data": torch.zeros(4, 1, 8, 8)}, "needs 16 samples or more, not samples=128 of 4 data"),
            ({"data": torch.full((40, 1, 8, 8), math.nan)}, "data: must be finite"),
        ],
    )
    def test_wrong_arguments(self, flow, arguments, message):
        with pytest.raises(ValueError, match=message):
            fs.check(flow, **arguments)

    def test_an_unknown_shape(self, flow):
        with pytest.raises(ValueError, match="does not know the shape of a sample; pass shape="):
            fs.check(fs.Field(flow.model))
        assert fs.check(fs.Field(flow.model), shape=(1, 8, 8)).ok

    def test_a_derived_field(self, flow):
        with pytest.raises(ValueError, match="was derived from another field"):
            fs.check(flow.reversed())


def test_in_words(flow, digits):
    text = str(fs.check(declare(flow, prediction="noise"), digits))
    assert text.splitlines()[0] == "Field(network, CondOT(), prediction='noise')"
    assert "=> the network seems to predict the velocity, not the noise" in text
    assert "try Field(model)" in text
    assert "ok: nothing speaks against how it is wired" in str(fs.check(flow, digits))


def test_as_json(flow, digits):
    content = json.loads(fs.check(flow, digits).to_json())
    assert content["ok"] is True
    assert content["findings"] == []
    assert content["data"] is True


@pytest.mark.slow
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_every_mistake_with_an_exact_field_is_found_with_data(schedule, prediction):
    field, data = mixture(prediction, schedule)
    network = field.model
    faults = [{"prediction": other} for other in PREDICTIONS if other != prediction]
    faults += [{"clock": clock} for clock in ((1, 0), (0, 1000), (1000, 0))]
    faults += [{"schedule": other} for other in SCHEDULES if other != schedule]
    faults += [{"model": lambda x, t: -network(x, t)}]
    for changes in faults:
        check = fs.check(declare(field, **{"model": lambda x, t: network(x, t.clamp(0, 1)), **changes}), data)
        assert not check.ok, changes
        if "model" not in changes:
            (key,) = changes
            assert getattr(check.corrected, key) == getattr(field, key), changes
    assert fs.check(field, data).ok
