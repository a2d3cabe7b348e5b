"""Processes that share a fit end where one ends, to the bit among themselves."""

import json
import subprocess
import sys
import textwrap
from itertools import chain

import pytest
import torch

import fewstep as fs
from fewstep.fitting._rollout import Rollout
from fewstep.fitting._team import BudgetSpentError, Team

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]

#: Fits of a float64 field, run by every process: with pairs given, within a budget, and with pairs to make.
FITS = """
    import json, sys, torch, fewstep as fs

    class Counting:
        seen = 0
        def __call__(self, x, t):
            Counting.seen += len(x)
            return 0.9 * torch.sin(x.roll(1, dims=1) + 2 * t[:, None])

    def fits(pairs, field):
        def steps(n, **settings):
            return {"optimizer": fs.fitting.GaussNewton(iterations=n, **settings)}

        for words in (
            {"pairs": pairs, **steps(4)},
            {"pairs": pairs, "family": "scale_time", **steps(3, minibatch=9)},
            {"pairs": pairs, "max_calls": pairs.calls + 900},
            {"pairs": 13, **steps(2)},
            {"max_calls": 8_000},
        ):
            before = Counting.seen
            fit = fs.fit(field, 4, seed=3, **words)
            calls = {key: count for key, count in fit.report.calls.items()}
            theta = fit.solver.family["theta"]
            yield {"theta": theta, "calls": calls, "seen": Counting.seen - before, "pairs": fit.report.pairs,
                   "stopped": fit.report.stopped}

    def run():
        field = fs.Field(Counting(), shape=(3,), name="bend")
        x0 = fs.noise(13, (3,), dtype=torch.float64)
        return list(fits(fs.reference.pairs(field, x0, rtol=1e-9, atol=1e-9), field))

    if __name__ == "__main__":
        import torch.distributed as dist
        dist.init_process_group("gloo")
        rank = dist.get_rank()
        found = run()
        with open(f"{sys.argv[1]}/{rank}.json", "w") as file:
            json.dump(found, file)
        dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("team")
    script = folder / "fits.py"
    script.write_text(textwrap.dedent(FITS))
    done = subprocess.run([*TORCHRUN, str(script), str(folder)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    scope = {"__name__": "fits"}
    exec(script.read_text(), scope)
    two = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    return scope["run"](), *two


def test_all_processes_end_with_the_same_bits(results):
    _, first, second = results
    for one, other in zip(first, second, strict=True):
        one, other = ({**found, "seen": 0} for found in (one, other))
        assert one == other


@pytest.mark.parametrize("k", [0, 1])
def test_two_processes_fit_what_one_fits_with_as_many_calls(results, k):
    alone, first, second = (found[k] for found in results)
    torch.testing.assert_close(torch.tensor(first["theta"]), torch.tensor(alone["theta"]), rtol=0, atol=1e-6)
    assert max(map(abs, alone["theta"])) > 0.01
    assert first["calls"] == alone["calls"]
    # the work was shared: neither did more than it had to
    assert max(first["seen"], second["seen"]) < 0.62 * alone["seen"]


@pytest.mark.parametrize("k", range(5))
def test_calls_are_those_of_all_processes(results, k):
    _, first, second = (found[k] for found in results)
    own = 0 if k > 2 else first["calls"]["reference"]  # of pairs that were given
    assert sum(first["calls"].values()) - own == first["seen"] + second["seen"]


def test_a_budget_is_that_of_all_processes(results):
    alone, first, _ = (found[2] for found in results)
    assert first["calls"]["fit"] <= 900
    assert first["stopped"] == alone["stopped"] == "the budget of network calls was spent"
    alone, first, second = (found[4] for found in results)
    assert first["seen"] + second["seen"] - first["calls"]["errors"] <= 8_000
    assert sum(first["pairs"].values()) == pytest.approx(sum(alone["pairs"].values()), rel=0.2)


def test_made_pairs_are_those_of_one_process(results):
    """Step sizes of the reference are common to those solved together, so only nearly."""
    alone, first, _ = (found[3] for found in results)
    torch.testing.assert_close(torch.tensor(first["theta"]), torch.tensor(alone["theta"]), rtol=0, atol=0.02)
    assert first["pairs"] == alone["pairs"]


def test_slices_cover_everything_once():
    for world in (1, 2, 3, 7):
        parts = [list(range(13))[Team(rank, world).slice(13)] for rank in range(world)]
        assert list(chain(*parts)) == list(range(13))
        assert max(map(len, parts)) == Team(0, world).largest(13)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_process_may_make_its_share_of_what_is_left(bending):
    rollout = Rollout(bending, 99, limit=100)
    rollout.team = Team(0, 4)
    rollout.spend(25)
    with pytest.raises(BudgetSpentError):
        rollout.spend(1)


def test_too_many_processes_are_refused(bending, monkeypatch):
    monkeypatch.setattr(Team, "current", classmethod(lambda cls: cls(0, 20)))
    with pytest.raises(
        ValueError, match="20 processes cannot share 8 pairs; pass more pairs, or start fewer"
    ):
        fs.fit(bending, 2, pairs=8)
    with pytest.raises(ValueError, match="optimizer='adam' cannot share its work among 20 processes"):
        fs.fit(bending, 2, pairs=8, optimizer="adam")


@pytest.mark.slow
def test_torchrun_itself_writes_the_files_once(tmp_path):
    words = ["fit", "mixture", "--nfe", "3,4", "--pairs", "16", "--iterations", "2", "--json", "--out", "out"]
    done = subprocess.run(
        [*TORCHRUN, "-m", "fewstep", *words],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    )  # fmt: skip
    files = [entry["file"] for entry in json.loads(done.stdout)["solvers"]]  # one process speaks
    assert sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "out").iterdir()) == sorted(files)
    assert fs.Solver.load(tmp_path / files[0]).nfe == 3
