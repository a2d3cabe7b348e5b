"""Calls of networks in watched pipelines: names, signs, times, lists, concatenation and rows."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

from tiny_loops import Loop, Net, X  # noqa: E402
from tiny_pipelines import draw  # noqa: E402

from_pipeline = fs.adapters.diffusers.from_pipeline


def test_images_that_follow_the_latents_in_a_sequence():
    """As in Flux Kontext, whose pipeline cuts them off the output."""
    net, extra = Net(), draw(3, 2, seed=5)
    net.forward = lambda x, when: Net()(x[:, :2] + x[:, 2:], when).repeat(1, 2)
    pipe = Loop(net)
    pipe.watched, pipe.network = net, lambda x, t: net(torch.cat([x, extra], 1), t)[:, :2]
    task = from_pipeline(pipe, latents=X)
    assert torch.equal(task.per_sample["concatenated"], extra)
    bound = task.field.bind(task.conditions, task.per_sample, 3)
    torch.testing.assert_close(bound(X, 0.25), -Net()(X + extra, torch.full((3,), 750.0)))


def test_any_names_signs_and_clocks():
    """Arguments of unknown names; an output of our sign; a time from noise to data."""
    task = from_pipeline(Loop(Net(), lambda k, out: -out, time=lambda t: 1 - t / 1000), latents=X)
    assert task.field.clock == (0.0, 1.0)
    torch.testing.assert_close(task.field(X, 0.25), Net()(X, torch.full((3,), 0.25)))
    torch.testing.assert_close(task.noise, X)


def test_lists_and_mappings_of_tensors():
    """As of adapters of images: a list of tensors with one row per sample, in a mapping, and plain values."""
    images = [draw(3, 2, seed=k) for k in (4, 5)]
    scale = draw(2, seed=6)

    def forward(x, t, *, added, scale, mode):
        assert mode == {"kind": "sum", "factors": (1, 2)}
        assert type(added["images"]) is list
        assert added["strength"] is None
        return Net()(x, t) * scale + added["images"][0] * added["images"][1]

    net = Net()
    net.forward = forward
    kept = {"added": {"images": images, "strength": None}, "scale": scale}
    pipe = Loop(net, **kept, mode={"kind": "sum", "factors": (1, 2)})
    task = from_pipeline(pipe, latents=X)
    assert set(task.conditions) == {"scale"}
    assert set(task.per_sample) == {"added"}
    bound = task.field.bind(task.conditions, task.per_sample, 3)
    expected = -forward(X, torch.tensor(500.0), **pipe.kept)
    torch.testing.assert_close(bound(X, 0.5), expected)
    torch.testing.assert_close(bound.rows(slice(1, 3))(X[1:], 0.5), expected[1:])


def test_shared_tensors_that_could_be_rows():
    """A tensor of three numbers that serves all three samples alike."""
    net = Net()
    net.forward = lambda x, when, levels: Net()(x, when) * levels.square().sum()
    task = from_pipeline(Loop(net, levels=draw(3, seed=4)), latents=X)
    assert (set(task.conditions), set(task.per_sample)) == ({"levels"}, set())


def test_times_without_a_batch():
    net = Net()
    net.forward = lambda x, when: Net()(x, torch.full((len(x),), when.item()))
    pipe = Loop(net)
    pipe.watched, pipe.network = net, lambda x, t: net(x, t[0])
    task = from_pipeline(pipe, latents=X)
    torch.testing.assert_close(task.field(X, 0.25), -Net()(X, torch.full((3,), 750.0)))


def test_networks_that_write_into_their_input():
    net = Net()
    net.forward = lambda x, when: Net()(x, when) + 0 * x.zero_()
    pipe = Loop(net)
    pipe.watched, pipe.network = net, lambda x, t: net(x.clone(), t)
    task = from_pipeline(pipe, latents=X)
    torch.testing.assert_close(task.noise, X)


@pytest.mark.filterwarnings("ignore")  # torch.compile's own
def test_compiled_networks():
    net = Net()
    task = from_pipeline(Loop(torch.compile(net, backend="eager")), latents=X)
    assert task.field.name == "Net 2"
    torch.testing.assert_close(task.field(X, 0.25), -net(X, torch.full((3,), 750.0)))


def test_schedulers_whose_velocity_points_to_the_data():
    class Towards(diffusers.FlowMatchEulerDiscreteScheduler):
        def step(self, model_output, timestep, sample):
            return super().step(-model_output, timestep, sample)

    task = from_pipeline(Loop(Net(), scheduler=Towards()), latents=X)
    torch.testing.assert_close(task.field(X, 0.25), Net()(X, torch.full((3,), 750.0)))
    mochi = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    task = from_pipeline(Loop(Net(), scheduler=mochi), latents=X)
    assert task.field.clock == (0, 1000)
    torch.testing.assert_close(task.field(X, 0.25), Net()(X, torch.full((3,), 250.0)))
