import base64
import io
import json
import re
from hashlib import sha256

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from fewstep.report import page as parts
from fewstep.report.page import (
    Chart,
    Choice,
    Code,
    Facts,
    Grid,
    Image,
    Page,
    Pictures,
    Planes,
    Section,
    Series,
    Slider,
    Strip,
    Table,
    Text,
    Timeline,
)
from fewstep.report.page._numbers import aligned, short

EVIL = "</script><script>alert(1)</script>\"'&<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def html(everything):
    return everything().html()


@pytest.fixture(scope="module")
def tree(html, parsed):
    return parsed(html)


def test_the_page_is_one_document_with_unique_ids_that_references_find(tree):
    (document,) = tree.all("html")
    assert document.attributes["lang"] == "en"
    ids = [e.attributes["id"] for e in tree.all() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    for element in tree.all():
        for name in ("aria-labelledby", "aria-describedby", "aria-controls", "for"):
            for target in (element.attributes.get(name) or "").split():
                assert target in ids
        href = element.attributes.get("href") or ""
        assert not href or href.removeprefix("#") in ids


def test_headings_go_down_one_level_at_a_time(tree):
    levels = [int(e.tag[1]) for e in tree.all() if re.fullmatch("h[1-6]", e.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))
    assert [e.text for e in tree.all("h2")] == ["Error", "Pictures", "Numbers", "Protocol"]


def test_nothing_is_loaded_and_only_this_script_may_run(html, tree):
    for element in tree.all():
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            value = element.attributes.get(name) or ""
            assert not value or value.startswith(("data:image/png;base64,", "#"))
        assert not any(name.startswith("on") for name in element.attributes)
    assert "//" not in re.sub(r"data:image/png;base64,[\w+/=]*|[^:]//.*", "", html)
    assert "@import" not in html
    assert "url(" not in html
    policy = tree.all("meta", http_equiv="Content-Security-Policy")[0].attributes["content"]
    (script,) = (e for e in tree.all("script") if "type" not in e.attributes)
    digest = base64.b64encode(sha256(script.text.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy


def test_only_a_page_that_goes_on_is_read_again(everything, parsed):
    still, going = everything().html(), everything(refresh=7).html()
    assert "refresh" not in still.lower().replace("refresh of", "")
    assert "location.reload" not in still
    (hidden,) = parsed(going).all("noscript")
    assert hidden.all("meta", http_equiv="refresh")[0].attributes["content"] == "7"
    assert "location.reload" in going
    assert parsed(going).all(id="live")[0].attributes["data-seconds"] == "7"


def test_every_line_of_the_summary_is_a_paragraph(parsed):
    tree = parsed(Page("title", "One.\nTwo <2>.", []).html())
    assert [e.text for e in tree.all("p", class_="summary")] == ["One.", "Two <2>."]
    assert tree.all("meta", name="description")[0].attributes["content"] == "One. Two <2>."


def test_every_text_is_escaped_wherever_it_stands(parsed):
    picture = torch.zeros(1, 1, 2, 2)
    chart = Chart(EVIL, EVIL, EVIL, [Series(EVIL, [1, 2], [1, 2]), Series("b", [1], [1])], note=EVIL)
    everywhere = [
        Text(EVIL),
        chart,
        Pictures(EVIL, [Strip(EVIL, picture, EVIL)], EVIL),
        Image(png_bytes(), EVIL, EVIL),
        Planes(EVIL, {EVIL: torch.zeros(2, 3, 2)}, EVIL),
        Timeline(EVIL, {EVIL: [0.5]}, EVIL),
        Grid(EVIL, [[1.0]], [EVIL], [EVIL]),
        Table(EVIL, [EVIL], [[EVIL]]),
        Facts({EVIL: {EVIL: [EVIL, {EVIL: EVIL}]}}),
        Code(EVIL, EVIL),
        Choice(EVIL, {EVIL: chart, "other": Text("")}),
        Slider(EVIL, {1: Text(EVIL), 2: Text("")}),
    ]
    html = Page(EVIL, EVIL, [Section(EVIL, everywhere, EVIL), Section(EVIL, [])], refresh=5).html()
    tree = parsed(html)
    scripts = tree.all("script")
    assert len(scripts) == 2
    assert all("src" not in e.attributes or e.attributes["src"].startswith("data:") for e in tree.all("img"))
    data = json.loads(tree.all("script", id="data")[0].text)
    assert {series["name"] for chart in data.values() for series in chart["series"]} == {EVIL, "b"}
    assert "<" not in tree.all("script", id="data")[0].text
    assert tree.all("h1")[0].text == EVIL
    assert tree.all("code")[0].text == EVIL


def test_each_option_and_each_frame_stands_under_its_name(tree):
    titles = [e.text for e in tree.all(class_="panel-title")]
    assert titles[:2] == ["model: mnist", "model: mnist-straight"]
    assert [t for t in titles if t.startswith("network")] == [
        f"network calls: {n}" for n in (2, 4, 8, 16, 2, 4, 6)
    ]
    # Without the script nothing is hidden.
    assert not [
        e for e in tree.all() if "hidden" in e.attributes or "away" in (e.attributes.get("class") or "")
    ]


def test_frames_stand_in_the_order_of_their_numbers_and_start_where_told(rendered):
    tree = rendered(Slider("n", {8: Text("b"), 2: Text("a")}, start=8))
    assert [e.attributes["data-value"] for e in tree.all(class_="panel")] == ["2", "8"]
    assert tree.all(class_="picker")[0].attributes["data-start"] == "8"
    with pytest.raises(ValueError, match="starts at 3, where it has no frame; it has 8, 2"):
        rendered(Slider("n", {8: Text("b"), 2: Text("a")}, start=3))


def test_a_strip_is_one_picture_whose_columns_line_up(rendered):
    up = torch.linspace(-1, 1, 4)[:, None, None, None].expand(4, 1, 3, 2)
    red = torch.full((2, 3, 3, 2), -1.0)
    red[:, 0] = 1
    tree = rendered(Pictures("P", [Strip("up", up, "RMSE 1"), Strip("red", red)]))
    first, second = tree.all("img")
    assert first.attributes["alt"] == "4 pictures of up, RMSE 1"
    assert (first.attributes["width"], first.attributes["height"]) == ("8", "3")
    sheet = decoded(first)
    assert sheet.mode == "L"
    np.testing.assert_array_equal(
        np.asarray(sheet), np.repeat([[0, 85, 170, 255]], 2, axis=1).repeat(3, axis=0)
    )
    assert decoded(second).mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded(second)), np.tile([255, 0, 0], (3, 4, 1)))
    # Half as many pictures take half the width.
    assert [e.attributes["style"] for e in tree.all(class_="sheet")] == [
        "--count:4;width:100%",
        "--count:2;width:50%",
    ]


def test_what_is_no_picture_is_refused(rendered):
    with pytest.raises(ValueError, match=r"shape \(B, 1 or 3, H, W\), not \(4, 2, 8, 8\)"):
        rendered(Pictures("P", [Strip("s", torch.zeros(4, 2, 8, 8))]))
    with pytest.raises(ValueError, match="the bytes of a PNG file"):
        rendered(Image(b"GIF89a", "no"))


def test_paths_share_one_scale_with_y_up(rendered):
    """Between -1 and 1: the centre is the middle of 240 pixels, and 6 % are left free around."""
    square = torch.tensor([[[-1.0, -1.0], [1.0, -1.0]], [[1.0, 1.0], [0.0, 0.0]]])
    tree = rendered(Planes("P", {"a": square, "b": square / 2}))
    a, b = (e.all(class_="ways")[0].attributes["d"] for e in tree.all(class_="plane"))
    edge = 120 - 120 / 1.06  # 6.8
    low, high = f"{edge:.1f}", f"{240 - edge:.1f}"
    assert a == f"M{low} {high}L{high} {low}M{high} {high}L120 120"
    half = 120 - 60 / 1.06
    assert b.startswith(f"M{half:.1f} {240 - half:.1f}L")


def test_many_paths_are_thinned_and_strays_do_not_set_the_scale(rendered):
    states = torch.rand(100, 2000, 2, generator=torch.Generator().manual_seed(0))
    states[-1, 5] = 1e6
    states[-1, 6] = float("nan")
    tree = rendered(Planes("P", {"a": states}))
    path = tree.all(class_="ways")[0].attributes["d"]
    assert path.count("M") == 150
    assert path.count("L") == 150 * 39
    assert "150 of 2000 paths, 2 end outside" in tree.all(class_="plane-name")[0].text
    assert len(path) < 80_000


def test_frames_of_paths_share_their_scale(rendered):
    square = torch.tensor([[[-1.0, -1.0], [1.0, -1.0]], [[1.0, 1.0], [0.0, 0.0]]])
    both = rendered(Slider("n", {1: Planes("P", {"a": square}), 2: Planes("P", {"a": square / 2})}))
    one = rendered(Planes("P", {"a": square, "b": square / 2}))
    assert [e.attributes["d"] for e in both.all(class_="ways")] == [
        e.attributes["d"] for e in one.all(class_="ways")
    ]


def test_paths_of_other_dimensions_are_refused_and_no_paths_are_none(rendered):
    with pytest.raises(ValueError, match="must be points in the plane"):
        rendered(Planes("P", {"a": torch.zeros(2, 3, 64)}))
    assert not rendered(Planes("P", {})).all(class_="plane")


def test_marks_stand_at_their_times_and_are_told(rendered):
    tree = rendered(Timeline("T", {"a": [0, 0.125, 1]}))
    assert [e.attributes["cx"] for e in tree.all("circle")] == ["0%", "12.5%", "100%"]
    assert tree.all("svg")[0].attributes["aria-label"] == "a: 0, 0.125, 1"


def test_a_grid_is_a_table_coloured_by_sign_and_size(rendered):
    tree = rendered(Grid("G", [[0.5, None], [-0.25, 1.0]], ["r", "s"], ["c", "d"]))
    cells = [(e.text, e.attributes.get("class"), e.attributes.get("style")) for e in tree.all("td")[1:]]
    assert cells == [
        ("0.50", "p", "--share:50%"),
        ("", None, None),
        ("-0.25", "n", "--share:25%"),
        ("1.00", "p", "--share:100%"),
    ]


def test_a_table_aligns_numbers_and_tells_the_script_their_values(rendered):
    tree = rendered(Table("T", ["name", "x"], [["a", 0.25], ["b", None], ["c", 12], ["d", float("inf")]]))
    cells = tree.all("td")
    assert [e.attributes["data-value"] for e in cells] == ["0.25", "", "12", "Infinity"]
    assert [e.text.strip("\u2007\u2008") for e in cells] == ["0.250", "\u2013", "12", "∞"]
    assert all(e.attributes["class"] == "number" for e in cells)
    with pytest.raises(ValueError, match="must have 2 values"):
        rendered(Table("T", ["a", "b"], [[1]]))


def test_facts_may_be_facts_again(rendered):
    tree = rendered(Facts({"a": {"b": [1, 2.5]}, "c": [{"d": True}], "e": None, "f": []}))
    assert [e.text for e in tree.all("dt")] == ["a", "b", "c", "d", "e", "f"]
    assert [e.text.strip() for e in tree.all("dd") if not e.all("dl")] == ["1, 2.50", "yes", "\u2013", "none"]


def test_what_is_no_part_is_refused():
    with pytest.raises(TypeError, match="dict is not a part of a page"):
        Page("t", "s", [Section("s", [{}])]).html()


def test_the_file_is_written_whole_and_names_its_maker(tmp_path, everything):
    everything().write(tmp_path / "new" / "page.html")
    text = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert re.search(r"Made by fewstep \d+\.\d+", text)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["page.html"]


def test_a_page_of_everything_stays_small(html):
    assert len(html) < 400_000


def test_the_same_parts_have_the_same_ids_when_the_page_is_written_again(everything):
    first, second = (re.findall(r' id="([^"]+)"', everything(refresh=3).html()) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.01234, "0.0123"),
        (12.34, "12.3"),
        (8.0, "8"),
        (1.234e-5, "1.2e-5"),
        (1e-6, "1e-6"),
        (1234.5, "1,234"),
        (-0.5, "-0.500"),
        (2.5e9, "2.5e9"),
        (float("nan"), "NaN"),
        (-float("inf"), "-∞"),
    ],
)
def test_numbers_are_short(value, text):
    assert short(value) == text


def test_points_stand_below_each_other():
    figure, point = "\u2007", "\u2008"
    assert aligned(["0.25", "12", "1.5"]) == ["0.25", f"12{figure * 2}{point}", f"1.5{figure}"]
    assert aligned(["1", "10"]) == ["1", "10"]


def test_every_name_is_exported():
    assert set(parts.__all__) >= {"Page", "Section", "Chart", "Slider", "Choice"}


def luminance(colour):
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(a, b):
    """Of two colours, as WCAG 2.2 defines it."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_colour_of_a_series_can_be_read_as_text_in_both_schemes(html):
    schemes = re.findall(r":root \{(.*?)\}", html, re.DOTALL)
    palettes = [dict(re.findall(r"--(\w+): (#\w{6})", scheme)) for scheme in schemes]
    palettes = [palette for palette in palettes if "s0" in palette]
    assert len(palettes) == 2
    for palette in palettes:
        colours = [palette[f"s{k}"] for k in range(12)]
        assert len(set(colours)) == 12
        for colour in [*colours, palette["ink"], palette["soft"], palette["accent"]]:
            assert contrast(colour, palette["paper"]) >= 4.5
        assert contrast(palette["ink"], palette["raised"]) >= 4.5
    for scheme, palette in zip(schemes, palettes, strict=False):
        cells = re.findall(r"--(?:warm|cool): (\d+) (\d+) (\d+);", scheme)
        assert len(cells) == 2
        for cell in cells:
            assert contrast(palette["ink"], "#" + bytes(map(int, cell)).hex()) >= 4.5


def decoded(image):
    return PillowImage.open(io.BytesIO(base64.b64decode(image.attributes["src"].partition(",")[2])))


def png_bytes():
    file = io.BytesIO()
    PillowImage.new("L", (3, 2)).save(file, "PNG")
    return file.getvalue()
