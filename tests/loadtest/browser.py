"""Pages in a real, headless Chromium: what they look like, and whether anything leaves its box.

One browser is started for all pages and told what to do over its debugging pipe (the DevTools protocol): a start takes
a second or two, a page some ten milliseconds. What the protocol evaluates runs in spite of the page's own policy, which
forbids scripts.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]
# `--remote-debugging-pipe` reads commands from file descriptor 3 and writes answers to 4.
_START = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(number), fcntl.F_DUPFD_CLOEXEC, 10) for number in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""

# Every element must end within the page, every text within its drawing, and no two texts of a drawing may touch. What
# is wider than a container that scrolls is the container's business, which itself must fit.
_MEASURE = """
(() => {
  const width = document.documentElement.clientWidth;
  for (const one of document.querySelectorAll("details")) one.open = true;
  const name = (one) => one.tagName + "." + (one.getAttribute("class") || "") + " " + one.textContent.slice(0, 60);
  const outside = [], cut = [], touching = [], small = [];
  for (const one of document.body.querySelectorAll("*")) {
    if (one.closest("svg") && one.tagName !== "svg") continue;
    const box = one.getBoundingClientRect();
    const inner = one.parentElement.closest(".scroll");
    if (!inner && (box.right > width + 0.5 || box.left < -0.5)) outside.push(name(one));
    if (!one.matches(".scroll, svg") && one.clientWidth && one.scrollWidth > one.clientWidth + 1) cut.push(name(one));
  }
  for (const one of document.querySelectorAll("figure > svg")) {
    const edge = one.getBoundingClientRect();
    const texts = [...one.querySelectorAll("text")].map((text) => [text, text.getBoundingClientRect()]);
    texts.forEach(([text, box], index) => {
      if (box.left < edge.left - 0.5 || box.right > edge.right + 0.5 || box.top < edge.top - 2 || box.bottom > edge.bottom + 2)
        outside.push(name(text));
      const size = parseFloat(getComputedStyle(text).fontSize) * edge.width / one.viewBox.baseVal.width;
      if (edge.width && size < 10) small.push(size.toFixed(1) + " " + name(text));
      for (const [other, its] of texts.slice(index + 1))
        if (box.left < its.right - 1 && its.left < box.right - 1 && box.top < its.bottom - 4 && its.top < box.bottom - 4)
          touching.push(name(text) + " / " + name(other));
    });
  }
  return {
    width: window.innerWidth, scroll_width: document.documentElement.scrollWidth,
    figures: document.querySelectorAll("figure > svg").length,
    dark: window.matchMedia("(prefers-color-scheme: dark)").matches,
    background: getComputedStyle(document.body).backgroundColor, outside, cut, touching, small,
  };
})()
"""


@dataclass(frozen=True)
class View:
    width: int
    dark: bool

    def __str__(self) -> str:
        return f"{self.width}-{'dark' if self.dark else 'light'}"


class Browser:
    """One tab of a running Chromium. `folder` is for the pages that it loads."""

    def __init__(self, commands: BinaryIO, answers: BinaryIO, folder: Path) -> None:
        self._commands, self._answers, self._folder = commands, answers, folder
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._tab: dict[str, str] = {}
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._tab = {"sessionId": self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        self._ask("Page.enable")

    def measure(self, page: str, view: View) -> dict[str, Any]:
        """Load a page, unfold all of it, and say what does not fit."""
        self._load(page, view, 2000)
        evaluated = self._ask("Runtime.evaluate", expression=_MEASURE, returnByValue=True)
        assert "exceptionDetails" not in evaluated, evaluated
        measured: dict[str, Any] = evaluated["result"]["value"]
        return measured

    def screenshot(self, page: str, view: View, height: int) -> bytes:
        """A PNG of the page's upper part."""
        self._load(page, view, height)
        return base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"])

    def _load(self, page: str, view: View, height: int) -> None:
        size = {"width": view.width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if view.dark else "light"}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        path = self._folder / "page.html"
        path.write_text(page, encoding="utf-8")
        self._tell("Page.navigate", url=path.as_uri())
        while self._receive().get("method") != "Page.loadEventFired":
            pass

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = self._tell(method, **parameters)
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result

    def _tell(self, method: str, **parameters: Any) -> int:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters, **self._tab}
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        return number

    def _receive(self) -> dict[str, Any]:
        """The next message, which ends with a zero byte."""
        while b"\0" not in self._buffer:
            data = os.read(self._answers.fileno(), 1 << 20)
            assert data, "the browser ended"
            self._buffer += data
        whole, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(whole)
        return message


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Browser]:
    """A browser with an empty profile in `folder`."""
    assert CHROMIUM
    commands, answers = os.pipe(), os.pipe()
    command = [sys.executable, "-S", "-c", _START, str(commands[0]), str(answers[1]), CHROMIUM, *_FLAGS]
    log = (folder / "browser.log").open("wb")
    with log, os.fdopen(commands[1], "wb") as to_browser, os.fdopen(answers[0], "rb") as from_browser:
        process = subprocess.Popen(
            [*command, f"--user-data-dir={folder / 'profile'}"],
            pass_fds=(commands[0], answers[1]),
            stdout=log,
            stderr=log,
        )
        os.close(commands[0])
        os.close(answers[1])
        try:
            yield Browser(to_browser, from_browser, folder)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
