"""The page of a real comparison in a browser: what a reader can do with it."""

from __future__ import annotations

import math
import time

import pytest
from browsing import SEEN, Keys, asked, needs_browser, opened, started, texts, violations, width_of

import fewstep as fs
from fewstep.report.comparison import write_comparison

pytestmark = needs_browser

CALLS, MODELS = (2, 4), ("digits", "mixture-2d", "hole")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Pictures, points, and a model on which a solver fails, as it returns NaN at t = 1/2."""
    hole = fs.Field(lambda x, t: -x.where(t[0] != 0.5, math.nan), shape=(2,), name="hole")
    fields = [*map(fs.models.bundled, MODELS[:2]), hole]
    solvers = {
        "heun": [fs.classical.heun(n // 2) for n in CALLS],
        "dpmpp_2m": [fs.classical.adams_bashforth(2, n, grid=fs.grids.cosine(n)) for n in CALLS],
    }
    tables = [
        fs.compare(field, solvers, noise=5, keep=4, model=name)
        for field, name in zip(fields, MODELS, strict=True)
    ]
    folder = tmp_path_factory.mktemp("comparison")
    write_comparison(tables, folder, command=f"fewstep compare {','.join(MODELS)} heun dpmpp_2m --nfe 2,4")
    return folder / "index.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = started(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


#: What can be seen of every kind of part, and where in it.
KINDS = {
    "charts": (".chart svg .line", "d"),
    "pictures": (".strips img:not([alt*='of reference'])", "src"),
    "paths": (".plane .ends", "d"),
    "times": (".timeline svg", "aria-label"),
    "weights": (".heat", "textContent"),
}


def seen(browser):
    """What the eye gets, by kind."""
    script = f"""return [...document.querySelectorAll(arguments[0])]{SEEN}
        .map(e => e.getAttribute(arguments[1]) || e[arguments[1]])"""
    return {kind: browser.execute_script(script, *where) for kind, where in KINDS.items()}


def chosen(browser, label):
    """What is chosen in the tabs of a label that can be seen."""
    script = f"""return [...document.querySelectorAll('.picker[data-label=' + arguments[0] + ']')]{SEEN}
        .flatMap(e => [...e.querySelector('.panels').children]{SEEN}.map(panel => panel.dataset.value))"""
    return browser.execute_script(script, label)


def tab(browser, model):
    """The first tab of a model."""
    tabs = browser.find_elements("css selector", "[role=tab]")
    return next(tab for tab in tabs if tab.text == model)


def test_it_asks_for_nothing_and_nothing_goes_wrong(browser, page):
    asked(browser)
    opened(browser, page)
    time.sleep(0.2)
    assert asked(browser) == ({page.as_uri()}, [])


def test_the_slider_changes_pictures_paths_times_and_weights(browser, page):
    opened(browser, page)
    before = seen(browser)
    assert {count: texts(browser, ".slider output").count(count) for count in "24"} == {"2": 3, "4": 0}
    browser.find_element("css selector", "input[type=range]").send_keys(Keys.ARROW_RIGHT)
    after = seen(browser)
    assert set(texts(browser, ".slider output")) == {"4"}
    assert before["charts"] == after["charts"] != []
    for kind in ("pictures", "times", "weights"):
        assert before[kind], kind
        assert not set(before[kind]) & set(after[kind]), kind
    tab(browser, "mixture-2d").click()
    before = seen(browser)["paths"]
    sliders = browser.find_elements("css selector", "input[type=range]")
    next(slider for slider in sliders if slider.is_displayed()).send_keys(Keys.HOME)
    reference, *paths = seen(browser)["paths"]
    assert reference == before[0]
    assert paths
    assert not set(paths) & set(before[1:])


@pytest.mark.parametrize("model", ["digits", "mixture-2d"])
def test_samples_and_the_whole_chart_are_seen_without_scrolling(browser, tmp_path, model):
    solvers = {name: [fs.classical.named(name, n) for n in CALLS] for name in ("heun", "euler", "midpoint")}
    fitted = {"fitted": [fs.classical.named("ab2", n) for n in CALLS]}
    table = fs.compare(fs.models.bundled(model), solvers | fitted, noise=12, keep=12, model=model)
    write_comparison([table], tmp_path)
    opened(browser, tmp_path / "index.html", 1400)
    script = f"""return arguments[0].map(selector => [...document.querySelectorAll(selector)]{SEEN}.at(-1))
        .map(e => e.getBoundingClientRect().bottom)"""
    samples, chart = browser.execute_script(script, [".strip, .plane", ".chart svg.wide"])
    assert samples < chart <= 900
    assert [name.split(" ")[0] for name in texts(browser, ".strip-name, .plane-name")][-1].startswith(
        "fitted"
    )
    assert len(texts(browser, ".strip-name, .plane-name")) == 3


def test_a_tab_shows_the_other_model_everywhere(browser, page):
    opened(browser, page)
    before = seen(browser)
    assert chosen(browser, "Model") == ["digits"] * 5
    tab(browser, "hole").click()
    assert chosen(browser, "Model") == ["hole"] * 5
    after = seen(browser)
    assert before["charts"] != after["charts"]
    assert tab(browser, "hole").get_attribute("aria-selected") == "true"


@pytest.mark.parametrize("width", [360, 1280])
def test_names_at_the_ends_of_lines_are_whole(browser, page, width):
    opened(browser, page, width)
    script = f"""return [...document.querySelectorAll('svg .end')]{SEEN}
        .map(e => [e.textContent, e.getBBox(), e.ownerSVGElement.viewBox.baseVal.width])
        .map(([name, box, width]) => [name, box.x + box.width <= width])"""
    names = browser.execute_script(script)
    assert {name for name, _ in names} == {"heun", "dpmpp_2m"}
    assert all(whole for _, whole in names)


def test_a_failure_is_a_gap_with_a_reason(browser, page):
    opened(browser, page)
    tab(browser, "hole").click()
    reason = "the network returned NaN or infinity at call 1 of 4, t = 0.5, from a finite state"
    assert texts(browser, "dl.facts dd")[0].startswith(reason)
    sliders = browser.find_elements("css selector", "input[type=range]")
    next(slider for slider in sliders if slider.is_displayed()).send_keys(Keys.END)
    assert "Failed, for the reasons named under the chart: heun, dpmpp_2m." in " ".join(
        texts(browser, ".planes + figcaption")
    )
    assert [name.partition(" ")[0] for name in texts(browser, ".plane-name")] == ["reference32"]


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
def test_it_fits_and_everyone_can_use_it(browser, page, width, scheme):
    opened(browser, page, width, scheme)
    assert violations(browser) == []
    assert width_of(browser) <= width
