"""What the script does, in a browser that is shown the file and no network."""

from __future__ import annotations

import base64
import re
import time
import zlib

import pytest
import torch
from browsing import (
    SEEN,
    Keys,
    asked,
    attributes,
    find,
    needs_browser,
    opened,
    shown,
    started,
    texts,
    until,
    violations,
    width_of,
)

from fewstep.report import page as parts

pytestmark = needs_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = started(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def files(tmp_path_factory, everything):
    folder = tmp_path_factory.mktemp("pages")
    for name, refresh in (("still", None), ("live", 1)):
        everything(refresh).write(folder / f"{name}.html")
    return folder


@pytest.fixture
def still(browser, files):
    """A fresh page in a wide window, in the light scheme."""
    return opened(browser, files / "still.html")


def test_nothing_is_requested_and_nothing_goes_wrong(browser, files):
    asked(browser)
    opened(browser, files / "still.html")
    time.sleep(0.2)
    assert asked(browser) == ({(files / "still.html").as_uri()}, [])


def test_the_arrow_keys_move_a_slider_and_those_of_its_label(still):
    assert shown(still, "slider", 0) == ["2"]
    first, second = still.find_elements("css selector", "input[type=range]")
    first.send_keys(Keys.ARROW_RIGHT)
    assert (shown(still, "slider", 0), shown(still, "slider", 1)) == (["4"], ["4"])
    assert first.get_attribute("aria-valuetext") == "network calls: 4"
    assert texts(still, ".slider output") == ["4", "4"]
    # Which has no 16: it goes to the nearest.
    first.send_keys(Keys.END)
    assert (shown(still, "slider", 0), shown(still, "slider", 1)) == (["16"], ["6"])
    assert second.get_attribute("aria-valuetext") == "network calls: 6"
    second.send_keys(Keys.HOME)
    assert (shown(still, "slider", 0), shown(still, "slider", 1)) == (["2"], ["2"])


def test_frames_keep_their_place(still):
    script = "return document.documentElement.scrollHeight"
    before = still.execute_script(script)
    find(still, "input[type=range]").send_keys(Keys.END)
    assert still.execute_script(script) == before


def test_the_arrow_keys_move_between_tabs_and_those_of_their_label(still):
    assert shown(still, "choice", 0) == ["mnist"]
    find(still, "[role=tab][aria-selected=true]").send_keys(Keys.ARROW_RIGHT)
    assert (shown(still, "choice", 0), shown(still, "choice", 1)) == (["mnist-straight"], ["mnist-straight"])
    focused = still.switch_to.active_element
    assert (focused.text, focused.get_attribute("aria-selected")) == ("mnist-straight", "true")
    assert [tab.get_attribute("tabindex") for tab in still.find_elements("css selector", "[role=tab]")] == [
        "-1",
        "0",
    ] * 2
    focused.send_keys(Keys.ARROW_RIGHT)  # round and round
    assert shown(still, "choice", 0) == ["mnist"]


def test_long_names_are_chosen_from_a_list(still):
    chosen = find(still, "select")
    chosen.send_keys(Keys.ARROW_DOWN)
    assert shown(still, "choice", 2) == ["what a metric with quite a long name says, number 1"]


def test_a_name_in_a_legend_fades_its_series_everywhere(still):
    button = find(still, "#chart-1 li[data-series=heun] button")
    button.send_keys(Keys.SPACE)
    # Two sizes, two charts, two models.
    assert attributes(still, "g.series.faded", "data-series") == ["heun"] * 8
    assert attributes(still, "li[data-series=heun] button", "aria-pressed") == ["false"] * 4
    button.send_keys(Keys.SPACE)
    assert attributes(still, "g.series.faded", "data-series") == []


def test_the_arrow_keys_read_out_a_chart(still):
    plot = find(still, "#chart-1 .plot")
    said = lambda: find(still, "#announcer").get_attribute("textContent")  # noqa: E731
    plot.send_keys(Keys.ARROW_RIGHT)
    assert said() == "euler, 2 network calls: 0.500 (0.450 to 0.550)"
    plot.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert said().startswith("midpoint, 4 network calls: ")
    plot.send_keys(Keys.END)
    assert said().startswith("midpoint, 16 network calls: ")
    ring = find(still, "#chart-1 svg.wide .ring")
    line = attributes(still, "#chart-1 svg.wide g.series .line", "d")[1]
    assert [ring.get_attribute("cx"), ring.get_attribute("cy")] == re.findall(r"[-\d.]+", line)[-2:]
    assert texts(still, "#chart-1 .readout") == [said()]
    plot.send_keys(Keys.ESCAPE)
    assert ring.get_attribute("r") is None


def test_the_pointer_reads_out_the_nearest_point(still):
    box = still.execute_script(
        """const svg = document.querySelector('#chart-1 svg.wide');
        svg.scrollIntoView({block: 'center', behavior: 'instant'});
        const box = svg.getBoundingClientRect(), scale = box.width / svg.viewBox.baseVal.width;
        const [x, y] = svg.querySelector('.line').getAttribute('d').match(/[-\\d.]+/g);
        return [box.left + x * scale, box.top + y * scale]"""
    )
    moved = {"type": "mouseMoved", "x": box[0] + 2, "y": box[1] - 3}
    still.execute_cdp_cmd("Input.dispatchMouseEvent", moved)
    assert texts(still, "#chart-1 .readout") == ["euler, 2 network calls: 0.500 (0.450 to 0.550)"]


def test_a_heading_sorts_its_table(still):
    names = lambda: texts(still, "[data-sortable]:has(th[aria-sort]) tbody th")  # noqa: E731
    table = next(e for e in still.find_elements("css selector", "[data-sortable]") if "RMSE" in e.text)
    button = table.find_element("css selector", "th:nth-child(2) button")
    button.send_keys(Keys.ENTER)
    assert names() == ["fitted", "midpoint", "euler", "heun"]  # what is missing is last
    assert table.find_element("css selector", "th:nth-child(2)").get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.ENTER)
    assert names() == ["euler", "midpoint", "fitted", "heun"]
    table.find_element("css selector", "th:nth-child(1) button").send_keys(Keys.ENTER)
    assert names() == ["euler", "fitted", "heun", "midpoint"]
    assert len(table.find_elements("css selector", "[aria-sort]")) == 1


def test_lines_are_selected_to_be_copied(still):
    still.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardSanitizedWrite"]})
    find(still, ".code button").send_keys(Keys.ENTER)
    until(lambda: find(still, ".code button").text in ("Copied", "Selected: press Ctrl+C"))
    assert still.execute_script("return getSelection().toString()").startswith("fewstep compare mnist")


def test_what_was_chosen_survives_a_visit_elsewhere(still, files):
    find(still, "input[type=range]").send_keys(Keys.END)
    find(still, "#chart-1 li[data-series=heun] button").send_keys(Keys.SPACE)
    find(still, "#chart-1-numbers summary").send_keys(Keys.ENTER)
    # The browser tells of the unfolding a little later.
    kept = "return Object.values(sessionStorage)[0]"
    until(lambda: '"chart-1-numbers":true' in still.execute_script(kept))
    still.get((files / "still.html").as_uri())
    assert shown(still, "slider", 0) == ["16"]
    assert len(attributes(still, "g.series.faded", "class")) == 8
    assert still.execute_script("return document.querySelector('#chart-1-numbers').open")


def test_a_page_that_goes_on_is_read_again_and_stays_as_it_was(browser, files):
    opened(browser, files / "live.html")
    find(browser, "input[type=range]").send_keys(Keys.ARROW_RIGHT)
    browser.execute_script(
        "window.first = true; scrollTo({top: 700, behavior: 'instant'});"
        "document.querySelector('.slider input').focus({preventScroll: true})"
    )
    until(lambda: browser.execute_script("return scrollY") == 700)
    again = lambda: browser.execute_script("return !window.first && document.readyState === 'complete'")  # noqa: E731
    # Not while it is in use: a key was pressed less than three seconds ago.
    time.sleep(1.6)
    assert not again()
    until(again, 8)
    until(lambda: browser.execute_script("return scrollY") == 700)
    assert shown(browser, "slider", 0) == ["4"]
    focused = browser.switch_to.active_element
    assert focused.get_attribute("type") == "range"

    pause = find(browser, "#pause")
    pause.send_keys(Keys.ENTER)
    assert pause.text == "Resume"
    browser.execute_script("window.first = true")
    time.sleep(1.6)
    assert not again()
    pause.send_keys(Keys.ENTER)
    until(again)


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_everyone_can_use_it(browser, files, width, scheme):
    opened(browser, files / "live.html", width, scheme)
    find(browser, "#pause").click()
    assert width_of(browser) <= width
    browser.execute_script("document.querySelector('#chart-1-numbers').open = true")
    assert violations(browser) == []
    assert width_of(browser) <= width


def test_long_words_do_not_widen_the_page(browser, tmp_path):
    word = "non_stationary_" * 8
    x = torch.zeros(2, 3, 2)
    everywhere = [
        parts.Text(word),
        parts.Chart(word, word, word, [parts.Series(word + k, [1, 2], [1, 2]) for k in "ab"], note=word),
        parts.Pictures(word, [parts.Strip(word, torch.zeros(9, 1, 4, 4), word)], word),
        parts.Planes(word, {word: x}, word),
        parts.Timeline(word, {word: [0.5]}, word),
        parts.Grid(word, [[1.0]], [word], [word]),
        parts.Table(word, [word, "x"], [[word, 1]]),
        parts.Facts({word: {word: [word, {word: word}]}}),
        parts.Code(word, word),
        parts.Choice(word, {word: parts.Text(word), "other": parts.Text("")}),
        parts.Choice(word, {word[:20]: parts.Text(word), "other": parts.Text("")}),
        parts.Slider(word, {1: parts.Text(word), 2: parts.Text("")}),
    ]
    sections = [parts.Section(word, everywhere, word), parts.Section(word, [])]
    parts.Page(word, word, sections, refresh=60).write(tmp_path / "long.html")
    opened(browser, tmp_path / "long.html", 360)
    too_wide = """return [...document.querySelectorAll('body *')]
        .filter(e => !e.closest('.scroll *, pre *, .plot *, .contents *'))
        .filter(e => e.getBoundingClientRect().right > 361).map(e => e.outerHTML.slice(0, 120))"""
    assert browser.execute_script(too_wide) == []
    assert width_of(browser) <= 360


def test_what_goes_on_to_the_right_says_so(browser, files):
    opened(browser, files / "still.html", 360)
    cue = "Scroll sideways for more →"
    assert cue in texts(browser, ".beyond + .cue")
    wide = f"[...document.querySelectorAll('.scroll.beyond')]{SEEN}.at(-1)"
    count = len(texts(browser, ".beyond + .cue"))
    browser.execute_script(f"const region = {wide}; region.scrollLeft = region.scrollWidth")
    until(lambda: len(texts(browser, ".beyond + .cue")) == count - 1)


@pytest.mark.parametrize("width", [360, 1280])
def test_numbers_along_a_slider_do_not_touch(browser, tmp_path, width):
    frames = {step: parts.Text("x") for step in range(10_000, 130_000, 10_000)}
    sections = [parts.Section("Long", [parts.Slider("Step", frames, 120_000)])]
    parts.Page("Slider", "x", sections).write(tmp_path / "slider.html")
    opened(browser, tmp_path / "slider.html", width)
    ends = browser.execute_script(f"""return [...document.querySelectorAll('.rail span')]{SEEN}.map(e => {{
        const range = document.createRange(); range.selectNodeContents(e);
        const box = range.getBoundingClientRect(); return [e.textContent, box.left, box.right]; }})""")
    assert {"10000", "120000"} <= {text for text, *_ in ends}
    assert all(right + 3 < left for (*_, right), (_, left, _) in zip(ends, ends[1:], strict=False))


def test_further_rows_are_unfolded_together(browser, tmp_path):
    strips = [parts.Strip(f"row {k}", torch.zeros(3, 1, 4, 4)) for k in range(4)]
    slider = parts.Slider("Calls", {n: parts.Pictures("Samples", strips, lead=3) for n in (2, 4)})
    parts.Page("Rows", "x", [parts.Section("Samples", [slider])]).write(tmp_path / "rows.html")
    opened(browser, tmp_path / "rows.html")
    assert texts(browser, ".strip-name") == ["row 0", "row 1", "row 2"]
    find(browser, ".others summary").click()
    find(browser, "input[type=range]").send_keys(Keys.ARROW_RIGHT)
    until(lambda: texts(browser, ".strip-name") == ["row 0", "row 1", "row 2", "row 3"])


def test_regions_that_scroll_can_be_reached_by_keys_and_others_are_no_stop(browser, files):
    opened(browser, files / "still.html", 360)
    script = f"""return [...document.querySelectorAll('.scroll')]{SEEN}
        .map(e => [e.scrollWidth > e.clientWidth + 1, e.tabIndex === 0])"""
    until(lambda: all(scrolls == stop for scrolls, stop in browser.execute_script(script)))
    assert {True, False} == {scrolls for scrolls, _ in browser.execute_script(script)}


def test_everything_is_printed(browser, files):
    opened(browser, files / "still.html", scheme="dark")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    titles = texts(browser, ".panel-title")
    assert titles == [
        *["model: mnist", "model: mnist-straight"] * 2,
        *[f"network calls: {n}" for n in (2, 4, 8, 16, 2, 4, 6)],
        *[f"metric: what a metric with quite a long name says, number {k}" for k in range(3)],
    ]
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('.panel-title')].map(e => e.getBoundingClientRect().height)"
    )
    assert min(sizes) > 10
    assert texts(browser, ".control, .readout, button:not(.legend button, th button)") == []
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"])
    assert pages(pdf) >= 4
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_without_the_script_everything_is_seen(browser, files, tmp_path):
    text = re.sub(r"<script>.*?</script>", "", (files / "still.html").read_text(), flags=re.DOTALL)
    (tmp_path / "plain.html").write_text(text)
    opened(browser, tmp_path / "plain.html", 360)
    assert len(texts(browser, ".panel-title")) == 14
    assert texts(browser, ".control, button") == []
    assert width_of(browser) <= 360


def pages(pdf):
    """How many pages a PDF file has."""
    inflated = [pdf]
    for match in re.finditer(rb"stream\r?\n", pdf):
        try:
            inflated.append(zlib.decompressobj().decompress(pdf[match.end() :]))
        except zlib.error:
            continue
    return sum(len(re.findall(rb"/Type\s*/Page\b", part)) for part in inflated)
