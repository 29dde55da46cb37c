"""A headless Chromium for tests, driven over its debugging pipe: no port is opened, no other package needed.

Protocol: https://chromedevtools.github.io/devtools-protocol, a JSON object and a zero byte each way.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
MISSING = f"no {PROGRAMS[0]} on this machine (Debian: apt install chromium)"
_FLAGS = (
    "headless=new",
    "remote-debugging-pipe",
    "no-sandbox",  # which root, in a container, may not have
    "disable-gpu",
    "disable-dev-shm-usage",
    "disable-extensions",
    "no-first-run",
)
_PATIENCE = 60  # seconds that an answer may take
_FREE = 20  # file descriptors from here on, so that 3 and 4 are the browser's own


def program():
    """The path of a Chromium; None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@dataclass
class Shown:
    """A page as it was shown: complaints (of the console, of the network), addresses that were asked for,
    what a script found, and a picture of all of it."""

    complaints: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    found: object = None
    png: bytes = b""


class Browser:
    def __init__(self):
        self._folder = tempfile.mkdtemp()
        ours, theirs = os.pipe(), os.pipe()  # (they read, we write), (we read, they write)
        given = [fcntl.fcntl(fd, fcntl.F_DUPFD, _FREE) for fd in (ours[0], theirs[1])]
        flags = [f"--{flag}" for flag in (*_FLAGS, f"user-data-dir={self._folder}")]
        # The browser reads from descriptor 3 and writes to 4.
        script = f'exec "$@" 3<&{given[0]} 4>&{given[1]}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "browser", program(), *flags, "about:blank"],
            pass_fds=given,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (*given, ours[0], theirs[1]):
            os.close(fd)
        self._to, self._from, self._number, self._read = ours[1], theirs[0], 0, b""
        self._events: list = []

    def close(self):
        with contextlib.suppress(OSError, TimeoutError, EOFError):
            self.call("Browser.close")
        for fd in (self._to, self._from):
            os.close(fd)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def call(self, method, session=None, **parameters):
        """The result of a method; events that come meanwhile are kept."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": parameters}
        os.write(self._to, json.dumps(asked | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == asked["id"]:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._events.append(message)

    def _next(self):
        until = time.monotonic() + _PATIENCE
        while b"\0" not in self._read:
            if not select.select([self._from], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError("the browser did not answer")
            read = os.read(self._from, 1 << 20)
            if not read:
                raise EOFError("the browser has ended")
            self._read += read
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def show(self, path, width, script, height=800):
        """A file, in a window so many pixels wide; script: an expression, which gives what is `found`."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._events.clear()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", session, **size)
        self.call("Page.navigate", session, url=path.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(self._next())
        answer = self.call(
            "Runtime.evaluate", session, expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        picture = self.call("Page.captureScreenshot", session, captureBeyondViewport=True)
        shown = Shown(found=answer["result"]["value"], png=base64.b64decode(picture["data"]))
        for event in self._events:
            if event.get("sessionId") == session:
                _note(shown, event["method"], event["params"])
        self.call("Target.closeTarget", targetId=target)
        return shown


def _note(shown, method, told):
    if method == "Log.entryAdded":
        shown.complaints.append(told["entry"]["text"])
    elif method == "Runtime.consoleAPICalled":
        shown.complaints.append(str(told["args"]))
    elif method == "Runtime.exceptionThrown":
        shown.complaints.append(str(told["exceptionDetails"]))
    elif method == "Network.loadingFailed":
        shown.complaints.append(told["errorText"])
    elif method == "Network.requestWillBeSent":
        shown.requests.append(told["request"]["url"])
