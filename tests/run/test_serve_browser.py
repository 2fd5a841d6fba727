"""The page of `da6401 serve` in a real browser: pictures dropped and chosen, by keyboard, on a phone, in the dark."""

# ruff: noqa: F811  a test's arguments have the names of the fixtures that are imported

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from da6401.cli import main
from tests.run.test_report_browser import AXE, WIDTHS, browser, pytestmark  # noqa: F401  a fixture, and when to skip
from tests.run.test_serve import Served, finished, png, serving  # noqa: F401  a fixture

# As a hand drops them: the files cannot come from outside, so the page makes them of these bytes.
DROP = """
const [files, done] = arguments, moved = new DataTransfer();
for (const [name, bytes] of files) moved.items.add(new File([new Uint8Array(bytes)], name));
for (const kind of ["dragenter", "dragover", "drop"])
  document.getElementById("drop").dispatchEvent(
    new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: moved}));
done();
"""
CARDS = """
return [...document.querySelectorAll("#results li")].map((card) => ({
  name: card.querySelector(".name").textContent, title: card.querySelector("h2").textContent,
  error: card.querySelector(".error")?.textContent || "", picture: card.querySelector("img")?.naturalWidth || 0,
  rows: [...card.querySelectorAll("tr")].map((row) => [row.cells[0].textContent, row.cells[2].textContent])}))
"""


@pytest.fixture(scope="module")
def page(browser: Any, finished: Path) -> Iterator[tuple[Any, Served]]:
    with serving(finished, "--files", "8") as running:
        browser.get_log("browser")
        browser.get(f"http://127.0.0.1:{running.port}/")
        yield browser, running


def cards(browser: Any, count: int) -> list[dict[str, Any]]:
    """The results, newest first, once there are so many and all are answered."""
    deadline = time.monotonic() + 20
    while True:
        found: list[dict[str, Any]] = browser.execute_script(CARDS)
        if len(found) == count and not any(each["title"] == "…" for each in found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def test_dropped_pictures_are_answered_as_predict_answers(
    page: tuple[Any, Served],
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    driver, _ = page
    names = [f"{seed} <b>&.png" for seed in range(10)]  # more than one request takes
    for seed, name in enumerate(names):
        (tmp_path / name).write_bytes(png(seed=seed))
    capsys.readouterr()
    assert main(["predict", str(finished), *(str(tmp_path / name) for name in names), "--json"]) == 0
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    files = [(name, list((tmp_path / name).read_bytes())) for name in names]
    driver.execute_async_script(DROP, [*files, ("broken.png", list(b"no picture"))])
    broken, *found = cards(driver, 11)
    assert (broken["name"], broken["title"]) == ("broken.png", "not classified")
    assert "not an image" in broken["error"]
    for line, card in zip(reversed(expected), found, strict=True):
        best = sorted(line["probabilities"].items(), key=lambda pair: -pair[1])
        assert card["name"] == Path(line["image"]).name
        assert card["title"] == f"{line['class']}  {100 * line['probability']:.1f}%"
        assert card["rows"] == [[name, f"{value:.4f}"] for name, value in best]
        assert card["picture"] == 20
    assert driver.find_element("id", "status").text == "10 classified, 1 not"
    assert "3 classes" in driver.find_element("id", "about").text


def test_chosen_files_are_answered_too_and_the_field_is_reached_by_keyboard(
    page: tuple[Any, Served], tmp_path: Path
) -> None:
    driver, _ = page
    driver.refresh()
    (tmp_path / "chosen.png").write_bytes(png())
    driver.switch_to.active_element.send_keys("\ue004")  # Tab
    assert driver.switch_to.active_element.get_attribute("id") == "files"
    driver.find_element("id", "files").send_keys(str(tmp_path / "chosen.png"))
    (card,) = cards(driver, 1)
    assert (card["name"], card["error"]) == ("chosen.png", "")


def test_nothing_is_asked_of_another_host_and_no_error_is_logged(page: tuple[Any, Served]) -> None:
    driver, served = page
    seen = driver.execute_script("return performance.getEntriesByType('resource').map((each) => each.name)")
    own = (f"http://127.0.0.1:{served.port}/", "blob:", "data:")
    assert [name for name in seen if not name.startswith(own)] == []
    said = [entry["message"] for entry in driver.get_log("browser")]
    assert [each for each in said if "status of 422" not in each] == []  # the browser's own line on the broken file


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: tuple[Any, Served], scheme: str) -> None:
    pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
    driver, _ = page
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    driver.execute_script(resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = driver.execute_async_script(AXE)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert [(each["id"], each["impact"], each["nodes"][0]["html"]) for each in found["violations"]] == []


def test_a_phone_needs_no_sideways_scrolling(page: tuple[Any, Served]) -> None:
    driver, _ = page
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    widths = driver.execute_script(WIDTHS)
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert widths == [390, 390]


def test_a_server_that_has_gone_is_said(page: tuple[Any, Served]) -> None:
    driver, served = page
    driver.refresh()
    served.command.process.kill()
    served.command.process.join()
    driver.execute_async_script(DROP, [("a.png", list(png()))])
    (card,) = cards(driver, 1)
    assert "the server does not answer" in card["error"]
