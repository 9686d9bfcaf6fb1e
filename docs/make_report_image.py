"""Take the picture of the page in the documentation.

    python docs/make_report_image.py report.html "clip=0+1&view=cross&layer=basic"

opens a page that ``examples/explore.py`` wrote, in the state that the second argument names, and
writes ``docs/images/report.png``. It needs Chromium and the package playwright.
"""

import shutil
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

if __name__ == "__main__":
    report, state = Path(sys.argv[1]).resolve(), sys.argv[2]
    with sync_playwright() as playwright:
        # As root, Chromium's sandbox does not start; the page is our own.
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 830, "height": 776})
        page.goto(f"{report.as_uri()}#{state}")
        taken = page.screenshot()
        browser.close()
    path = Path(__file__).with_name("images") / "report.png"
    Image.open(BytesIO(taken)).convert("RGB").save(path, optimize=True)
