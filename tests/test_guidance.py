"""Guidance in one call of a doubled batch, against two calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep._guidance import doubled_conditions

pytestmark = pytest.mark.usefixtures("few_rivals")

X0 = fs.noise(3, (2,))
LABEL = torch.tensor([1.0, 2.0, 3.0])


class Network:
    """Scales each state by what its conditions say; counts its calls and their states."""

    def __init__(self):
        self.sizes = []

    def __call__(self, x, t, label=0.0, text=(), array=None, nested=None, shared=None):
        self.sizes.append(len(x))
        factor = torch.zeros(len(x)) + torch.as_tensor(label) + t
        if len(text):
            factor = factor + torch.tensor([float(len(word)) for word in text])
        if array is not None:
            factor = factor + torch.as_tensor(array, dtype=torch.float32)
        if nested is not None:
            factor = factor + nested["a"] + nested["b"]["c"][:, 0]
        if shared is not None:
            factor = factor + shared.sum()
        return x * factor[:, None]


KINDS = {
    "tensor": ({"label": LABEL}, {"label": torch.zeros(1)}),
    "tensors for each": ({"label": LABEL}, {"label": -LABEL}),
    "strings": ({"text": ["a", "bb", "ccc"]}, {"text": [""]}),
    "tuples": ({"text": ("a", "bb", "ccc")}, {"text": ("",)}),
    "arrays": ({"array": LABEL.numpy()}, {"array": np.zeros(1)}),
    "nested": (
        {"nested": {"a": LABEL, "b": {"c": LABEL[:, None]}}},
        {"nested": {"a": torch.zeros(1), "b": {"c": torch.ones(1, 1)}}},
    ),
    "not replaced": ({"label": LABEL, "array": LABEL}, {"label": torch.zeros(1)}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [0.3, torch.tensor(0.3), torch.tensor([0.1, 0.2, 0.3])], ids=str)
def test_one_call_gives_what_two_give(kind, t):
    given, away = KINDS[kind]
    network = Network()
    fields = [
        fs.Field(network, guidance=2.5, unconditional=away, joined_guidance=joined).bind(None, given, 3)
        for joined in (False, True, None)
    ]
    apart, joined, default = (field(X0, t) for field in fields)
    assert network.sizes == [3, 3, 6, 6]
    assert torch.equal(joined, apart)
    assert torch.equal(default, apart)


def test_shared_conditions_stay_as_they_are():
    network, shared = Network(), {"shared": torch.ones(3)}  # as many numbers as samples, by chance
    field = fs.Field(network, guidance=2.5, unconditional={"label": torch.zeros(1)})
    apart = fs.Field(network, guidance=2.5, unconditional={"label": 0.0}, joined_guidance=False)
    expected = apart.bind(shared, {"label": LABEL}, 3)(X0, 0.3)
    assert torch.equal(field.bind(shared, {"label": LABEL}, 3)(X0, 0.3), expected)
    assert network.sizes == [3, 3, 6]


def test_conditions_that_are_not_bound_go_together_only_if_asked():
    network = Network()
    options = {"guidance": 2.5, "unconditional": {"label": torch.zeros(1)}}
    expected = fs.Field(network, **options)(X0, 0.3, label=LABEL)
    assert torch.equal(fs.Field(network, **options, joined_guidance=True)(X0, 0.3, label=LABEL), expected)
    assert network.sizes == [3, 3, 6]


@pytest.mark.parametrize(
    ("given", "away"),
    [
        ({"label": LABEL}, {"array": LABEL}),
        ({"label": 1.0}, {"label": 0.0}),
        ({"label": LABEL, "array": LABEL}, {"label": torch.zeros(1)}),
    ],
    ids=["other names", "no rows", "perhaps rows"],
)
def test_what_one_call_cannot_take(given, away):
    field = fs.Field(Network(), guidance=2.0, unconditional=away)
    field(X0, 0.3, **given)
    assert field.model.sizes == [3, 3]
    field.joined_guidance = True
    with pytest.raises(ValueError, match="joined_guidance=True needs the same names in conditions"):
        field(X0, 0.3, **given)


def test_a_bound_field_falls_back_to_two_calls():
    field = fs.Field(Network(), guidance=2.0, unconditional={"label": 0.0}).bind({"label": 1.0}, None, 3)
    field(X0, 0.3)
    assert field.model.sizes == [3, 3]


def test_another_model_is_called_apart():
    network, guide = Network(), Network()
    field = fs.Field(network, guidance=2.0, guide=guide, joined_guidance=True)
    field(X0, 0.3, label=LABEL)
    assert (network.sizes, guide.sizes) == ([3], [3])


def test_outside_the_interval_nothing_is_doubled():
    options = {"guidance": 2.0, "unconditional": {"label": torch.zeros(1)}, "guidance_interval": (0.2, 0.6)}
    field = fs.Field(Network(), **options).bind(None, {"label": LABEL}, 3)
    fs.classical.euler(4).sample(field, X0)
    assert field.model.sizes == [3, 6, 6, 3]


def test_values_of_other_shapes_are_not_joined():
    rows = torch.zeros(3, 2)
    assert doubled_conditions({"a": rows}, {"a": rows[:, :1]}, {"a"}, 3) is None
    assert doubled_conditions({"a": rows}, {"a": [0, 0, 0]}, {"a"}, 3) is None


def test_a_fit_is_the_same_with_one_call_as_with_two():
    label = torch.linspace(-2, 0, 12)
    found = []
    for joined in (None, False):
        options = {"guidance": 2.0, "unconditional": {"label": torch.zeros(1)}, "joined_guidance": joined}
        field = fs.Field(Network(), shape=(2,), name="n", **options)
        fit = fs.fit(field, 3, pairs=12, per_sample={"label": label})
        found.append((fit.solver.D, max(field.model.sizes)))
    (one, doubled), (two, single) = found
    assert one == two
    assert doubled == 2 * single


def guided(rescale, scale=3.0, **options):
    """Predictions ``a``, of the conditions, and ``b``, and the mix of them, all at ``t = 0.3``."""
    x = fs.noise(3, (2, 4), dtype=torch.float64)
    a, b = x**2 + LABEL.double()[:, None, None] * x, 0.3 - x
    field = fs.Field(
        lambda x, t, label: x**2 + label.double()[:, None, None] * x if label.any() else 0.3 - x,
        guidance=scale,
        unconditional={"label": torch.zeros(1)},
        guidance_rescale=rescale,
        **options,
    )
    return a, b, field(x, 0.3, label=LABEL)


@pytest.mark.parametrize("rescale", [0.0, 0.4, 1.0])
def test_rescaled_guidance_has_the_deviation_between_its_own_and_that_of_the_condition(rescale):
    a, b, found = guided(rescale)
    plain = b + 3.0 * (a - b)
    along = (found / plain).flatten(1)
    assert torch.allclose(along, along[:, :1].expand_as(along))  # one factor a sample
    own, condition, mixed = (np.std(value.flatten(1).numpy(), axis=1, ddof=1) for value in (plain, a, found))
    assert np.allclose(mixed, (1 - rescale) * own + rescale * condition)


def test_guidance_of_the_norm_of_the_condition():
    a, b, found = guided("norm")
    plain = b + 3.0 * (a - b)
    assert torch.allclose(found.norm(dim=-1), a.norm(dim=-1))
    assert torch.allclose(
        torch.cosine_similarity(found, plain, dim=-1), torch.ones(3, 2, dtype=torch.float64)
    )


@pytest.mark.parametrize("rescale", [0.7, "norm"])
def test_no_guidance_is_not_resized(rescale):
    a, _, found = guided(rescale, guidance_interval=(0.5, 1.0))
    assert torch.allclose(found, a)


@pytest.mark.parametrize("rescale", [-0.1, 1.5, True, "std", None])
def test_other_rescaling_is_refused(rescale):
    with pytest.raises(ValueError, match=r"guidance_rescale must be a number in \[0, 1\], or 'norm', not"):
        guided(rescale)


@pytest.mark.parametrize("rescale", [0.7, "norm"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
def test_samples_of_one_number_have_no_deviation(shape, rescale):
    options = {"guidance": 3.0, "unconditional": {"to": 1.0}, "guidance_rescale": rescale}
    field = fs.Field(lambda x, t, to=0.0: to - x, **options)
    with pytest.raises(ValueError, match=rf"^Field: guidance_rescale={rescale!r} measures .* has too few; "):
        field(fs.noise(4, shape), 0.3)
    assert field(fs.noise(4, (2,)), 0.3).isfinite().all()


@pytest.mark.parametrize("rescale", [0.7, "norm"])
def test_rescaling_needs_something_to_guide_away_from(rescale):
    with pytest.raises(ValueError, match=rf"guidance_rescale={rescale!r} changes guided predictions, but"):
        fs.Field(lambda x, t: x, guidance_rescale=rescale)
    field = fs.Field(Network(), unconditional={"label": 0.0}, guidance_rescale=rescale)  # for with_guidance
    assert field.with_guidance(2.0).guidance_rescale == rescale
    assert fs.Field(Network(), guide=Network(), guidance=2, guidance_rescale=rescale).guidance == 2


@pytest.mark.parametrize("joined", [None, False])
def test_negative_conditions_of_other_samples_are_told(joined):
    """Three rows for two samples; a network that fails for another reason says its own."""
    options = {"guidance": 2.5, "unconditional": {"label": LABEL}, "joined_guidance": joined}
    field = fs.Field(Network(), **options)
    words = "^unconditional label has 3 rows for 2 samples; pass one row for each or for all.$"
    with pytest.raises(ValueError, match=words):
        fs.classical.euler(2).sample(field, X0[:2], label=LABEL[:2])
    with pytest.raises(RuntimeError, match=r"must match the size"):
        field(X0, 0.3, label=LABEL, shared=torch.ones(3), text=["a", "b"])
