"""Networks that reuse their output, write into their input, are of half precision, random, or fail."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fewstep as fs
from fewstep.reference import CallLimitError
from fewstep.schedules import VP, CondOT

HALF = [torch.float16, torch.bfloat16]


def plain(x, t, c=1.0):
    """``dx/dt = -(1 + c) x``, made anew at each call."""
    return -x * (1 + c)


class Static(nn.Module):
    """The same in a buffer that it reuses."""

    def __init__(self):
        super().__init__()
        self.out = torch.empty(0)
        self.eval()

    def forward(self, x, t, c=1.0):
        self.out = self.out if self.out.shape == x.shape else torch.empty_like(x)
        return self.out.copy_(-x * (1 + c))


class InPlace(nn.Module):
    """The same, written into state and time."""

    def __init__(self):
        super().__init__()
        self.eval()

    def forward(self, x, t, c=1.0):
        t.mul_(1000)
        return x.mul_(-(1 + c))


NETWORKS = {"static": Static, "in place": InPlace}
GUIDED = {"guidance": 3.0, "unconditional": {"c": 0.0}}
SOLVERS = ["euler", "midpoint", "rk4", "ab2", "deis3", "dpmpp_2m", "unipc2", "ipndm"]


@pytest.mark.parametrize("network", list(NETWORKS.values()), ids=list(NETWORKS))
class TestBuffers:
    x0 = fs.noise(4, (2,))

    @pytest.mark.parametrize("options", [{}, GUIDED], ids=["plain", "guided"])
    @pytest.mark.parametrize("name", SOLVERS)
    def test_every_solver(self, network, name, options):
        solver = fs.classical.named(name, 4, CondOT())
        given = {"c": 1.0} if options else {}
        expected = solver.sample(fs.Field(plain, **options), self.x0, **given)
        noise = self.x0.clone()
        assert torch.equal(solver.sample(fs.Field(network(), **options), noise, **given), expected)
        assert torch.equal(noise, self.x0)

    def test_guidance_by_hand(self, network):
        """away + 3 (given - away) = -x + 3 (-2x + x) = -4x; four steps of Euler's method leave nothing."""
        field = fs.Field(network(), **GUIDED)
        assert torch.equal(field(self.x0, 0.5, c=1.0), -4 * self.x0)
        assert torch.equal(fs.classical.euler(4).sample(field, self.x0, c=1.0), torch.zeros(4, 2))

    def test_a_guide(self, network):
        one = network()
        field = fs.Field(one, guidance=3.0, guide=one, unconditional={"c": 0.0})
        assert torch.equal(field(self.x0, torch.tensor(0.5), c=1.0), -4 * self.x0)

    def test_the_reference_and_the_adaptive_solver(self, network):
        exact = self.x0 * math.exp(-2)
        noise = self.x0.clone()
        pairs = fs.reference.pairs(fs.Field(network()), noise, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(pairs.x1, exact, rtol=0, atol=1e-5)
        adaptive = fs.Adaptive(1e-6, 1e-6).sample(fs.Field(network()), noise)
        torch.testing.assert_close(adaptive.x1, exact, rtol=0, atol=1e-5)
        assert torch.equal(noise, self.x0)

    def test_a_fit(self, network):
        mine, theirs = (
            fs.fit(
                fs.Field(model, shape=(2,), name="decay"),
                3,
                pairs=8,
                optimizer=fs.fitting.GaussNewton(iterations=5),
            ).solver
            for model in (network(), plain)
        )
        assert mine.D == theirs.D
        assert mine.scores["validation_rmse"]["fitted"] < 1e-5

    def test_derivatives(self, network):
        """x1 = (1 - 2/4)^4 x0, differentiated."""
        x0 = self.x0.clone().requires_grad_()
        x1 = fs.classical.euler(4).sample(fs.Field(network()), x0, differentiable=True)
        x1.sum().backward()
        torch.testing.assert_close(x0.grad, torch.full((4, 2), 0.5**4))


class Half(nn.Module):
    """A small network that takes its time in float32, as those of diffusers do."""

    def __init__(self, dtype):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 3, generator=generator).mul(0.3).to(dtype))
        self.eval()

    def forward(self, x, t, label=None):
        self.seen = (x.dtype, t.dtype, float(t.flatten()[0]))
        out = torch.tanh(x @ self.weight) - x
        return out * (1 + 0.5 * torch.sin(t[:, None]).to(x.dtype))


class OwnTime(Half):
    """One that refuses a time of another type than its own."""

    def forward(self, x, t, label=None):
        torch.cat([x, t[:, None].expand_as(x)], 1) @ torch.cat([self.weight, self.weight]).mul(1)
        return torch.addmm(super().forward(x, t.float()), t[:, None].expand_as(x), self.weight)


@pytest.mark.parametrize("dtype", HALF, ids=str)
class TestHalfPrecision:
    def test_the_network_gets_its_own_type_and_the_states_keep_theirs(self, dtype):
        network = Half(dtype)
        field = fs.Field(network, clock=(999, 0))
        assert (field.dtype, field.device) == (dtype, torch.device("cpu"))
        for state, expected in (
            (torch.float16, torch.float32),
            (torch.bfloat16, torch.float32),
            (torch.float32, torch.float32),
            (torch.float64, torch.float64),
        ):
            for t in (0.0, torch.tensor(0.0)):
                assert field(torch.ones(4, 3, dtype=state), t).dtype == expected
                assert network.seen == (dtype, torch.float32, 999.0)  # 1000 in bfloat16

    def test_a_time_that_the_network_refuses_is_given_in_its_own_type(self, dtype):
        network = OwnTime(dtype)
        field, x = fs.Field(network), fs.noise(4, (3,))
        expected = network(x.to(dtype), torch.full((4,), 0.25, dtype=dtype))
        assert torch.equal(field(x, 0.25), expected.float())
        assert torch.equal(field.with_guidance(None)(x, torch.tensor(0.25)), expected.float())

    def test_another_refusal_speaks_for_itself(self, dtype):
        with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):
            fs.Field(Half(dtype))(torch.ones(4, 5), 0.5)

    def test_everything_that_draws_noise_works(self, dtype, tmp_path):
        field = fs.Field(Half(dtype), shape=(3,), name="half")
        options = {"rtol": 1e-3, "atol": 1e-3}
        exact = fs.reference.pairs(fs.Field(Half(dtype).float()), fs.noise(12, (3,)), rtol=1e-6, atol=1e-6).x1
        fitted = fs.fit(
            field,
            3,
            pairs=12,
            optimizer=fs.fitting.GaussNewton(iterations=3),
            reference=fs.fitting.Reference(**options),
        )
        x1 = fitted.solver.sample(field, fs.noise(12, (3,)))
        torch.testing.assert_close(x1, exact, rtol=0, atol=0.05)
        assert fs.compare(field, fitted.solver, noise=6, **options).rows[0]["rmse"] < 0.05
        fs.generate(field, fs.classical.rk4(2), range(12), tmp_path, formats=("pairs",))
        (path,) = tmp_path.glob("pairs-*")
        torch.testing.assert_close(fs.Pairs.load(path).x1, exact, rtol=0, atol=0.05)
        assert fs.check(field).calls > 0
        assert len(fs.grids.gits(field, 3, 4, candidates=fs.grids.uniform(6), **options).grid) == 4

    @pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
    def test_states_of_half_precision_noises_are_float32(self, dtype, tolerance):
        """dx/dt = -x, whose solution is x / e; in half precision no step meets such a tolerance."""
        x0, options = fs.noise(8, (3,), dtype=dtype), {"rtol": tolerance, "atol": tolerance}
        exact, field = x0.float() / math.e, fs.Field(lambda x, t: -x)
        pairs = fs.reference.pairs(field, x0, **options)
        assert (pairs.x0.dtype, pairs.x1.dtype) == (torch.float32, torch.float32)
        torch.testing.assert_close(pairs.x1, exact, rtol=0, atol=10 * tolerance)
        adaptive = fs.Adaptive(**options).sample(field, x0)
        torch.testing.assert_close(adaptive.x1.float(), exact, rtol=0, atol=10 * tolerance + 0.01)
        latents = fs.log_likelihood(field, x0, **options).latents
        torch.testing.assert_close(latents, x0.float() * math.e, rtol=0, atol=30 * tolerance)

    @pytest.mark.parametrize("schedule", [CondOT(), VP()], ids=repr)
    def test_noise_predictions_are_finite_in_pure_noise(self, dtype, schedule):
        """There 1 / alpha is 1e5 and more, beyond float16."""

        class Noise(Half):
            def forward(self, x, t):
                return x * (1 + 0 * self.weight[0, 0])

        field = fs.Field(Noise(dtype), schedule, "noise", shape=(3,))
        for x0 in (fs.noise(8, (3,)), fs.noise(8, (3,), dtype=dtype)):
            for t in (0.0, torch.zeros(8)):
                assert field(x0, t).isfinite().all()
                assert field.predict_as("data", x0, t).isfinite().all()
        assert fs.Adaptive(1e-2, 1e-2).sample(field, fs.noise(8, (3,))).x1.isfinite().all()

    def test_derived_fields(self, dtype):
        field, x0 = fs.Field(Half(dtype)), fs.noise(8, (3,), dtype=dtype)
        for derived in (field.reversed(), field.reschedule(VP())):
            assert derived.dtype == dtype
            assert derived(x0, 0.3).dtype == torch.float32


class TestErrors:
    x0 = fs.noise(6, (2,))

    @staticmethod
    def failing(error):
        calls = []

        def network(x, t):
            calls.append(t)
            if len(calls) == 2:  # once only: asking again would not bring it back
                raise error
            return -x

        return fs.Field(network, shape=(2,), name="failing")

    @pytest.mark.parametrize("error", [AssertionError("expected 3 channels"), KeyError("label")], ids=repr)
    @pytest.mark.parametrize(
        "call",
        [
            lambda field, x0: fs.reference.pairs(field, x0),
            lambda field, x0: fs.fit(field, 4, pairs=8),
            lambda field, x0: fs.Adaptive().sample(field, x0),
            lambda field, x0: fs.log_likelihood(field, x0),
            lambda field, x0: fs.classical.euler(2).sample(field, x0),
        ],
        ids=["reference", "fit", "adaptive", "likelihood", "sample"],
    )
    def test_of_the_network_come_out_as_they_are(self, call, error):
        with pytest.raises(type(error)) as caught:
            call(self.failing(error), self.x0)
        assert caught.value is error

    @pytest.mark.skipif(not hasattr(Exception, "add_note"), reason="notes are of Python 3.11")
    def test_say_what_the_network_was_called_with(self):
        given = {"label": torch.arange(6), "added": {"text": ["a"] * 6}, "mode": "fast"}
        with pytest.raises(RuntimeError, match="mat1 and mat2") as caught:
            fs.Field(lambda x, t, **_: x @ torch.eye(3))(self.x0, 0.25, **given)
        assert caught.value.__notes__ == [
            "In fewstep's call of the network with x of shape (6, 2) and type float32 on cpu; time 0.25; "
            "label of shape (6,) and type int64 on cpu; added {text of 6 rows}; mode = 'fast'."
        ]

    @pytest.mark.parametrize(
        ("output", "words"),
        [
            (
                lambda x, t: x.long(),
                r"the network returned torch\.int64, but a prediction is a floating-point",
            ),
            (lambda x, t: torch.complex(x, x), r"the network returned torch\.complex64, but"),
            (lambda x, t: x.to("meta"), "returned a tensor on meta for a state on cpu"),
        ],
    )
    def test_outputs_that_are_no_predictions(self, output, words):
        with pytest.raises(ValueError, match=words):
            fs.Field(output)(self.x0, 0.5)

    def test_guidance_is_one_number(self):
        field = fs.Field(plain, guidance=torch.tensor([3.0]), unconditional={"c": 0.0})
        assert field.guidance == 3.0
        assert torch.equal(field.with_guidance(torch.tensor(2.0))(self.x0, 0.5, c=1.0), -3 * self.x0)
        assert field.with_guidance(torch.tensor(1.0)).guidance is None
        with pytest.raises(ValueError, match=r"guidance must be one number, not a tensor of shape \(2,\)"):
            field.with_guidance(torch.tensor([1.0, 2.0]))

    @pytest.mark.parametrize(
        "times", [(1, 0), (0, 1.5), (0, 0.5, 0.5, 1), (0.2, 1), (0,), (-1, 0, 1), "01", (0, math.nan)]
    )
    def test_times_of_the_reference(self, times):
        with pytest.raises(ValueError, match=r"times: must increase from 0 within \[0, 1\]"):
            fs.reference.solve(fs.Field(plain), self.x0, times=times)
        states = fs.reference.solve(fs.Field(plain), self.x0, times=torch.tensor([0.0, 0.5])).states
        assert len(states) == 2


class TestRandomNetworks:
    x0 = fs.noise(6, (2,))
    field = fs.Field(lambda x, t: -x + torch.rand_like(x))

    @pytest.mark.parametrize("solve", [fs.reference.solve, fs.log_likelihood])
    def test_are_told_from_stiff_ones(self, solve):
        with pytest.raises(
            (CallLimitError, FloatingPointError), match=r"answers differently .* model\.eval\(\)"
        ):
            solve(self.field, self.x0, max_nfe=200)

    def test_are_told_from_stiff_ones_by_the_adaptive_solver(self):
        with pytest.raises(
            (CallLimitError, FloatingPointError), match=r"answers differently .* model\.eval\(\)"
        ):
            fs.Adaptive(max_nfe=200).sample(self.field, self.x0)

    def test_stiff_ones_are_not_called_random(self):
        stiff = fs.Field(lambda x, t: torch.sin(300 * t[:, None]) * x)
        for solve in (
            lambda: fs.reference.solve(stiff, self.x0, max_nfe=30),
            lambda: fs.Adaptive(max_nfe=30).sample(stiff, self.x0),
        ):
            with pytest.raises(CallLimitError, match=r"raise max_nfe, (or )?loosen"):
                solve()


class TestErrorEstimate:
    """One that does not get there costs no finished reference."""

    x0 = fs.noise(6, (2,))

    def test_it_may_take_more_calls_than_a_batch(self, counted):
        network = counted(lambda x, t: torch.cos(9 * t)[:, None] * x)
        needed = fs.reference.solve(fs.Field(network), self.x0).nfe
        pairs = fs.reference.pairs(fs.Field(network), self.x0, max_nfe=needed)
        assert 0 < pairs.error < 1e-3
        assert "error_note" not in pairs.provenance

    def test_what_cannot_be_estimated_is_unknown(self):
        seen = []

        def network(x, t):
            seen.append(len(x))
            harder = len(seen) > 40  # by then the reference is finished
            return -x * (1 + harder * 300 * torch.sin(3e4 * t)[:, None])

        pairs = fs.reference.pairs(fs.Field(network), self.x0, rtol=1e-4, atol=1e-4, max_nfe=40)
        torch.testing.assert_close(pairs.x1, self.x0 / math.e, rtol=0, atol=1e-3)
        assert math.isnan(pairs.error)
        note = pairs.provenance["error_note"]
        assert "take more than 160 calls" in note
        assert "than rtol=0.0001, atol=0.0001" in note  # those that were passed


class TestNames:
    """A network without weights needs a name once something is cached."""

    field = fs.Field(plain, shape=(2,))

    def test_samples_are_written_without_one(self, tmp_path):
        options = {"shard": 2, "formats": ("pairs",)}
        result = fs.generate(self.field, fs.classical.euler(2), range(4), tmp_path, **options)
        assert result["complete"]
        assert result["protocol"]["fingerprint"] is None
        with pytest.raises(ValueError, match=r"pass Field\(\.\.\., name="):
            fs.generate(self.field, fs.classical.euler(2), range(6), tmp_path, **options)

    def test_several_processes_share_a_folder_by_it(self, tmp_path):
        with pytest.raises(ValueError, match=r"pass Field\(\.\.\., name="):
            fs.generate(self.field, fs.classical.euler(2), range(4), tmp_path, world=2)

    def test_fits_comparisons_and_references_need_none(self):
        fitted = fs.fit(self.field, 2, pairs=8, optimizer=fs.fitting.GaussNewton(iterations=2))
        assert fs.compare(self.field, fitted.solver, noise=4).rows[0]["nfe"] == 2


def test_any_resolution_is_sampled_whatever_the_shape_that_noise_is_drawn_in():
    field = fs.Field(lambda x, t: -x, shape=(3,))
    x0 = fs.noise(20, (5,))
    torch.testing.assert_close(fs.reference.pairs(field, x0).x1, x0 / math.e, rtol=0, atol=1e-4)
    torch.testing.assert_close(fs.log_likelihood(field, x0).latents, x0 * math.e, rtol=0, atol=1e-3)
    assert fs.check(field, x0.sign()).samples == 20


def test_checkpointing_costs_no_words(monkeypatch):
    """A recomputation of activations is stopped by an error inside the network, which needs no note."""
    described = []
    monkeypatch.setattr("fewstep._network._described", lambda *_: described.append(1) or "")
    field = fs.Field(Half(torch.float32))
    x = torch.zeros(2, 3, requires_grad=True)
    checkpoint(field, x, torch.tensor(0.5), use_reentrant=False).sum().backward()
    assert x.grad is not None
    assert not described
