"""Pages in a real, headless Chromium: what they look like, and whether anything leaves its box.

Its window cannot be narrower than about 500 pixels, so a page is shown unchanged in a frame of exactly the width that
is asked for, and measured from outside: the page's own policy forbids scripts inside.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    "--virtual-time-budget=10000",
]

# Every element must end within the page, every text within its drawing, and no two texts of a drawing may touch. What
# is wider than a container that scrolls is the container's business, which itself must fit.
_MEASURE = """
window.onload = () => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument, width = frame.clientWidth;
  const opened = OPENED;
  if (opened) for (const one of page.querySelectorAll("details")) one.open = true;
  const name = (one) => one.tagName + "." + (one.getAttribute("class") || "") + " " + one.textContent.slice(0, 60);
  const outside = [], cut = [], touching = [], small = [];
  for (const one of page.body.querySelectorAll("*")) {
    if (one.closest("svg") && one.tagName !== "svg") continue;
    const box = one.getBoundingClientRect();
    const inner = one.parentElement.closest(".scroll");
    if (!inner && (box.right > width + 0.5 || box.left < -0.5)) outside.push(name(one));
    if (!one.matches(".scroll, svg") && one.clientWidth && one.scrollWidth > one.clientWidth + 1) cut.push(name(one));
  }
  for (const one of page.querySelectorAll("figure > svg")) {
    const edge = one.getBoundingClientRect();
    const texts = [...one.querySelectorAll("text")].map((text) => [text, text.getBoundingClientRect()]);
    texts.forEach(([text, box], index) => {
      if (box.left < edge.left - 0.5 || box.right > edge.right + 0.5 || box.top < edge.top - 2 || box.bottom > edge.bottom + 2)
        outside.push(name(text));
      const size = parseFloat(frame.contentWindow.getComputedStyle(text).fontSize) * edge.width / one.viewBox.baseVal.width;
      if (edge.width && size < 10) small.push(size.toFixed(1) + " " + name(text));
      for (const [other, its] of texts.slice(index + 1))
        if (box.left < its.right - 1 && its.left < box.right - 1 && box.top < its.bottom - 4 && its.top < box.bottom - 4)
          touching.push(name(text) + " / " + name(other));
    });
  }
  document.querySelector("pre").textContent = JSON.stringify({
    width: frame.contentWindow.innerWidth, scroll_width: page.documentElement.scrollWidth,
    height: page.documentElement.scrollHeight, figures: page.querySelectorAll("figure > svg").length,
    dark: frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches,
    background: frame.contentWindow.getComputedStyle(page.body).backgroundColor, outside, cut, touching, small,
  });
};
"""


@dataclass(frozen=True)
class View:
    width: int
    dark: bool

    def __str__(self) -> str:
        return f"{self.width}-{'dark' if self.dark else 'light'}"


def measure(page: str, view: View, folder: Path, *, opened: bool = True) -> dict[str, Any]:
    """Load a page and say what does not fit; with `opened`, also of what is folded."""
    script = f"<pre></pre><script>{_MEASURE.replace('OPENED', json.dumps(opened))}</script>"
    dom = _run(_wrapped(page, view, 2000, script, folder), view, ["--dump-dom", "--window-size=1400,2000"])
    found = re.search(r"<pre>(\{.*?)</pre>", dom, re.DOTALL)
    assert found, f"the page was not measured:\n{dom[-2000:]}"
    measured: dict[str, Any] = json.loads(html.unescape(found[1]))
    return measured


def screenshot(page: str, view: View, height: int, target: Path) -> None:
    size = f"--window-size={max(view.width, 500)},{height}"
    _run(_wrapped(page, view, height, "", target.parent), view, [f"--screenshot={target}", size])


def _wrapped(page: str, view: View, height: int, script: str, folder: Path) -> Path:
    frame = f'<iframe srcdoc="{html.escape(page)}" style="width:{view.width}px;height:{height}px;border:0"></iframe>'
    wrapper = folder / f"wrapper-{view}.html"
    style = "<meta charset=utf-8><meta name=color-scheme content='light dark'><style>body{margin:0}iframe{display:block}</style>"
    wrapper.write_text(f"<!DOCTYPE html>{style}{frame}{script}", encoding="utf-8")
    return wrapper


def _run(page: Path, view: View, flags: list[str]) -> str:
    assert CHROMIUM
    scheme = f"--blink-settings=preferredColorScheme={0 if view.dark else 1}"
    with tempfile.TemporaryDirectory() as profile:
        command = [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", scheme, *flags, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
