"""One real Chromium for all browser tests.

Fixtures:

- `chromium` (session): the browser, a playwright `Browser`.
- `watch` (test): a `Watch` that records what every page of the test asked for and complained about:
  `watch.requests`, `watch.outside` (what would have left this machine; it is refused), `watch.errors` (console
  errors, page errors, dialogs), and `watch.clear()`.
- `open_page` (test): `open_page(**context_options) -> Page`, for instance `open_page(color_scheme="dark",
  viewport={"width": 360, "height": 740})`; each page has a context of its own, is watched, and is closed at the end.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, Route, WebSocket, sync_playwright

INSTALL = "sudo apt-get install -y chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HERE = ("127.0.0.1", "localhost", "::1")


def is_outside(url: str) -> bool:
    "True if the address is on another machine; files and data: are here."
    parts = urlsplit(url)
    return parts.scheme not in ("file", "data", "blob", "about", "devtools") and parts.hostname not in HERE


@dataclass
class Watch:
    "What the pages of one test asked for and complained about."

    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def outside(self) -> list[str]:
        return [url for url in self.requests if is_outside(url)]

    def clear(self) -> None:
        self.requests.clear()
        self.errors.clear()

    def request(self, request: Request) -> None:
        self.requests.append(request.url)

    def websocket(self, websocket: WebSocket) -> None:
        self.requests.append(websocket.url)

    def console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"console: {message.text}")

    def page_error(self, error: Exception) -> None:
        self.errors.append(f"page: {error}")

    def dialog(self, dialog: Dialog) -> None:
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def follow(self, page: Page) -> None:
        page.on("request", self.request)
        page.on("websocket", self.websocket)
        page.on("console", self.console)
        page.on("pageerror", self.page_error)
        page.on("dialog", self.dialog)


def refuse_outside(route: Route) -> None:
    if is_outside(route.request.url):
        route.abort()
    else:
        route.continue_()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.fail(f"Chromium is missing. Install it:\n{INSTALL}", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def open_page(chromium: Browser, watch: Watch) -> Iterator[Callable[..., Page]]:
    contexts = []

    def opened(**options: Any) -> Page:
        context = chromium.new_context(**options)
        contexts.append(context)
        context.on("page", watch.follow)
        context.route("**/*", refuse_outside)
        return context.new_page()

    try:
        yield opened
    finally:
        for context in contexts:
            context.close()
