"""Headless Chromium, driven over the DevTools protocol on a pair of pipes: needs the browser alone.

Documented at https://chromedevtools.github.io/devtools-protocol/ ; with --remote-debugging-pipe
the browser reads messages from file descriptor 3 and writes them to 4, each ended by a zero byte.

To look at a page as it is at 1,300 pixels and on a phone, its first three questions opened:

    python tests/chromium.py page.html shots --open 3
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PHONE = 500  # pixels; what is narrower is one
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = "no Chromium to show the page in: apt-get install chromium"
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # containers often forbid what the sandbox needs
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--remote-debugging-pipe",
)


def executable() -> str | None:
    """The browser, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """A page in the browser.

    Attributes:
        requests: addresses of all that the page asked for.
        complaints: errors and messages of its scripts and its security policy.
    """

    def __init__(self, browser: _Pipe, session: str) -> None:
        self._browser, self._session = browser, session
        self.requests: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Network.emulateNetworkConditions", offline=True, latency=0,
                  downloadThroughput=0, uploadThroughput=0)  # fmt: skip

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and give its result."""
        return self._browser.call(method, parameters, self._session, self._note)

    def open(self, address: str) -> None:
        """Go to a page, and wait until it is loaded."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.run("new Promise(done => document.readyState === 'complete' ? done() : "
                 "addEventListener('load', () => done()))")  # fmt: skip

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; awaited if it is a promise."""
        done = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def resize(self, width: int, height: int) -> None:
        """Show the page in a window of that size: a narrow one is a phone's."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < PHONE)  # fmt: skip

    def screenshot(self, path: Path, width: int = 1280, height: int = 900) -> None:
        """Write what a window of that size shows."""
        self.resize(width, height)
        shot = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def _note(self, event: dict[str, Any]) -> None:
        about = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif event["method"] == "Log.entryAdded":
            self.complaints.append(about["entry"]["text"])
        elif event["method"] == "Runtime.exceptionThrown":
            self.complaints.append(about["exceptionDetails"]["text"])
        elif event["method"] == "Runtime.consoleAPICalled":
            self.complaints.append(str(about["args"]))


@contextmanager
def open_tab(profile: Path) -> Iterator[Tab]:
    """A tab of a browser of its own, which is closed at the end."""
    name = executable()
    assert name is not None, MISSING
    to_browser, from_browser = os.pipe(), os.pipe()
    ends = (to_browser[0], from_browser[1])
    # The shell gives the two ends the numbers that the browser looks for.
    command = 'read_end=$1 write_end=$2; shift 2; exec "$@" 3<&"$read_end" 4>&"$write_end"'
    process = subprocess.Popen(
        ["bash", "-c", command.replace('<&"$read_end"', "<&$read_end").replace(
            '>&"$write_end"', ">&$write_end"), "bash", *map(str, ends),
         name, *_FLAGS, f"--user-data-dir={profile}"],
        pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for end in ends:
        os.close(end)
    browser = _Pipe(to_browser[1], from_browser[0])
    try:
        target = browser.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = browser.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        yield Tab(browser, attached["sessionId"])
    finally:
        browser.close()
        process.terminate()
        process.wait(timeout=30)


class _Pipe:
    def __init__(self, writing: int, reading: int) -> None:
        self._writing = os.fdopen(writing, "wb", buffering=0)
        self._reading = os.fdopen(reading, "rb", buffering=0)
        self._number, self._rest = 0, b""

    def call(
        self, method: str, parameters: dict[str, Any], session: str | None = None, note: Any = None
    ) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._writing.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            if note is not None and "method" in answer:
                note(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = self._reading.read(1 << 16)
            assert chunk, "the browser ended"
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def close(self) -> None:
        self._writing.close()
        self._reading.close()


SIZES = {"wide": (1300, 1000), "phone": (390, 1600)}


def main() -> None:
    """Screenshots of pages, each in windows of ``SIZES``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("out", type=Path, help="a folder")
    parser.add_argument("--open", type=int, default=0, help="how many questions are opened")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    opening = f"[...document.querySelectorAll('summary')].slice(0, {arguments.open})"
    with tempfile.TemporaryDirectory() as profile, open_tab(Path(profile)) as tab:
        for page in arguments.pages:
            for name, size in SIZES.items():
                tab.resize(*size)
                tab.open(page.resolve().as_uri())
                tab.run(f"{opening}.forEach(one => one.click())")
                tab.run("new Promise(done => setTimeout(done, 300))")
                tab.screenshot(arguments.out / f"{page.stem}-{name}.png", *size)
        print(*tab.complaints, sep="\n")


if __name__ == "__main__":
    main()
