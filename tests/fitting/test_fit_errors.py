import pytest
import torch

import fewstep as fs
from fewstep.families import ScaleTime
from fewstep.fitting import Adam, GaussNewton, Nodes, Reference

pytestmark = pytest.mark.all_rivals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nfe": 0}, "nfe must be a whole number of at least 1, or .* not 0"),
        ({"nfe": 2.0}, "nfe must be a whole number of at least 1, or .* not 2.0"),
        ({"family": "scale_time", "nfe": 5}, "nfe must be even, not 5; take 6, or init='euler' or 'ab2'"),
        ({"family": "magic"}, "family must be one of non_stationary, timesteps, .* not 'magic'"),
        ({"family": ScaleTime("euler", 3)}, "nfe=4, but the family given makes solvers of 3 calls"),
        ({"loss": "l1"}, "loss must be one of mse, rmse, .* nodes, .* bound, local, or a Loss, not 'l1'"),
        ({"optimizer": "sgd"}, "optimizer must be one of gauss_newton, adam, fitting\\.Gauss.* not 'sgd'"),
        ({"init": "magic"}, "init cannot be 'magic'; classical: solver must be one of euler, .* not 'magic'"),
        (
            {"init": "midpoint", "nfe": 3},
            "init cannot be 'midpoint'; classical: 'midpoint' makes 2, 4, 6, ... calls under .*, not 3",
        ),
        ({"init": fs.classical.euler(5)}, "nfe=4, but init .euler. makes 5 calls; it may make fewer"),
        ({"init": "auto", "family": "scale_time"}, "init must be one of euler, .*, ab2, .* not 'auto'"),
        ({"init": fs.classical.euler(4), "family": "scale_time"}, "init must be .* not the solver 'euler'"),
        (
            {"init": "rk4", "family": "scale_time", "nfe": 6},
            "'rk4' makes 4 calls a step, so nfe must be a multiple of 4, not 6; take 8, or init='euler'",
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
        ({"init": "magic", "family": "timesteps"}, "init cannot be 'magic'; classical: solver must be"),
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
        ({"loss": "local", "optimizer": "adam", "init": "ab2"}, "one-step solver"),
        ({"pairs": 3}, r"needs at least 4 pairs, two .* not 3; pass pairs=64, .* by task\.of\(64\)\.$"),
        ({"pairs": True}, "pairs must be a number of pairs or Pairs, not True"),
        ({"pairs": 8.5}, "pairs must be a number of pairs or Pairs, not 8.5"),
        ({"nfe": ()}, r"nfe must be .* or different ones such as \(4, 6, 8\), not \(\)"),
        ({"nfe": (4, 4)}, r"or different ones such as .* not \(4, 4\)"),
        ({"nfe": "8"}, "nfe must be a whole number .* not '8'"),
        (
            {"nfe": (2, 4), "family": "non_stationary"},
            "makes solvers with one number of calls, not with 2, 4",
        ),
        ({"nfe": (2, 4), "family": ScaleTime("euler", 4)}, r"nfe=\(2, 4\), but .* makes solvers of 4 calls"),
        ({"nfe": (4, 5), "init": "midpoint"}, "makes several calls a step"),
        ({"nfe": (4, 5), "init": "midpoint"}, "'midpoint' makes several calls a step"),
        ({"nfe": (4, 5), "init": "rk45"}, "solver must be one of euler, .* not 'rk45'"),
        ({"nfe": (4, 5), "init": fs.classical.euler(4)}, "starts from a classical solver by name, not from"),
        (
            {"nfe": (4, 5), "init": "auto"},
            "init='auto' starts one number of calls at one guidance scale; name",
        ),
        ({"nfe": (4, 5), "optimizer": "adam"}, "'adam' fits one solver of one field; pass .*gauss_newton"),
        ({"nfe": (4, 5), "loss": "log_mse"}, "share the mean logarithm .* not 'log_mse'"),
        ({"nfe": (4, 5), "loss": Nodes()}, r"share the mean logarithm .* not 'nodes\(rmse\)'"),
        ({"nfe": (4, 5), "pairs": 3}, "at least 4 pairs"),
        ({"nfe": (4, 5), "max_calls": 10}, "max_calls=10 is not enough"),
        ({"pairs": {1: 8}}, "pairs by scale go with several guidance scales of one field"),
        ({"pairs": [8, 8]}, "a list of pairs goes with as many fields, but there are 2 for 1 fields"),
        ({"guidance": ()}, r"guidance must be a scale above 0, or different ones .* not \(\)"),
        ({"guidance": (0, 1)}, r"guidance must be a scale above 0.* not \(0, 1\)"),
        ({"guidance": (2, 2)}, r"or different ones .* not \(2, 2\)"),
        ({"guidance": "3"}, "guidance must be a scale above 0.* not '3'"),
        ({"guidance": 3}, r"needs unconditional=\{\.\.\.\}"),
        ({"guidance": (1, 3)}, r"needs unconditional=\{\.\.\.\}"),
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
    with pytest.raises(
        ValueError,
        match=r"Field\(\.\.\., shape=\(channels, height, width\)\), or pass pairs=fewstep",
    ):
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


@pytest.mark.parametrize("optimizer", ["gauss_newton", Adam(30)], ids=str)
@pytest.mark.parametrize("loss", ["rmse", "mse", "log_mse"])
def test_a_network_that_returns_nan_on_given_pairs_is_said_to(optimizer, loss):
    x0 = fs.noise(8, (3,))
    options = {"pairs": fs.Pairs(x0, -x0), "optimizer": optimizer, "loss": loss}
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


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GaussNewton(iterations=0), "GaussNewton: iterations must be .* at least 1, not 0"),
        (lambda: GaussNewton(jacobian="exact"), "must be 'directions', 'differences' or 'jvp', not 'exact'"),
        (
            lambda: GaussNewton(jacobian="jvp", step=1e-3),
            "jacobian='jvp' takes no step; leave step=0.001 out",
        ),
        (lambda: GaussNewton(minibatch=0), "minibatch must be a whole number of at least 1, not 0"),
        (lambda: Adam(0), "Adam: iterations must be .* at least 1, not 0"),
        (lambda: Adam(batch=2.5), "Adam: batch must be .* not 2.5"),
        (lambda: Adam(report_every=True), "Adam: report_every must be .* not True"),
    ],
)
def test_settings_that_cannot_be_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    "call",
    [
        lambda field: fs.fit(field, 4, pairs=8, iterations=3),
        lambda field: fs.fit(field, 4, pairs=8, label=torch.zeros(8)),
        lambda field: fs.fit(field, 4, pairs=8, rtoll=1e-3),
        lambda field: fs.search(field, (4,), label=3),
        lambda field: fs.fit(field, 4, reference=Reference(rtoll=1e-3)),
        lambda field: fs.fit(field, 4, optimizer=Adam(jacobian="jvp")),
    ],
)
def test_a_misspelt_argument_is_a_type_error(bending, call):
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        call(bending)
    assert bending.model.seen == 0


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: torch.nn.Linear(3, 3).eval(), "Linear"),
        (lambda: lambda x, t: -x, "function"),
        (lambda: [lambda x, t: -x], "function"),
        (lambda: "digits", "str"),
    ],
)
@pytest.mark.parametrize("guidance", [None, (1, 2)], ids=["plain", "scales"])
def test_a_network_is_to_be_wrapped(make, name, guidance):
    field = make()
    if guidance and name == "function":
        pytest.skip("a function is called with the scale, whatever it is")
    words = rf"field is a {name}, but must be a fewstep\.Field; wrap the network, as in Field\(network, shape"
    with pytest.raises(ValueError, match=words):
        fs.fit(field, 4, pairs=8, guidance=guidance)


def test_no_field_at_all_is_refused():
    with pytest.raises(ValueError, match="field is an empty list; pass a Field, or several"):
        fs.fit([], 4)


@pytest.mark.parametrize(
    "call",
    [fs.fit, lambda field, nfe, pairs, **options: fs.search(field, (nfe,), pairs=pairs, test=2, **options)],
)
def test_a_wrong_number_of_rows_is_one_sentence_before_any_call(counting, call):
    def network(x, t, **conditions):
        return -x

    field = fs.Field(counting(network), shape=(3,))
    count = "12 pairs" if call is fs.fit else "14 noises"
    for given, name in (
        ({"label": torch.zeros(8)}, "label"),
        ({"label": ["a"] * 8}, "label"),
        ({"added": {"text": torch.zeros(8, 2)}}, "added.text"),
    ):
        with pytest.raises(
            ValueError, match=rf"^{name} has 8 rows for {count}; pass one row for each"
        ) as raised:
            call(field, 4, pairs=12, per_sample=given)
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="label is in conditions too"):
        call(field, 4, pairs=12, per_sample={"label": torch.zeros(1)}, conditions={"label": 1})
    with pytest.raises(ValueError, match="conditions: must be a mapping of keyword arguments, not Tensor"):
        call(field, 4, pairs=12, conditions=torch.zeros(12))
    assert field.model.seen == 0
