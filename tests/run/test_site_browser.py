"""The built documentation in a real browser: it fits a phone, is readable in both schemes, and prints what is read."""

# ruff: noqa: F811  a test's argument has the name of the fixture that is imported

from __future__ import annotations

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from tests.doc_commands import ROOT
from tests.run.test_report_browser import WIDTHS, browser, pytestmark  # noqa: F401  a fixture, and when to skip

PAGES = ("index", "tutorial", "commands", "plugins")
CONTRAST = "axe.run('.md-content', {runOnly: ['color-contrast']}).then((found) => arguments[0](found.violations))"
SHOWN = "return [...document.querySelectorAll(arguments[0])].filter((each) => each.getClientRects().length).length"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="the extra `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--config-file", str(ROOT / "mkdocs.yml")]
    subprocess.run([*words, "--site-dir", str(folder)], env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=True)
    return folder


@pytest.fixture
def driver(browser: Any) -> Any:
    yield browser
    for command in ("clearDeviceMetricsOverride", "setEmulatedMedia"):
        browser.execute_cdp_cmd(f"Emulation.{command}", {})


def media(driver: Any, scheme: str = "light", kind: str = "") -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": features})


def test_it_follows_the_system_from_light_to_dark_and_is_readable(site: Path, driver: Any) -> None:
    backgrounds = []
    for scheme in ("light", "dark"):
        media(driver, scheme)
        for page in PAGES:
            driver.get((site / f"{page}.html").as_uri())
            driver.execute_script((resources.files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
            found = driver.execute_async_script(CONTRAST)
            assert not [(node["html"], node["any"][0]["message"]) for each in found for node in each["nodes"]]
        backgrounds.append(driver.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert backgrounds[0] != backgrounds[1]


def test_it_fits_a_phone(site: Path, driver: Any) -> None:
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    for page in PAGES:
        driver.get((site / f"{page}.html").as_uri())
        width, window = driver.execute_script(WIDTHS)
        assert width <= window == 390, page
        hidden = driver.execute_script(
            "return [...document.querySelectorAll('pre > code')].filter((each) => each.scrollWidth > each.clientWidth)"
            ".map((each) => each.textContent)"
        )
        assert not hidden, f"{page}: cut off at the right"
    driver.get((site / "index.html").as_uri())
    table = driver.execute_script("return document.querySelector('.md-content table').getBoundingClientRect().right")
    assert table <= 390


def test_print_is_the_text_alone(site: Path, driver: Any) -> None:
    driver.get((site / "tutorial.html").as_uri())
    around = ".md-header, .md-sidebar, .md-footer, .md-clipboard, .md-code__nav"
    assert driver.execute_script(SHOWN, around) > 3
    media(driver, "dark", "print")
    assert driver.execute_script(SHOWN, around) == 0
    assert driver.execute_script(SHOWN, ".md-content pre") > 5
