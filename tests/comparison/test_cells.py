import math

import pytest
import torch

import fewstep as fs

EULER, MIDPOINT = fs.classical.euler(4), fs.classical.midpoint(2)


class Count:
    """A quality that is the number of samples."""

    names = ("count",)

    def __init__(self):
        self.seen = 0

    def describe(self):
        return {"quality": "count"}

    def meter(self):
        return Count()

    def update(self, x1):
        self.seen += len(x1)

    def figures(self):
        return {"count": float(self.seen)}


class TestCache:
    def compare(self, counted, folder, solvers=(EULER, MIDPOINT), **options):
        network = counted(lambda x, t: -x)
        x0 = fs.noise(6, (2,), seed=5)
        pairs = fs.Pairs(x0, x0 * math.exp(-1))
        named = fs.Field(network, shape=(2,), name="decay")
        return fs.compare(named, solvers, noise=pairs, cache=folder, **options), len(network.times)

    def test_what_was_measured_is_not_measured_again(self, counted, tmp_path):
        first, calls = self.compare(counted, tmp_path)
        again, none = self.compare(counted, tmp_path)
        assert (calls, none) == (8, 0)
        assert again.rows == first.rows

    def test_an_interrupted_comparison_makes_what_is_missing(self, counted, tmp_path):
        self.compare(counted, tmp_path, [EULER])
        table, calls = self.compare(counted, tmp_path)
        assert calls == MIDPOINT.nfe
        assert [row["solver"] for row in table.rows] == ["euler", "midpoint"]

    def test_other_noises_references_and_conditions_are_other_measurements(self, tmp_path):
        target = fs.Field(lambda x, t, target: target - x, shape=(2,), name="target")
        x0, x1, y = (fs.noise(6, (2,), seed=seed) for seed in (1, 2, 3))
        every = [(x0, x1, y), (x0 + 1, x1, y), (x0, x1 + 1, y), (x0, x1, y + 1)]
        errors = [
            fs.compare(
                target, [EULER], noise=fs.Pairs(x0, x1, per_sample={"target": y}), cache=tmp_path
            ).rows[0]["rmse"]
            for x0, x1, y in every
        ]
        assert len(set(errors)) == 4

    def test_more_samples_to_keep_are_there(self, counted, tmp_path):
        for keep in (0, 2, 3):
            kept = self.compare(counted, tmp_path, keep=keep)[0].kept
        assert len(kept.samples[0]) == 3

    def test_samples_come_back_bit_for_bit(self, counted, tmp_path):
        first, again = (self.compare(counted, tmp_path, keep=3)[0].kept for _ in range(2))
        for one, other in zip([*first.samples, *first.paths], [*again.samples, *again.paths], strict=True):
            assert torch.equal(one, other)

    @pytest.mark.parametrize(
        "options", [{"keep": 2}, {"quality": Count()}, {"batch": 3}], ids=["keep", "quality", "batch"]
    )
    def test_other_settings_are_measured_anew(self, counted, tmp_path, options):
        self.compare(counted, tmp_path)
        table, calls = self.compare(counted, tmp_path, **options)
        assert calls >= 8
        assert set(options) != {"quality"} or "count" in table.rows[0]

    def test_seconds_of_another_number_of_threads_are_measured_anew(self, counted, tmp_path, monkeypatch):
        self.compare(counted, tmp_path)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
        table, calls = self.compare(counted, tmp_path)
        assert (calls >= 8, table.protocol["threads"]) == (True, 77)

    def test_a_curvature_of_other_tolerances_is_measured_anew(self, counted, tmp_path):
        loose = self.compare(counted, tmp_path, keep=1, rtol=0.1, atol=0.1)[0].protocol["curvature"]
        tight = self.compare(counted, tmp_path, keep=1)[0].protocol["curvature"]
        assert loose["relative"] != tight["relative"]

    def test_another_name_for_a_solver_is_no_other_solver(self, counted, tmp_path):
        self.compare(counted, tmp_path)
        table, calls = self.compare(counted, tmp_path, {"mine": EULER})
        assert (calls, table.rows[0]["solver"]) == (0, "mine")

    def test_a_damaged_file_is_named(self, counted, tmp_path):
        self.compare(counted, tmp_path, [EULER])
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:-9])
        with pytest.raises(ValueError, match=r"not a readable measurement .* if it is removed"):
            self.compare(counted, tmp_path, [EULER])

    def test_a_function_without_a_name_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="cannot tell one plain function from another"):
            fs.compare(fs.Field(lambda x, t: -x, shape=(2,)), [EULER], noise=3, cache=tmp_path)
