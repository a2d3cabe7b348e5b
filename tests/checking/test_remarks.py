"""Data in another range, samples that leave it, and labels that are missing."""

import pytest
import torch

import fewstep as fs
from fewstep.checking._remarks import other_ranges
from fewstep.schedules import DDPM


class TestRange:
    @pytest.mark.parametrize(
        ("moved", "words"),
        [
            (lambda d: (d + 1) / 2, "trained on data in [-1, 1], not [0, 1]"),
            (lambda d: (d + 1) * 127.5, "trained on data in [-1, 1], not [0, 255]"),
        ],
        ids=["unit", "bytes"],
    )
    def test_it_is_named(self, flow, digits, moved, words):
        check = fs.check(flow, moved(digits))
        assert [finding.name for finding in check.findings] == ["range"]
        assert check.findings[0].measured > 2
        assert words in check.suggestion
        assert check.corrected is None
        data = moved(digits)
        again = eval(check.suggestion.partition("pass ")[2], {"data": data})
        torch.testing.assert_close(again, digits, atol=1e-5, rtol=0)
        assert check.calls < 90

    def test_a_network_of_data_from_0_to_1(self, digits):
        unit = (digits + 1) / 2
        network = fs.models.GaussianMixture(unit[:1000].flatten(1), 0.1)

        def model(x, t):
            return network(x.flatten(1), t).reshape(x.shape).to(x)

        field = fs.Field(model, shape=(1, 8, 8))
        assert fs.check(field, unit).ok
        check = fs.check(field, digits)
        assert "trained on data in [0, 1], not [-1, 1]" in check.suggestion
        assert check.suggestion.endswith("pass (data + 1) / 2")

    def test_a_wrong_wiring_is_not_blamed_on_it(self, flow, digits):
        check = fs.check(fs.Field(flow.model, prediction="noise", shape=(1, 8, 8)), digits)
        assert "range" not in {finding.name for finding in check.findings}
        assert check.corrected.prediction == "velocity"

    def test_only_ranges_of_pictures_are_moved(self):
        x = torch.linspace(0, 1, 5)
        assert [each.name for each in other_ranges(x)] == ["[-1, 1]"]
        assert [each.name for each in other_ranges(2 * x - 1)] == ["[0, 1]"]
        assert [each.name for each in other_ranges(255 * x)] == ["[-1, 1]", "[0, 1]"]
        assert other_ranges(3 * x - 1.5) == other_ranges(300 * x) == []


class TestRunaway:
    def data(self, network):
        return network.sample_data(512, torch.Generator().manual_seed(5)).float()

    def test_a_right_wiring_whose_ode_diverges(self):
        """It denoises noised data perfectly, but pushes nearly clean states away."""
        exact = fs.models.random_mixture(24, 7)

        def network(x, t):
            return exact(x, t) + 60.0 * (t > 0.9)[:, None]

        check = fs.check(fs.Field(network, shape=(24,)), self.data(exact))
        assert check.ok
        (note,) = (note for note in check.notes if "diverges" in note)
        assert note.startswith("wired right, but its ODE diverges: samples by 16 calls have means from ")
        assert "alpha(0)" not in note
        assert note in str(check)

    def test_infinite_samples_do_as_well(self):
        exact = fs.models.random_mixture(24, 7)

        def network(x, t):
            return torch.where((t < 0.05)[:, None], torch.inf, exact(x, t))

        check = fs.check(fs.Field(network, shape=(24,)), self.data(exact))
        assert any("diverges" in note for note in check.notes)

    @pytest.mark.parametrize("mean", [6.0, -6.0, None], ids=["right", "wrong", "unknown"])
    def test_signal_in_the_noise_is_a_reason(self, mean):
        """Data of mean 6 under a schedule that ends with signal: samples need their moments."""
        schedule = DDPM(steps=150)
        exact = fs.models.GaussianMixture(torch.full((1, 24), 6.0), 0.1, None, schedule, "noise")
        wild = fs.models.random_mixture(24, 7, schedule=schedule, prediction="noise")

        def network(x, k):
            t = (149 - k) / 150
            far = (x.mean(dim=1, keepdim=True) - 6 * schedule(t)[0][:, None]).abs() > 1
            return torch.where(far, exact(x, t) + 20 * wild(x, t), exact(x, t))

        moments = {} if mean is None else {"data_moments": (mean, 0.1)}
        field = fs.Field(network, schedule, "noise", shape=(24,), **moments)
        notes = [note for note in fs.check(field, self.data(exact)).notes if "diverges" in note]
        assert bool(notes) == (mean != 6)
        assert all(("so give the field data_moments=(mean, std)" in n) == (mean is None) for n in notes)

    def test_exact_fields_stay_in_range(self):
        for schedule in (DDPM(steps=300), fs.schedules.VE(), fs.schedules.VP()):
            exact = fs.models.random_mixture(24, 7, schedule=schedule, prediction="noise")
            assert fs.check(exact.field(), self.data(exact)).notes == ()


class TestLabels:
    @staticmethod
    def labelled(null):
        """Two modes by label; ``null`` answers for the label that is missing."""
        modes = [fs.models.GaussianMixture(torch.full((1, 24), mean), 0.3) for mean in (-1.0, 1.0)]
        both = fs.models.GaussianMixture(torch.tensor([[-1.0], [1.0]]).expand(2, 24), 0.3)

        def network(x, t, y=None):
            if y is None:
                return null(x, t, both)
            outputs = torch.stack([mode(x, t) for mode in modes])
            known = torch.where((y == 1)[:, None], outputs[1], outputs[0])
            return torch.where((y == 2)[:, None], null(x, t, both), known)

        y = torch.arange(512) % 2
        generator = torch.Generator().manual_seed(5)
        parts = torch.stack([mode.sample_data(512, generator) for mode in modes])
        return network, parts[y, torch.arange(512)].float(), y

    @pytest.mark.parametrize("right", [True, False])
    def test_a_null_label_that_is_misread_is_noticed(self, right):
        network, data, y = self.labelled(lambda x, t, both: both(x, t) if right else -3 * x)
        field = fs.Field(network, shape=(24,), guidance=2.0, unconditional={"y": torch.tensor([2])})
        check = fs.check(field, data, per_sample={"y": y})
        assert check.ok
        assert any(
            "with y as in unconditional the network denoises the data badly" in n for n in check.notes
        ) == (not right)

    def test_labels_that_were_not_passed_are_named_where_something_is_wrong(self):
        network, data, y = self.labelled(lambda x, t, both: -3 * x)
        check = fs.check(fs.Field(network, shape=(24,)), data)
        assert not check.ok
        assert "the network takes y, which was not passed" in str(check)
        words = "which was not passed"
        assert words not in str(fs.check(fs.Field(network, shape=(24,)), data, per_sample={"y": y}))
        wrong = fs.Field(lambda x, t: -3 * x, shape=(24,))
        assert words not in str(fs.check(wrong, data))
