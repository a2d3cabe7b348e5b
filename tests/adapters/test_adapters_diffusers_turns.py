"""Tasks of more samples than prompts, which take them in turn."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs

pytest.importorskip("diffusers", reason="diffusers is not installed")

from tiny_pipelines import ARGUMENTS, SCHEDULERS, build, draw

from_pipeline = fs.adapters.diffusers.from_pipeline


def plain(per_sample, unconditional=None, shape=(2,)):
    """A task whose network adds a condition of its own."""
    field = fs.Field(
        lambda x, t, to: to - x, shape=shape, guidance=None if unconditional is None else 3.0,
        unconditional=unconditional,
    )  # fmt: skip
    return fs.adapters.diffusers.Task(field, {}, per_sample, torch.zeros(3, *shape), 1.0)


@pytest.mark.parametrize("kind", ["sd", "z_image"])
def test_prompts_and_negative_prompts_are_taken_in_turn(kind):
    """Sample k is that of prompt k modulo three alone; Z-Image keeps its prompts in lists."""
    pipe, arguments = build(kind, SCHEDULERS[kind]()), ARGUMENTS[kind](3, True)
    negative = draw(3, 5, 16, seed=4)
    arguments["negative_prompt_embeds"] = negative if kind == "sd" else list(negative)
    task = from_pipeline(pipe, **arguments)
    taken = task.of(5)
    x = fs.noise(5, task.field.shape, seed=1)
    found = taken.field.bind(taken.conditions, taken.per_sample, 5)(x, 0.3)
    whole = task.field.bind(task.conditions, task.per_sample, 3)
    expected = torch.cat([whole(x[:3], 0.3), whole.rows(slice(0, 2))(x[3:], 0.3)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (task.rows, taken.rows, taken.noise) == (3, 5, None)
    assert task.field.unconditional.keys() == taken.field.unconditional.keys()


def test_a_fit_has_as_many_pairs():
    task = plain({"to": torch.tensor([[1.0], [2.0], [3.0]])}, {"to": torch.tensor([[0.0], [1.0], [2.0]])})
    task = task.of(8)
    settings = fs.fitting.GaussNewton(1, last_steps=0)
    fit = fs.fit(task.field, nfe=2, per_sample=task.per_sample, optimizer=settings)
    assert fit.report.pairs == {"train": 6, "validation": 2}


def test_numbers_choose_and_one_row_serves_all():
    task = plain({"to": torch.tensor([[1.0], [2.0], [3.0]]), "all": torch.ones(1, 1)})
    assert task.of([4, 0, 6]).per_sample["to"].flatten().tolist() == [2, 1, 1]
    assert task.of(7).per_sample["all"].shape == (1, 1)
    one = plain({"to": torch.ones(1, 1)})
    assert (one.rows, one.of(7).per_sample["to"].shape) == (0, (1, 1))


@pytest.mark.parametrize("samples", [0, -1, [], [-1], 2.5, None], ids=str)
def test_other_numbers_are_refused(samples):
    with pytest.raises(ValueError, match=r"^Task\.of: samples must be their number, at least 1, or a list"):
        plain({"to": torch.ones(3, 1)}).of(samples)


def test_a_task_is_printed_without_its_tensors():
    task = plain({"to": torch.ones(3, 1)})
    assert repr(task) == f"Task({task.field!r}, conditions=[], per_sample=['to'], rows=3, shift=1)"
