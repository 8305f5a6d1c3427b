"""Takes screenshots of a report's page as on a desktop and a phone, for docs/reading_the_tables.md.

    python scripts/screenshots.py results/paper/report/report.html docs

Needs a chromium on the PATH (apt-get install chromium) and pip install '.[browser]'.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

SCREENS = {"desktop": (1280, 960), "phone": (390, 844)}  # width, height in pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", type=Path, help="a report.html")
    parser.add_argument("to", type=Path, help="folder for page-desktop.png and page-phone.png")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, (width, height) in SCREENS.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(options.page.resolve().as_uri())
            if name == "desktop":  # show a table, and the tooltip of one of its figures
                page.locator("#tables").evaluate("element => scrollTo(0, element.offsetTop - 90)")
                page.locator("#tables td.best").first.hover()
            page.screenshot(path=options.to / f"page-{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
