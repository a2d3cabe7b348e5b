"""A page of every part, and its markup taken apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest
import torch

import fewstep as fs
from fewstep.report import page as parts

NAMES = ("euler", "midpoint", "heun", "dpmpp 2M", "unipc 2", "ipndm", "fitted")
CALLS = (2, 4, 8, 16)
VOID = {"meta", "img", "br", "input", "link", "hr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    parent: Element | None = None
    children: list[Element | str] = field(default_factory=list)

    def all(self, tag=None, **attributes):
        """Elements inside, in order; ``class_`` is one of the classes."""
        found = []
        for child in self.children:
            if isinstance(child, str):
                continue
            wanted = attributes.get("class_")
            classes = (child.attributes.get("class") or "").split()
            others = {k.replace("_", "-"): v for k, v in attributes.items() if k != "class_"}
            if (
                tag in (None, child.tag)
                and (wanted is None or wanted in classes)
                and all(child.attributes.get(k) == v for k, v in others.items())
            ):
                found.append(child)
            found += child.all(tag, **attributes)
        return found

    @property
    def text(self):
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class Tree(HTMLParser):
    """Fails where an end tag is missing or one too many."""

    def __init__(self):
        super().__init__()
        self.at = self.root = Element("", {})

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"an attribute twice in {self.get_starttag_text()}"
        element = Element(tag, dict(attributes), self.at)
        self.at.children.append(element)
        if tag not in VOID:
            self.at = element

    def handle_startendtag(self, tag, attributes):
        self.at.children.append(Element(tag, dict(attributes), self.at))

    def handle_endtag(self, tag):
        assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}> at {self.getpos()}"
        self.at = self.at.parent

    def handle_data(self, data):
        self.at.children.append(data)


def taken_apart(html):
    tree = Tree()
    tree.feed(html)
    tree.close()
    assert tree.at is tree.root
    return tree.root


@pytest.fixture(scope="session")
def parsed():
    """``parsed(html)``: the elements of balanced markup."""
    return taken_apart


@pytest.fixture(scope="session")
def rendered():
    """``rendered(part)``: the elements of a page that has nothing but this part."""

    def render(part):
        page = parts.Page("Title", "Summary.", [parts.Section("Only section", [part])])
        return taken_apart(page.html())

    return render


def scores(scale):
    lines = []
    for k, name in enumerate(NAMES):
        y = [scale * (1 - 0.1 * k) / nfe ** (1 + 0.2 * k) for nfe in CALLS]
        low, high = ([v * factor for v in y] for factor in (0.9, 1.1))
        lines.append(parts.Series(name, CALLS, y, low, high, strong=name == "fitted"))
    return lines


@pytest.fixture(scope="session")
def everything():
    """``everything(refresh)``: a page of every part, with choices and sliders that go together."""
    g = torch.Generator().manual_seed(77)
    pictures = torch.rand(8, 1, 12, 12, generator=g) * 2 - 1
    plane = fs.models.random_mixture(2, 7).field()
    x0 = torch.randn(200, 2, generator=g)
    paths = {
        nfe: {"euler": fs.classical.euler(nfe).sample(plane, x0, trajectory=True).states} for nfe in (2, 4, 6)
    }
    noisy = (1 + 0.2 * torch.randn(5000, generator=g)).abs() + 0.01
    steps = range(1, 100_001, 20)

    def build(refresh=None):
        models = {"mnist": 1.0, "mnist-straight": 0.4}
        errors = parts.Choice(
            "model",
            {
                name: parts.Chart("Error", "network calls", "RMSE", scores(scale), log_y=True, note="A note.")
                for name, scale in models.items()
            },
        )
        quality = parts.Choice(
            "model",
            {
                name: parts.Chart("Distance", "network calls", "Fréchet distance", scores(9 * scale)[2:])
                for name, scale in models.items()
            },
        )
        rows = parts.Slider(
            "network calls",
            {
                nfe: parts.Pictures(
                    "Samples",
                    [parts.Strip("euler", pictures / nfe, "RMSE 0.1"), parts.Strip("reference", pictures)],
                )
                for nfe in CALLS
            },
        )
        ways = parts.Slider(
            "network calls", {nfe: parts.Planes("Paths", states) for nfe, states in paths.items()}
        )
        loss = parts.Chart(
            "Loss",
            "step",
            "loss",
            [
                parts.Series("loss", steps, noisy.tolist()),
                parts.Series("validation", [1, 50_000, 100_000], [1.2, 1.1, 1.0], strong=True),
            ],
            log_x=True,
            log_y=True,
        )
        metrics = parts.Choice(
            "metric",
            {f"what a metric with quite a long name says, number {k}": parts.Text(f"{k}") for k in range(3)},
        )
        table = parts.Table(
            "Scores",
            ["solver", "RMSE", "calls"],
            [["midpoint", 0.031, 8], ["euler", 0.11, 8], ["heun", None, 8], ["fitted", 4.5e-3, 4]],
        )
        wide = parts.Table("Wide", [f"a long heading {k}" for k in range(12)], [list(range(12))])
        return parts.Page(
            "Solvers on two flows",
            "The fitted solver is best.",
            [
                parts.Section("Error", [errors, quality], "Lower is better."),
                parts.Section("Pictures", [rows, ways, parts.Image(png(), "A grey square", "A caption.")]),
                parts.Section(
                    "Numbers",
                    [
                        parts.Timeline(
                            "Times", {"euler": [0, 0.25, 0.5, 0.75], "fitted": [0, 0.1, 0.4, 0.9]}
                        ),
                        parts.Grid("Weights", [[0.5, None], [-0.25, 1.0]], ["x1", "x2"], ["u0", "u1"]),
                        table,
                        wide,
                        loss,
                        metrics,
                    ],
                ),
                parts.Section(
                    "Protocol",
                    [
                        parts.Text("Noises are common to all."),
                        parts.Facts({"seed": 77, "reference": {"rtol": 1e-6, "calls": 218}}),
                        parts.Code("fewstep compare mnist midpoint:8 " + "--more " * 40, "to reproduce"),
                    ],
                ),
            ],
            refresh=refresh,
        )

    return build


def png():
    """A grey square of 3 x 2 pixels."""
    from fewstep.report.page._html import sprite

    return sprite(torch.zeros(1, 1, 2, 3))
