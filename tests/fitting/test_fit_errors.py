import pytest
import torch

import fewstep as fs
from fewstep.families import ScaleTime


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nfe": 0}, "nfe must be a whole number of at least 1, not 0"),
        ({"nfe": 2.0}, "nfe must be a whole number of at least 1, not 2.0"),
        ({"family": "scale_time", "nfe": 5}, "nfe must be even, not 5; take 6, 'scale_time_rk1'"),
        ({"family": "magic"}, "family must be 'non_stationary', 'timesteps', .* not 'magic'"),
        ({"family": ScaleTime("euler", 3)}, "nfe=4, but the family given makes solvers of 3 calls"),
        (
            {"loss": "l1"},
            "loss must be one of mse, rmse, log_mse, pseudo_huber, nodes, soft, bound, local, or a Loss, "
            "not 'l1'",
        ),
        ({"optimizer": "sgd"}, "optimizer must be one of gauss_newton, adam, not 'sgd'"),
        ({"init": "magic"}, "init cannot be 'magic'; classical: there is no solver 'magic'; there are euler"),
        (
            {"init": "midpoint", "nfe": 3},
            "init cannot be 'midpoint'; classical: 'midpoint' cannot make exactly 3 calls",
        ),
        ({"init": fs.classical.euler(5)}, "nfe=4, but init .euler. makes 5 calls; it may make fewer"),
        ({"init": "auto", "family": "scale_time"}, "init must be one of euler, .*, ab2, .* not 'auto'"),
        ({"init": fs.classical.euler(4), "family": "scale_time"}, "init must be .* not the solver 'euler'"),
        ({"init": "ab2", "family": "scale_time_rk1"}, "is 'scale_time' with init='euler'; leave init out"),
        (
            {"init": "rk4", "family": "scale_time", "nfe": 6},
            "'rk4' makes 4 calls a step, so nfe must be a multiple of 4, not 6; take 8, .* or init='ab2'",
        ),
        (
            {"init": "ab2", "family": "scale_time", "loss": "bound", "optimizer": "adam"},
            "the bound is known for the bases euler and midpoint, not 'ab2'",
        ),
        ({"init": "ab2", "family": "scale_time", "loss": "local", "optimizer": "adam"}, "one-step solver"),
        (
            {"init": "ab2", "family": ScaleTime("euler", 4)},
            "a Family starts from its own solver; leave init out",
        ),
        ({"init": "magic", "family": "timesteps"}, "init cannot be 'magic'; classical: there is no solver"),
        (
            {"init": fs.classical.euler(4), "family": "timesteps"},
            "so init must name one, such as 'ab2', and not be the solver 'euler'",
        ),
        (
            {"nfe": 1, "family": "timesteps"},
            "leaves nothing free where 'deis3/cosine' makes one step of its 1 calls",
        ),
        (
            {"init": "rk4", "family": "timesteps"},
            "leaves nothing free where 'rk4' makes one step of its 4 calls; raise nfe",
        ),
        ({"init": "auto", "loss": "local", "optimizer": "adam"}, "one-step solver"),
        ({"loss": "bound", "family": "scale_time"}, "loss='bound' needs gradients.*pass optimizer='adam'"),
        (
            {"loss": "bound", "optimizer": "adam"},
            "known for scale-time solvers only; use family='scale_time'",
        ),
        ({"optimizer": "adam", "minibatch": 4}, "minibatch=4 are Gauss-Newton's; leave them out"),
        ({"jacobian": "exact"}, "jacobian must be 'directions', 'differences' or 'jvp', not 'exact'"),
        ({"loss": "local", "optimizer": "adam", "init": "ab2"}, "one-step solver"),
        ({"pairs": 3}, "needs at least 4 pairs, two of them for validation, not 3"),
        ({"pairs": True}, "needs at least 4 pairs"),
        ({"pairs": 8.5}, "pairs must be a number of pairs or Pairs, not 8.5"),
        ({"validation": 1.0}, "validation must lie between 0 and 1, not 1.0"),
        ({"iterations": 0}, "iterations must be at least 1, not 0"),
        ({"device": "nonsense"}, "device: 'nonsense' cannot be used .* this machine has cpu"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_arguments_that_do_not_fit_are_named(bending, options, words):
    options = {"nfe": 4, "pairs": 8, **options}
    with pytest.raises(ValueError, match=words) as raised:
        fs.fit(bending, options.pop("nfe"), **options)
    message = str(raised.value)
    assert "\n" not in message
    assert message.endswith(".")


def test_noise_of_unknown_shape_is_refused(bending):
    with pytest.raises(ValueError, match=r"pass shape=\(channels, height, width\), .* or pass pairs="):
        fs.fit(fs.Field(bending.model), 4, pairs=8)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_an_absent_device_is_named(bending):
    with pytest.raises(ValueError, match=r"device: 'cuda' cannot be used .* this machine has cpu"):
        fs.fit(bending, 4, pairs=8, device="cuda")


def test_too_few_pairs_given_are_refused(bending):
    with pytest.raises(ValueError, match="at least 4 pairs"):
        fs.fit(bending, 4, pairs=fs.Pairs(torch.zeros(3, 3), torch.zeros(3, 3)))


def test_conditions_besides_pairs_are_refused_not_ignored(bending):
    pairs = fs.Pairs(torch.zeros(8, 3), torch.zeros(8, 3))
    with pytest.raises(ValueError, match="carry their own conditions, but label came besides"):
        fs.fit(bending, 4, pairs=pairs, conditions={"label": 3})


def never(x, t):
    return torch.full_like(x, torch.nan)


def test_a_network_that_returns_nan_fails_the_reference():
    with pytest.raises(FloatingPointError, match=r"network returned NaN or infinity at t = 0 \(call 1\)"):
        fs.fit(fs.Field(never, shape=(3,)), 4, pairs=8)


@pytest.mark.parametrize("optimizer", ["gauss_newton", "adam"])
@pytest.mark.parametrize("loss", ["rmse", "mse", "log_mse"])
def test_a_network_that_returns_nan_on_given_pairs_is_said_to(optimizer, loss):
    x0 = fs.noise(8, (3,))
    options = {"pairs": fs.Pairs(x0, -x0), "optimizer": optimizer, "loss": loss, "iterations": 30}
    with pytest.raises(FloatingPointError, match="the initial solver already gives NaN on the validation"):
        fs.fit(fs.Field(never, shape=(3,)), 4, **options)


def test_a_network_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"network returned shape \(8, 2\) for a state of shape \(8, 3\)"):
        fs.fit(fs.Field(lambda x, t: x[:, :2], shape=(3,)), 4, pairs=8)


@pytest.mark.parametrize(
    ("family", "loss"),
    [(fs.families.ScaleTime("rk4", 1), "bound"), ("non_stationary", "bound"), ("non_stationary", "local")],
    ids=["rk4-bound", "non_stationary-bound", "non_stationary-local"],
)
def test_a_loss_that_a_family_cannot_have_is_told_before_the_first_call(bending, family, loss):
    """Not after the reference, which is the long part of a fit."""
    with pytest.raises(ValueError, match="loss"):
        fs.fit(bending, 4, pairs=8, optimizer="adam", family=family, loss=loss)
    assert bending.model.seen == 0
