"""A browser that is shown a file and no network, and what is to be seen in it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
Axe = pytest.importorskip("axe_core_python.selenium", reason="axe_core_python is not installed").Axe
Keys = webdriver.Keys
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="chromium or chromedriver is not installed"
)

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
)


def started(profile: Path):
    """A browser without a window, which logs what it asks for."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))


def opened(browser, path: Path, width=1280, scheme="light"):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": k, "value": v} for k, v in features.items()]}
    )
    browser.get(path.as_uri())
    browser.execute_script("sessionStorage.clear(); getSelection().removeAllRanges()")
    browser.get(path.as_uri())
    return browser


def find(browser, selector):
    return browser.find_element("css selector", selector)


SEEN = ".filter(e => e.checkVisibility({visibilityProperty: true}))"


def texts(browser, selector):
    """Texts of the elements that can be seen."""
    script = f"return [...document.querySelectorAll(arguments[0])]{SEEN}.map(e => e.textContent.trim())"
    return browser.execute_script(script, selector)


def attributes(browser, selector, name):
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.getAttribute(arguments[1]))"
    return browser.execute_script(script, selector, name)


def shown(browser, kind, number):
    """The panels of the n-th picker of a kind that can be seen."""
    script = f"""const picker = document.querySelectorAll('.picker.' + arguments[0])[arguments[1]];
        return [...picker.querySelector('.panels').children]{SEEN}.map(e => e.dataset.value)"""
    return browser.execute_script(script, kind, number)


def until(condition, seconds=6):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def asked(browser):
    """The addresses that were asked for since the last look, and what was written to the console."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    # The browser's own first page may still be at it.
    return {url for url in sent if not url.startswith(("data:", "chrome"))}, browser.get_log("browser")


def violations(browser):
    """What axe finds wrong with the page as it is seen now."""
    found = Axe().run(browser)
    # A rule that fails to run is not among the violations.
    assert {"color-contrast", "heading-order", "label"} <= {rule["id"] for rule in found["passes"]}
    return [(v["id"], [node["html"][:200] for node in v["nodes"]]) for v in found["violations"]]


def width_of(browser):
    """How wide the page is, in pixels."""
    return browser.execute_script("return document.documentElement.scrollWidth")
