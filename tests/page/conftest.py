"""One headless Chromium for all page tests; each test gets its own fake service."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.page.fake_api import FakeApi, serving
from tests.page.page import Page

_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # Without these it looks for hosts outside at every start.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Debian's Chromium with a profile of its own."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = chromium
    profile: Path = tmp_path_factory.mktemp("chromium")
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options, Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def api() -> FakeApi:
    """The service's stand-in; a test that needs another makes it itself."""
    return FakeApi()


@pytest.fixture
def page(browser: Chrome, api: FakeApi) -> Iterator[Page]:
    """The page over `api`. No test may leave an error or a policy violation in the console."""
    with serving(api) as url:
        shown = Page(browser, url)
        shown.reset()
        yield shown
        # Chromium itself notes every failed request, also those a test asks for.
        assert [line for line in shown.errors() if "Failed to load resource" not in line] == []
