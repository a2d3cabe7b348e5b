"""The page of a training: what it shows of runs of every kind, whole or damaged."""

from __future__ import annotations

import json
import math
import time

import pytest

from fewstep.report.page import Chart, Choice, Code, Facts, Image, Slider, Table, Text
from fewstep.report.training import holds_training, training_page
from fewstep.report.training._charts import thinned
from fewstep.report.training._run import read_metrics

#: The smallest picture that is one: a grey PNG of one pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000 3a7e9b55"
    "0000000a49444154789c63680000008200 81dd436af40000000049454e44ae426082".replace(" ", "")
)


def line(step, **figures):
    return {"step": step, "samples": 64 * step, **figures, "time": 1_000_000.0 + step}


def logged(step, loss, kl=0.0, beta=0.0, **figures):
    report = {"loss": loss + beta * kl, "flow_matching": loss, "kl": kl, "beta": beta}
    return line(step, **report, lr=1e-3, samples_per_second=32.0, **figures)


def write(folder, lines, run=None, previews=(), **record):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    facts = {"settings": {"steps": 400, "batch": 64, "page_every": 7}, "data": {"count": 640}, **(run or {})}
    content = {
        "format": "fewstep.run",
        "schema": 1,
        "run": facts,
        "started": 1_000_000.0,
        "ended": None,
        **record,
    }
    (folder / "run.json").write_text(json.dumps(content))
    for name in previews:
        path = folder / "previews" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PNG)
    return folder


def parts(page, kind):
    """All parts of one kind on a page, however deep in choices."""

    def walk(part):
        if isinstance(part, kind):
            yield part
        for inner in getattr(part, "options", {}).values():
            yield from walk(inner)

    every = [*page.lead, *(part for section in page.sections for part in section.parts)]
    return [found for part in every for found in walk(part)]


def headings(page):
    return [section.title for section in page.sections]


def charts(page):
    return {chart.title: chart for chart in parts(page, Chart)}


def lines_of(chart):
    return {series.name: dict(zip(series.x, series.y, strict=True)) for series in chart.series}


FINISHED = {"how": "finished", "why": None, "time": 1_000_400.0}


def test_a_run_with_a_learned_coupling_shows_everything(tmp_path):
    looked = {"validation_loss": 0.5, "validation_flow_matching": 0.4, "validation_kl": 0.02}
    noises = {"mean": 0.1, "variance": 0.9, "variance_min": 0.8, "variance_max": 1.1, "norm": 0.97, "ks": 0.2}
    noises = {f"validation_aggregate_{key}": value for key, value in noises.items()}
    lines = [
        logged(step, 10 / step, kl=1 / step, beta=5.0, gradient_norm=2.0) for step in (100, 200, 300, 400)
    ]
    for step, curvature in ((200, 0.3), (400, 0.2)):
        lines.append(line(step, **looked, **noises, curvature=curvature, truncation_rmse_4=0.1))
    folder = write(tmp_path / "run", lines, {"coupling": {"name": "Learned", "exact": False}}, ended=FINISHED)
    page = training_page(folder)

    shown = charts(page)
    assert list(shown) == [
        "Loss", "Flow matching", "KL divergence", "Curvature", "Truncation error", "Mean", "Variance", "Norm",
        "Distance", "Learning rate", "Gradient", "Speed", "Wall clock",
    ]  # fmt: skip
    matching = lines_of(shown["Flow matching"])
    assert matching == {
        "training": {100: 0.1, 200: 0.05, 300: pytest.approx(1 / 30, rel=1e-4), 400: 0.025},
        "validation": {200: 0.4, 400: 0.4},
    }
    assert lines_of(shown["Curvature"]) == {"averaged weights": {200: 0.3, 400: 0.2}}
    variance = shown["Variance"].series
    assert (variance[0].y, variance[0].low, variance[0].high) == ([0.9, 0.9], [0.8, 0.8], [1.1, 1.1])
    assert lines_of(shown["Variance"])["N(0, I)"] == {200: 1, 400: 1}
    assert page.refresh is None
    assert page.summary == (
        "Finished: 400 steps, 13 min of training. 25,600 samples seen (40 epochs), 32 a second. "
        "Training loss 0.0375; best validation loss 0.5, at step 200."
    )


def test_pictures_come_first_and_then_one_chart_of_losses_with_a_choice(tmp_path):
    names = [f"step-{step:08d}-samples.png" for step in (100, 200)]
    page = training_page(
        write(tmp_path / "run", [logged(step, 1 / step, kl=0.1) for step in (100, 200)], previews=names)
    )
    assert headings(page)[:2] == ["Pictures", "Losses"]
    (choice,) = page.sections[1].parts
    assert list(choice.options) == ["Loss", "Flow matching", "KL divergence"]
    labels = [part.label for section in page.sections for part in section.parts if isinstance(part, Choice)]
    assert len(labels) == len(set(labels))  # choices of one label would change together


def test_an_independent_coupling_has_no_kl_and_its_noises_are_exact(tmp_path):
    lines = [logged(step, 1 / step, validation_aggregate_mean=0.0) for step in (100, 200)]
    shown = charts(
        training_page(write(tmp_path / "run", lines, {"coupling": {"name": "Independent", "exact": True}}))
    )
    assert list(shown) == ["Loss", "Learning rate", "Speed", "Wall clock"]


def test_a_ramp_of_beta_and_figures_of_ones_own_are_shown(tmp_path):
    lines = [logged(step, 1.0, kl=0.1, beta=step / 100, my_loss=3.0) for step in (100, 200)]
    shown = charts(training_page(write(tmp_path / "run", lines)))
    assert lines_of(shown["Beta"]) == {"training": {100: 1.0, 200: 2.0}}
    assert lines_of(shown["My loss"]) == {"training": {100: 3.0, 200: 3.0}}


def test_an_axis_is_logarithmic_where_that_shows_more(tmp_path):
    near = [logged(step, 1 + 1 / step) for step in (100, 200)]
    far = [logged(step, 10.0 ** -(step // 100)) for step in (100, 200)]
    assert not charts(training_page(write(tmp_path / "near", near)))["Loss"].log_y
    assert charts(training_page(write(tmp_path / "far", far)))["Loss"].log_y
    assert not charts(training_page(write(tmp_path / "zero", [*far, logged(300, 0.0)])))["Loss"].log_y


def test_a_figure_that_was_taken_once_is_a_number(tmp_path):
    lines = [logged(100, 1.0), line(100, aggregate_variance=0.9, aggregate_variance_min=0.5,
                                    aggregate_variance_max=1.25, curvature=None)]  # fmt: skip
    numbers = {}
    for facts in parts(training_page(write(tmp_path / "run", lines)), Facts):
        numbers |= facts.facts
    assert numbers["Variance"] == "0.9 (0.5 to 1.25)"
    assert numbers["Curvature"] is None


def test_previews_move_together_and_those_left_out_are_counted(tmp_path):
    names = [
        f"step-{step:08d}-{kind}.png" for step in range(100, 4000, 100) for kind in ("samples", "estimates")
    ]
    page = training_page(write(tmp_path / "run", [logged(3900, 1.0)], previews=names))
    sliders = parts(page, Slider)
    assert [slider.label for slider in sliders] == ["Step", "Step"]
    steps = list(sliders[0].frames)
    assert len(steps) == 12
    assert steps == list(sliders[1].frames)
    assert (steps[0], steps[-1]) == (100, 3900)
    assert all(340 <= b - a <= 360 or b - a in (300, 400) for a, b in zip(steps, steps[1:], strict=False))
    assert sliders[0].start == 3900
    assert sliders[0].frames[3900].png == PNG
    assert sliders[0].frames[3900].zoom == 720  # a picture of one pixel
    assert "1, 2, 4, 8 and 32 network calls" in sliders[0].frames[3900].caption
    assert any(text.text.startswith("27 more of the 39 steps") for text in parts(page, Text))


def test_large_previews_are_fewer(tmp_path):
    names = [f"step-{step:08d}-samples.png" for step in range(10)]
    folder = write(tmp_path / "run", [logged(9, 1.0)], previews=names)
    for name in names:
        (folder / "previews" / name).write_bytes(PNG + bytes(4_000_000))
    assert list(parts(training_page(folder), Slider)[0].frames) == [0, 9]
    (folder / "previews" / names[9]).write_bytes(PNG + bytes(20_000_000))
    assert [len(image.png) for image in parts(training_page(folder), Image)] == [20_000_000 + len(PNG)]


def test_a_damaged_picture_is_named(tmp_path):
    names = [f"step-{step:08d}-samples.png" for step in (1, 2)]
    folder = write(tmp_path / "run", [], previews=names)
    (folder / "previews" / names[1]).write_bytes(PNG[:10])
    page = training_page(folder)
    assert [image.alt for image in parts(page, Image)] == ["samples after step 1"]
    assert any(text.text == f"Omitted, as damaged: {names[1]}." for text in parts(page, Text))


@pytest.mark.parametrize(
    ("record", "run", "words"),
    [
        ({"data": {"name": "points", "shape": [2]}}, {}, "Points after 1, 2, 4, 8 and 32 network calls"),
        ({}, {"objective": {"name": "Distillation", "solver": {"name": "heun", "nfe": 2}}}, "The teacher's"),
        ({"data": {"name": "digits", "shape": [1, 8, 8]}}, {}, "a row each with 1, 2, 4, 8 and 32"),
    ],
)
def test_pictures_say_what_they_are(tmp_path, record, run, words):
    folder = write(tmp_path / "run", [], run, previews=["step-00000010-samples.png"], **record)
    page = training_page(folder)
    (image,) = parts(page, Image)  # one step needs no slider
    assert words in image.caption
    commands = [line for code in parts(page, Code) for line in code.text.splitlines()]
    assert any(f"sample {folder}/flow.safetensors " in text for text in commands)
    assert any("heun:2" in text for text in commands) == ("objective" in run)


def test_a_damaged_line_is_left_out_and_one_being_written_is_waited_for(tmp_path):
    folder = write(tmp_path / "run", [logged(100, 1.0), logged(200, 0.5)])
    path = folder / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"step": 300, "loss": 0.')
    page = training_page(folder)
    assert lines_of(charts(page)["Loss"]) == {"training": {100: 1.0, 200: 0.5}}
    assert not any("damaged" in text.text for text in parts(page, Text))
    path.write_text('{"step": 50, "lo\n[3]\n{"step": "x"}\n\x00\n' + whole)
    page = training_page(folder)
    assert lines_of(charts(page)["Loss"]) == {"training": {100: 1.0, 200: 0.5}}
    assert any("metrics.jsonl has 4 damaged lines" in text.text for text in parts(page, Text))


def test_figures_that_are_not_finite_are_gaps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "a": null}\n{"step": 2, "a": NaN}\n{"step": 3, "a": 2, "b": true, "c": "x"}\n'
    )
    metrics = read_metrics(path)
    assert metrics.figures == {"a": {1: None, 2: None, 3: 2}}
    assert metrics.of("a") == {3: 2}
    assert metrics.last("a") == 2
    lines = [logged(100, 1.0), logged(200, math.nan), logged(300, 0.5)]
    shown = charts(training_page(write(tmp_path / "run", json.loads(json.dumps(lines)))))
    assert lines_of(shown["Loss"]) == {"training": {100: 1.0, 200: None, 300: 0.5}}


def test_steps_that_were_taken_again_count_once(tmp_path):
    lines = [logged(100, 1.0), logged(300, 9.0), logged(200, 0.5), logged(300, 0.25)]
    shown = charts(training_page(write(tmp_path / "run", lines)))
    assert list(lines_of(shown["Loss"])["training"].items()) == [(100, 1.0), (200, 0.5), (300, 0.25)]


def test_thinning_keeps_ends_extremes_and_gaps():
    y = [math.sin(k / 1000) for k in range(20_000)]
    y[7777], y[8888], y[9999] = 5.0, -5.0, None
    kept = thinned(y)
    assert len(kept) < 1010
    assert {0, 7777, 8888, 9999, 19_999} <= set(kept)
    assert kept == sorted(set(kept))
    assert thinned(y[:1000]) == list(range(1000))
    assert thinned([None] * 3, most=2) == [0, 1, 2]


def test_a_run_before_its_first_line_says_so(tmp_path):
    folder = write(tmp_path / "run", [], {"data": {"count": 640}}, started=time.time())
    (folder / "metrics.jsonl").unlink()
    page = training_page(folder)
    assert page.summary.startswith("Running, at step 0 of 400 (0 %). No figures have been logged yet. As of ")
    assert page.refresh == 7
    assert not parts(page, Chart)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"started": None}, "Running, at step 100 of 400 (25 %), about 10 min left."),
        ({}, "No news since "),
        ({"ended": {**FINISHED, "how": "interrupted"}}, "Interrupted at step 100 of 400 (25 %)"),
        (
            {"ended": {**FINISHED, "how": "failed", "why": "Oh no."}},
            "Failed at step 100 of 400 (25 %): Oh no.",
        ),
    ],
)
def test_the_state_is_told_in_words(tmp_path, record, words):
    if "started" in record:  # now, and not when the tests were collected
        record = {"started": time.time()}
    page = training_page(write(tmp_path / "run", [logged(100, 1.0)], **record))
    assert page.summary.startswith(words)
    assert page.refresh == (7 if "Running" in words else None)
    again = [text.text for text in parts(page, Text)]
    assert any("continue from the start" in text for text in again) == ("Running" not in words)


def test_a_run_is_waited_for_as_long_as_its_lines_are_apart(tmp_path):
    now = time.time()
    slow = [{"step": k, "loss": 1.0, "time": now - 1000 * (9 - k)} for k in range(9)]
    assert "Running" in training_page(write(tmp_path / "slow", slow, started=now - 1e5)).summary
    # The same lines, but from before an interruption of which the last start is a quarter of an hour ago.
    assert "No news" in training_page(write(tmp_path / "again", slow, started=now - 900)).summary


def test_who_watches_says_how_often(tmp_path):
    folder = write(tmp_path / "run", [logged(100, 1.0)], started=time.time())
    assert training_page(folder, 0.2).refresh == 1
    assert training_page(folder, 0).refresh is None


def test_commands_go_on_from_a_finished_run(tmp_path):
    folder = write(tmp_path / "a run", [logged(400, 1.0)], ended=FINISHED)
    (folder / "config.yaml").write_text("data: digits\n")
    (folder / "flow.safetensors").write_bytes(bytes(2_000_000))
    page = training_page(folder)
    (code,) = page.lead  # at the top
    fit, sample, longer = code.text.splitlines()
    assert fit == f"fewstep fit '{folder}'/flow.safetensors --nfe 4 --out '{folder}'/solvers"
    assert sample.startswith(f"fewstep sample '{folder}'/flow.safetensors '{folder}'/solvers/*-4.json ")
    again = f"fewstep train --config '{folder}/config.yaml' --out '{folder}'"
    assert longer == f"{again} --steps 800  # for longer"
    (table,) = parts(page, Table)
    assert ("flow.safetensors", "the flow, for use", 2000) in table.rows
    cosine = write(tmp_path / "a run", [logged(400, 1.0)], {"settings": {"decay": "cosine"}}, ended=FINISHED)
    assert not any("--steps" in code.text for code in parts(training_page(cosine), Code))
    write(cosine, [logged(300, 1.0)], ended={**FINISHED, "how": "interrupted"})
    told, code = training_page(cosine).lead
    assert told.text == "Repeat the command or script that started the run to continue from the start."
    assert code.text.splitlines()[0] == again


def test_a_run_that_goes_on_shows_its_pictures_at_the_top_and_the_commands_at_the_end(tmp_path):
    now = time.time()
    lines = [{**logged(step, 1.0), "time": now - 100 + step / 10} for step in (100, 200)]
    page = training_page(write(tmp_path / "run", lines, started=now - 200))
    assert page.summary.startswith("Running")
    assert page.lead == []
    assert headings(page)[-1] == "How to go on"


def test_what_is_no_run_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent: there is no such folder"):
        training_page(tmp_path / "absent")
    assert not holds_training(tmp_path)
    (tmp_path / "run.json").write_text("{")
    assert holds_training(tmp_path)
    with pytest.raises(
        ValueError,
        match=r"run\.json: .* \(not complete JSON.* write it again with fewstep train",
    ):
        training_page(tmp_path)
