"""References of networks that are rough in time."""

import math
from itertools import pairwise

import pytest
import torch

import fewstep as fs
from fewstep._fixed_grid import choose_grid, grid_edges, most_steps, rk4, steps_onto
from fewstep.fitting._pairs import joined
from fewstep.reference import CallLimitError
from fewstep.schedules import DDPM, CondOT

pytestmark = pytest.mark.usefixtures("few_rivals")

SHARP = {"rtol": 1e-6, "atol": 1e-6}


def rmse(a, b):
    return float((a - b).square().mean().sqrt())


def stairs(levels, height=300.0):
    """A velocity ``height * round(levels t^2) / levels`` at every state, and its integral from 0 to 1."""

    def velocity(x, t):
        return height * (t.square() * levels).round()[:, None] / levels + 0 * x

    jumps = ((torch.arange(levels, dtype=torch.float64) + 0.5) / levels).sqrt()
    return velocity, height * float((1 - jumps).sum()) / levels


def looked_up(steps, clock="integer"):
    """The exact mixture under DDPM as a noise prediction looked up at whole timesteps."""
    schedule = DDPM(steps=steps)
    exact = fs.models.random_mixture(16, 8, std=0.2, schedule=schedule, prediction="noise")

    def network(x, k):
        assert clock != "integer" or k.dtype == torch.int64
        return exact(x, (steps - 1 - k.round()) / steps)

    return fs.Field(network, schedule, "noise", shape=(16,), clock=clock, name="looked up")


class TestFixedGrid:
    def test_edges_are_those_of_a_cosine_grid(self):
        edges = grid_edges((0.0, 1.0), (), 12)
        expected = [(1 - math.cos(math.pi * i / 12)) / 2 for i in range(13)]
        assert edges == pytest.approx(expected, abs=1e-12)

    def test_it_steps_onto_times_and_jumps(self):
        edges = grid_edges((0.0, 0.3, 0.8), (0.25, 0.31, 0.9), 5)
        assert {0.0, 0.25, 0.3, 0.31, 0.8} <= set(edges)
        assert edges[-1] == 0.8
        assert all(a < b for a, b in pairwise(edges))

    def test_more_jumps_than_steps_are_left_out(self):
        assert grid_edges((0.0, 1.0), (0.3, 0.4, 0.6), 2) == pytest.approx([0.0, 0.5, 1.0])

    def test_the_order_of_the_method_is_4(self):
        exact = math.exp(math.sin(1.0))
        errors = []
        for steps in (8, 16, 32):
            edges = [i / steps for i in range(steps + 1)]
            x, calls = rk4(
                lambda t, x: math.cos(t) * x, torch.ones(1, dtype=torch.float64), edges, (0.0, 1.0)
            )
            assert calls == 4 * steps
            errors.append(abs(float(x[-1]) - exact))
        assert all(3.8 < math.log2(a / b) < 4.2 for a, b in pairwise(errors))

    def test_it_calls_inside_the_steps_only(self):
        seen = []

        def velocity(t, x):
            seen.append(t)
            return x

        rk4(velocity, torch.ones(1), [0.0, 0.5, 1.0], (0.0, 1.0))
        assert not {0.0, 0.5, 1.0} & set(seen)
        assert 0 < min(seen) < 1e-5

    def test_nan_is_named(self):
        with pytest.raises(FloatingPointError, match=r"NaN or infinite before t = 0\.5"):
            rk4(lambda t, x: x * math.nan, torch.ones(1), [0.0, 0.5, 1.0], (0.0, 1.0))

    def test_steps_are_doubled_until_the_error_meets_the_tolerances(self):
        def solved(steps):
            return torch.ones(4) + 1 / steps**2, 4 * steps

        grid = choose_grid(solved, 10, 10_000, (1e-3, 0.0))
        assert (grid.steps, grid.nfe) == (40, 160)  # |1/20^2 - 1/40^2| = 1.9e-3, |1/40^2 - 1/80^2| = 4.7e-4
        assert grid.error == pytest.approx(1 / 40**2 - 1 / 80**2, rel=1e-3)
        assert grid.calls == 4 * (10 + 20 + 40 + 80)
        limited = choose_grid(solved, 10, 100, (1e-9, 0.0))
        assert (limited.steps, limited.useless) == (20, False)
        assert choose_grid(solved, 2, 0, (1e-9, 0.0)).useless  # an error of a sixth
        assert choose_grid(solved, 20, 0, (1e-9, 0.0)).steps == 20

    def test_the_most_steps_within_a_limit(self):
        assert (most_steps((), 400), most_steps((0.5,), 400), most_steps((), 3)) == (100, 99, 1)
        assert len(grid_edges((0.0, 1.0), (0.43,), most_steps((0.43,), 400))) - 1 <= 100

    def test_steps_onto_all_jumps(self):
        jumps = tuple((k + 0.5) / 50 for k in range(50))
        edges = grid_edges((0.0, 1.0), jumps, steps_onto(jumps, 2000))
        assert set(jumps) < set(edges)
        assert steps_onto(jumps, 100) == 0
        assert steps_onto((), 100) == 0


class TestKnownJumps:
    def test_the_clock_of_whole_timesteps_says_where_it_jumps(self):
        jumps = looked_up(6).discontinuities
        # k(t) = 5 - 6 t changes at 4.5, 3.5, ..., 0.5.
        assert jumps == pytest.approx([(5 - k) / 6 for k in (4.5, 3.5, 2.5, 1.5, 0.5)], abs=1e-12)
        assert looked_up(6, "timestep").discontinuities == ()

    def test_a_function_of_whole_numbers_says_so_as_well(self):
        clocks = {
            "whole": lambda t: (3 * t).floor().long(),
            "float": lambda t: (3 * t).floor(),
            "number": lambda t: 0,
        }
        found = {name: fs.Field(lambda x, t: x, clock=clock) for name, clock in clocks.items()}
        assert found["whole"].discontinuities == pytest.approx([1 / 3, 2 / 3, 1], abs=1e-12)
        assert found["float"].discontinuities == found["number"].discontinuities == ()

    def test_they_are_mirrored_and_moved_with_guidance_besides(self):
        field = looked_up(4)
        guided = fs.Field(
            field.model,
            field.schedule,
            "noise",
            clock="integer",
            guidance=2.0,
            unconditional={"c": 0},
            guidance_interval=(0.3, 1.0),
        )
        assert guided.discontinuities == pytest.approx((0.125, 0.3, 0.375, 0.625), abs=1e-12)
        assert field.reversed().discontinuities == pytest.approx((0.375, 0.625, 0.875), abs=1e-12)

    def test_a_grid_steps_onto_them_with_few_calls(self):
        field, x0 = looked_up(50), fs.noise(4, (16,), seed=5)
        made = fs.reference.pairs(field, x0, rtol=1e-5, atol=1e-5)
        assert made.provenance["method"] == "rk4 on a fixed grid"
        assert made.provenance["steps"] == 49
        assert "grid_note" not in made.provenance
        exact = fs.reference.solve(field, x0, steps=196)
        assert made.error < 2e-5
        assert rmse(made.x1, exact.states[-1]) < 2e-5
        # Without that knowledge it takes as many calls and is ten times less exact.
        unknown = fs.reference.pairs(looked_up(50, "timestep"), x0, rtol=1e-5, atol=1e-5)
        assert rmse(unknown.x1, exact.states[-1]) > 1e-4

    def test_too_many_for_the_limit_are_left_to_adaptive_steps(self):
        made = fs.reference.pairs(looked_up(1000), fs.noise(2, (16,)), rtol=1e-4, atol=1e-4)
        assert made.provenance["method"] == "dopri5"

    def test_dopri5_steps_onto_few(self):
        """A velocity that jumps at known times is integrated exactly."""
        clock = {"known": lambda t: (4 * t).floor().long(), "unknown": lambda t: (4 * t).floor()}
        nfe = {}
        for name, told in clock.items():
            field = fs.Field(lambda x, k: 40.0 * k[:, None] + 0 * x, clock=told)
            states, nfe[name] = fs.reference.solve(field, torch.zeros(2, 3), **SHARP)
            error = rmse(states[-1], torch.tensor(60.0))
            assert (error < 2e-5) == (name == "known")
        assert nfe["known"] < 70 < nfe["unknown"]


class TestCollapse:
    def test_a_grid_takes_over_with_a_word(self):
        velocity, end = stairs(150)
        field, x0 = fs.Field(velocity, shape=(3,)), fs.noise(20, (3,))
        with pytest.raises(CallLimitError):
            fs.reference.solve(field, x0, max_nfe=400, **SHARP)
        made = fs.reference.pairs(field, x0, max_nfe=400, batch=12, **SHARP)
        assert made.provenance["method"] == "rk4 on a fixed grid"
        assert made.nfe <= 400
        true = rmse(made.x1, x0 + end)
        assert true / 5 < made.error < 10 * true
        note = made.provenance["grid_note"]
        assert "400 calls of an adaptive solver did not meet rtol=1e-06, atol=1e-06" in note
        assert f"an error of {made.error:.2g} by halving" in note

    def test_calls_are_counted_and_later_batches_go_on_the_grid_at_once(self, counted):
        velocity, _ = stairs(150)
        network = counted(velocity)
        made = fs.reference.pairs(fs.Field(network), fs.noise(24, (3,)), max_nfe=400, batch=12, **SHARP)
        later = [len(t) for t in network.times[-made.nfe :]]
        assert later == [12] * made.nfe
        # Twice two calls that would show a random network are not in the figure: of all, and of eight.
        assert made.calls == sum(len(t) for t in network.times) - 2 * 12 - 2 * 8

    @pytest.mark.parametrize("limit", [30, 60])  # a useless grid, and one whose states diverge
    def test_smooth_networks_that_need_more_calls_fail_as_before(self, limit):
        field = fs.Field(lambda x, t: 300 * torch.sin(300 * t[:, None]) * x)
        with pytest.raises(CallLimitError, match=rf"{limit} calls did not reach t = 1 .* raise max_nfe"):
            fs.reference.pairs(field, fs.noise(4, (2,)), max_nfe=limit)

    @pytest.mark.parametrize("size", [0.003, 1.0])  # of small noise a grid would seem good
    def test_random_networks_get_no_grid(self, size):
        field = fs.Field(lambda x, t: -x + size * torch.rand_like(x))
        with pytest.raises((CallLimitError, FloatingPointError), match="answers differently"):
            fs.reference.pairs(field, fs.noise(6, (2,)), max_nfe=200, rtol=1e-8, atol=1e-8)

    def test_a_cache_goes_on_with_the_grid(self, tmp_path):
        velocity, _ = stairs(150)
        field, x0 = fs.Field(velocity, name="stairs"), fs.noise(24, (3,))
        options = {"max_nfe": 400, "batch": 12, "cache": tmp_path, **SHARP}
        whole = fs.reference.pairs(field, x0, **options)
        next(tmp_path.glob("*/0000012.safetensors")).unlink()
        again = fs.reference.pairs(field, x0, **options)
        assert torch.equal(whole.x1, again.x1)
        assert (whole.calls, whole.error, whole.provenance) == (again.calls, again.error, again.provenance)

    def test_more_pairs_from_a_grid_keep_its_steps(self):
        field = fs.models.random_mixture(2, 3, std=0.3).field()
        parts = [fs.reference.pairs(field, fs.noise(4, (2,)), **made) for made in ({}, {"steps": 30})]
        both = joined(*parts)
        assert both.provenance["steps"] == 30
        assert both.provenance["rtol"] == 1e-5

    def test_steps_can_be_chosen(self):
        velocity, end = stairs(150)
        made = fs.reference.pairs(fs.Field(velocity), fs.noise(9, (3,)), steps=100)
        assert made.provenance["steps"] == 100
        assert made.nfe == 400
        assert made.calls == 9 * 400 + 8 * (400 + 800)
        assert 0 < rmse(made.x1, made.x0 + end) < 10 * made.error

    def test_paths_of_the_grid_are_solved_on_it(self):
        velocity, _ = stairs(150)
        field = fs.Field(velocity, shape=(2,), name="stairs")
        pairs = fs.reference.pairs(field, fs.noise(12, (2,)), steps=200)
        fitted = fs.fit(
            field,
            2,
            pairs=pairs,
            loss="nodes",
            reference=fs.fitting.Reference(**SHARP),
            optimizer=fs.fitting.GaussNewton(iterations=1),
        )
        assert fitted.report.calls["reference"] < len(pairs) * 4000


class TestReports:
    def made(self, pairs, **options):
        field = fs.models.random_mixture(3, 4, std=0.3).field()
        settings = fs.fitting.GaussNewton(iterations=1)
        return " ".join(fs.fit(field, 2, pairs=pairs(field), optimizer=settings, **options).report.notes)

    @pytest.mark.parametrize(
        ("provenance", "error", "advice"),
        [
            ({"rtol": 1e-2, "atol": 1e-2}, 0.2, "tighten rtol and atol"),
            ({"rtol": 1e-6, "atol": 1e-6}, 0.2, "the network is rough"),
            ({"rtol": 1e-6, "atol": 1e-6, "steps": 70}, 0.2, "double the 70 steps"),
            ({}, 0.2, "tighten rtol and atol"),
            ({"rtol": 1e-6, "atol": 1e-6}, 1e-5, None),
        ],
    )
    def test_an_error_of_the_size_of_what_is_measured(self, provenance, error, advice):
        def pairs(field):
            x0 = fs.noise(12, (3,))
            made = fs.reference.pairs(field, x0)
            return fs.pairs.Pairs(x0, made.x1, error=error, provenance=provenance)

        notes = self.made(pairs)
        assert ("the reference's own error" in notes) == (advice is not None)
        assert advice is None or advice in notes

    @pytest.mark.parametrize("key", ["grid_note", "error_note"])
    def test_what_happened_to_the_reference(self, key):
        def pairs(field):
            x0 = fs.noise(12, (3,))
            return fs.pairs.Pairs(x0, fs.reference.pairs(field, x0).x1, provenance={key: "so it was"})

        assert "reference: so it was." in self.made(pairs)

    def test_comparisons_say_so_too(self):
        velocity, _ = stairs(150)
        field = fs.Field(velocity, shape=(2,))
        table = fs.compare(field, fs.classical.euler(2), noise=4, rtol=1e-9, atol=1e-9, keep=2)
        assert "a fixed grid of" in str(table)
        assert table.protocol["reference"]["steps"] > 0


def test_smooth_networks_are_solved_as_ever():
    """Their samples are those of dopri5 alone, bit for bit."""
    field, x0 = fs.models.bundled("digits"), fs.noise(12, (1, 8, 8))
    made = fs.reference.pairs(field, x0, **SHARP)
    states, nfe = fs.reference.solve(field, x0, **SHARP)
    assert torch.equal(made.x1, states[-1])
    assert (made.nfe, made.provenance["method"]) == (nfe, "dopri5")
    assert field.schedule == CondOT()
    assert "steps" not in made.provenance
