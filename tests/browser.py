"""A browser without a window, for tests: Chromium, asked over a pipe."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--remote-debugging-pipe"),
)
PATIENCE = 60.0


def found() -> str | None:
    """The browser, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page. `troubles` is what went wrong on it, `asked` what it loaded."""

    def __init__(self, writing: int, reading: int):
        self.writing, self.reading = writing, reading
        self.rest, self.count, self.session = b"", 0, ""
        self.troubles: list[str] = []
        self.asked: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask, and wait for the answer."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        while True:
            heard = self.hear()
            if heard.get("id") == self.count:
                if "error" in heard:
                    raise RuntimeError(f"{method}: {heard['error']}")
                return heard["result"]

    def hear(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            more = os.read(self.reading, 1 << 16)
            if not more:
                raise RuntimeError("the browser has gone")
            self.rest += more
        first, _, self.rest = self.rest.partition(b"\0")
        heard = json.loads(first)
        match heard.get("method"):
            case "Runtime.exceptionThrown":
                self.troubles.append(str(heard["params"]["exceptionDetails"]))
            case "Log.entryAdded" if heard["params"]["entry"]["level"] in ("error", "warning"):
                self.troubles.append(heard["params"]["entry"]["text"])
            case "Runtime.consoleAPICalled":
                self.troubles.append(str(heard["params"]["args"]))
            case "Network.requestWillBeSent":
                self.asked.append(heard["params"]["request"]["url"])
        return heard

    def open(self, path: Path, block: str | None = None) -> None:
        """Load a file afresh, at a block if one is named."""
        link = "" if block is None else f"#block={block}"
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=f"{path.as_uri()}{link}")
        self.wait("document.readyState + location.protocol === 'completefile:'")

    def wait(self, condition: str) -> None:
        """Until an expression on the page is true."""
        until = time.monotonic() + PATIENCE
        while self.run(condition) is not True:
            assert time.monotonic() < until, condition
            time.sleep(0.05)

    def run(self, script: str) -> Any:
        """The value of an expression on the page."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def screen(self, width: int, height: int, dark: bool = False) -> None:
        """The size of the window, and the colours that the reader has asked for."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.call("Emulation.setDeviceMetricsOverride", **size, mobile=width < 500)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="screen", features=[scheme])

    def hover(self, selector: str) -> None:
        """Move the mouse onto the first element of that kind."""
        x, y = self.place(selector)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def tap(self, selector: str) -> None:
        """Touch the first element of that kind with a finger."""
        x, y = self.place(selector)
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def place(self, selector: str) -> list[float]:
        """Where the first element of that kind is, once it has been brought into view."""
        script = (
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            "one.scrollIntoView({block: 'center'}); const box = one.getBoundingClientRect();"
            "return [box.left + Math.min(20, box.width / 2), box.top + Math.min(8, box.height / 2)]"
            "})()"
        )
        found: list[float] = self.run(script)
        return found

    def key(self, name: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def picture(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def printed(self) -> bytes:
        self.call("Emulation.setEmulatedMedia", media="print", features=[])
        told = self.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)
        return base64.b64decode(told["data"])


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser that keeps what it keeps in a folder of its own."""
    to_it, writing = os.pipe()
    reading, from_it = os.pipe()
    command = [found() or "chromium", *FLAGS, f"--user-data-dir={folder}"]
    script = f'exec "$@" 3<&{to_it} 4>&{from_it}'  # the pipes are its files 3 and 4
    process = subprocess.Popen(
        ["/bin/bash", "-c", script, "browser", *command],
        pass_fds=(to_it, from_it),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_it)
    os.close(from_it)
    try:
        yield Browser(writing, reading)
    finally:
        process.terminate()
        process.wait(PATIENCE)
        os.close(writing)
        os.close(reading)
