"""The web page as a reader sees it: what is shown and what can be pressed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

WAIT_S = 10

T = TypeVar("T")


class Page:
    """Drives one browser window. Selectors are CSS."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser = browser
        self.url = url

    def reset(self) -> None:
        """A desktop window, light, in motion-free mode, online."""
        self.size(1280, 900)
        self.media(scheme="light")
        self.offline(False)

    def open(self, query: str = "") -> None:
        """Load the page, with `query` in its address, and wait for its first view."""
        self.browser.get(self.url + "/" + query)

    def size(self, width: int, height: int) -> None:
        """Size of the viewport in CSS pixels; narrower than a window can be made."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def media(self, *, scheme: str) -> None:
        """What the reader's system prefers; always less motion, so that nothing is in flight."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def offline(self, offline: bool) -> None:
        """Take the browser's network away or give it back."""
        conditions = {
            "offline": offline,
            "latency": 0,
            "downloadThroughput": -1,
            "uploadThroughput": -1,
        }
        self.browser.execute_cdp_cmd("Network.enable", {})
        self.browser.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)

    def until(self, what: Callable[[], T]) -> T:
        """The first true value of `what`."""
        wait = WebDriverWait(
            self.browser, WAIT_S, 0.03, ignored_exceptions=[StaleElementReferenceException]
        )
        return wait.until(lambda _: what())

    def one(self, selector: str) -> WebElement:
        """The first visible element, waited for."""
        return self.until(
            lambda: next((e for e in self.all(selector) if e.is_displayed()), None)  # type: ignore[return-value]
        )

    def all(self, selector: str) -> list[WebElement]:
        """What is there now."""
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        """Press the first visible one."""
        self.one(selector).click()

    def type(self, selector: str, text: str) -> None:
        """Put `text` into a field instead of what is there."""
        field = self.one(selector)
        field.clear()
        field.send_keys(text)

    def keys(self, *keys: str) -> None:
        """Keys to wherever the focus is."""
        ActionChains(self.browser).send_keys(*keys).perform()

    def text(self, selector: str) -> str:
        """Text of the first one, "" while it is hidden."""
        return str(self.browser.find_element(By.CSS_SELECTOR, selector).text)

    def script(self, code: str) -> Any:
        """Value of a JavaScript expression."""
        return self.browser.execute_script(f"return {code}")

    def focus(self) -> str:
        """Name of what has the focus: its aria-label, or else its id."""
        active = "document.activeElement"
        return str(self.script(f"{active}.getAttribute('aria-label') ?? {active}.id"))

    def titles(self, items: str = "#slate-items") -> list[str]:
        """Titles of the cards or rows shown in a list, in order."""
        found = f"[...document.querySelectorAll('{items} h3, {items} .title')]"
        return list(self.script(f"{found}.map((element) => element.textContent)"))

    def errors(self) -> list[str]:
        """What the console got as errors since the last call."""
        log = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        return [line["message"] for line in log if line["level"] == "SEVERE"]

    def slate(self) -> list[str]:
        """Titles of the slate, once it is there and not being asked for."""
        self.until(lambda: self.all("#slate-items:not([aria-busy]) h3"))
        return self.titles()

    def slate_after(self, old: list[str]) -> list[str]:
        """Titles of the slate that replaces `old`."""
        return self.until(lambda: (new := self.titles()) != old and new and self.slate())  # type: ignore[return-value, arg-type]
