"""The explorer as a page, driven in a headless Chromium as a person would; and what is said where voila is missing."""

import base64
import importlib.util
import io
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from PIL import Image

from sarmatch.explorer.page import page_notebook, serve
from sarmatch.paths import ROOT

RUN = ROOT / "data" / "demo"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 240  # seconds: where towns are not rendered yet, they are first


def test_the_page_holds_one_cell_that_runs_anywhere(tmp_path, monkeypatch):
    (cell,) = page_notebook(RUN, "it's").cells
    compile(cell.source, "cell", "exec")
    assert repr(str(RUN)) in cell.source
    assert 'load_scene("it\'s")' in cell.source


def test_a_missing_voila_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"voila is not installed.*pip install 'sarmatch\[voila\]'"):
        serve(RUN)


def test_a_folder_without_a_run_is_said_first(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run here"):
        serve(tmp_path)


class Browser:
    """A page of a headless Chromium, by its debugging protocol."""

    def __init__(self, profile) -> None:
        import websocket

        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        words += ["--remote-allow-origins=*", f"--user-data-dir={profile}", "--window-size=1300,1500", "about:blank"]
        self.process = subprocess.Popen([CHROMIUM, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = waited(lambda: (profile / "DevToolsActivePort").read_text().split()[0])
        pages = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list"))
        address = next(p["webSocketDebuggerUrl"] for p in pages if p["type"] == "page")
        self.socket, self.numbers = websocket.create_connection(address, timeout=60), itertools.count()

    def call(self, method: str, **params):
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (answer := json.loads(self.socket.recv())).get("id") != number:
            pass
        return answer["result"]

    def run(self, script: str):
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def press(self, words: str) -> None:
        found = f"[...document.querySelectorAll('button')].find(b => b.innerText.trim() === {json.dumps(words)})"
        assert self.run(f"{found} !== undefined && ({found}.click(), true)"), f"no button {words!r}"


def waited(look, patience: float = 60):
    """What `look` gives as soon as it gives anything."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            if value := look():
                return value
        except (OSError, IndexError):
            pass
        time.sleep(0.3)
    raise AssertionError(f"nothing within {patience} s")


@pytest.fixture
def page(tmp_path):
    """The explorer of the shipped run, opened in a browser."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    if importlib.util.find_spec("voila") is None:
        pytest.skip("voila is not installed (the extra `voila`)")
    pytest.importorskip("websocket")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "sarmatch.cli", "explore", str(RUN), f"--port={port}", "--no-browser"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    server = subprocess.Popen(words, cwd=ROOT, env=environment, start_new_session=True)
    browser = None
    try:
        waited(lambda: socket.create_connection(("127.0.0.1", port), 1).close() or True)
        browser = Browser(tmp_path / "profile")
        browser.call("Page.navigate", url=f"http://127.0.0.1:{port}")
        yield browser
    finally:
        if browser:
            browser.process.terminate()
            browser.process.wait(10)
        # who runs in the background ignores an interrupt, and hands that on: the page and its server are ended instead
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


@pytest.mark.slow
def test_a_person_asks_and_looks(page):
    def says(text: str, patience: float = 30) -> None:
        waited(lambda: text in (page.run("document.body.innerText") or ""), patience)

    says("answers in", PATIENCE)
    says("trained encoder")
    page.press("query 3")
    says("3: unseen, u1: trained encoder")
    assert page.run("document.querySelectorAll('img').length") >= 10, "queries and results"
    assert page.run("document.querySelectorAll('svg image').length") == 1, "the map"
    page.press("help")
    says("Failures only lists the queries")
    page.press("reset")
    says("0: unseen, u1: trained encoder")
    shot = page.call("Page.captureScreenshot", format="png")["data"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB"), float)
    assert pixels.std() > 20, "an empty page"
    if folder := os.environ.get("SARMATCH_SCREENSHOTS"):
        with open(os.path.join(folder, "explorer.png"), "wb") as file:
            file.write(base64.b64decode(shot))
