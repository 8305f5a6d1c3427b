"""The page in a real browser: apt-get install chromium; pip install '.[browser]'; -m browser.

CHARCMP_SCREENSHOTS names a folder to keep the screenshots in.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.pages import GRID, NASTY
from helpers.runs import add_records, write_grid, write_run

from charcmp.report.make import make_report

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DESKTOP = {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install '.[browser]'")
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH: apt-get install chromium")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a report of two corpora with three seeds each, and one with a note that is a trap."""
    results = tmp_path_factory.mktemp("results")
    folders = write_grid(results, GRID) + write_grid(results, GRID, dataset="lk", budget="130k")
    for folder in folders:
        add_records(folder)
    add_records(write_run(results, 1.3, dataset="mine", corpus_note=NASTY))
    make_report(results, formats=["html"])
    return results / "report" / "report.html"


@pytest.fixture
def opened(browser: Any, report: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Opens the page on a desktop, or as the test's parameter says; no error may be reported."""
    context = browser.new_context(**getattr(request, "param", DESKTOP), offline=True)
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: wrong.append(asked.url) if asked.url[:4] == "http" else None)
    page.goto(report.as_uri())
    yield page
    if folder := os.environ.get("CHARCMP_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{request.node.name}.png")
    context.close()
    assert wrong == []


def shown_runs(page: Any) -> list[str]:
    return page.locator("#runs-table tbody tr:visible td:first-child").all_inner_texts()


def test_filter(opened: Any) -> None:
    assert len(shown_runs(opened)) == 37
    opened.locator("#filter input[name=dataset][value=lk]").uncheck()
    opened.locator("#filter input[name=cell][value=rnn]").uncheck()
    runs = shown_runs(opened)
    assert len(runs) == 13
    assert not any("rnn" in run or run.startswith("lk") for run in runs)
    assert opened.locator("#count").inner_text() == "13 of 37 runs shown"
    assert opened.locator("#tables h3:visible").all_inner_texts()[:2] == [
        "wp, 50 epochs", "mine, 50 epochs"
    ]  # fmt: skip
    heads = opened.locator("#tables table").first.locator("thead th:visible").all_inner_texts()
    assert not any("RNN" in head for head in heads)
    assert not any("RNN" in row for row in
                   opened.locator("#differences tbody tr:visible").all_inner_texts())  # fmt: skip
    assert opened.locator("#figures figure:visible").count() < (
        opened.locator("#figures figure").count()
    )
    opened.locator("#filter input[name=budget][value='50k']").uncheck()
    assert shown_runs(opened) == []
    opened.locator("#everything").click()
    assert len(shown_runs(opened)) == 37


def test_sort(opened: Any) -> None:
    head = opened.locator("#runs-table th", has_text="test")
    column = head.evaluate("head => head.cellIndex")

    def values() -> list[float]:
        cells = opened.locator(f"#runs-table tbody tr td:nth-child({column + 1})")
        return [float(text) for text in cells.all_inner_texts()]

    head.locator("button").click()
    assert values() == sorted(values())
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").press("Enter")  # by keyboard
    assert values() == sorted(values(), reverse=True)
    assert opened.locator("#runs-table th[aria-sort]").count() == 1


def test_hover_focus_and_escape(opened: Any) -> None:
    tip = opened.locator("#tip")
    place = opened.locator("#tables td[data-runs]").first
    place.hover()
    text = tip.inner_text()
    assert text.count("wp-lstm-1x64") == 3  # three seeds
    assert "hidden_size=64 (44,823 parameters), seed=0" in text
    assert "charcmp train cell=lstm layers=1" in text
    opened.keyboard.press("Escape")
    assert tip.is_hidden()
    place.focus()
    assert tip.is_visible()
    opened.keyboard.press("Tab")  # to the next place of the table
    assert "wp-lstm-2x" in tip.inner_text()
    point = opened.locator("#figures svg [data-runs]").first
    point.scroll_into_view_if_needed()
    point.hover()
    assert "wp-lstm-1x64" in tip.inner_text()
    box = tip.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 1280


def test_a_name_that_is_a_trap_stays_text(opened: Any) -> None:
    assert opened.title().startswith("charcmp report")
    assert opened.locator("img").count() == 0
    assert opened.get_by_text("onerror").count() >= 1


@pytest.mark.parametrize("opened", [PHONE], indirect=True, ids=["phone"])
def test_on_a_phone(opened: Any) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    opened.locator("#tables td[data-runs]").first.tap()
    tip = opened.locator("#tip")
    assert tip.is_visible()
    box = tip.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    small = [link for link in opened.locator("p, li, td, label").all()[:60]
             if link.evaluate("e => parseFloat(getComputedStyle(e).fontSize)") < 12]  # fmt: skip
    assert small == []
