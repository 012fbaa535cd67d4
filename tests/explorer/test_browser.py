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
from contextlib import ExitStack
from pathlib import Path

import nbformat
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
        port = waited(lambda: (profile / "DevToolsActivePort").read_text().split()[0], "chromium is up")
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


def waited(look, what: str, patience: float = 60):
    """What `look` gives as soon as it gives anything; what was waited for is named where nothing comes."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            if value := look():
                return value
        except (OSError, IndexError):
            pass
        time.sleep(0.3)
    raise AssertionError(f"{what}: not within {patience} s")


@pytest.fixture
def opened(tmp_path):
    """Start a server by its words, and open what it serves under a path in a browser; both end with the test."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    pytest.importorskip("websocket")
    with ExitStack() as ended, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()

        def start(*words, path: str = "", **variables) -> Browser:
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables
            command = [sys.executable, "-m", *words, f"--port={port}", "--no-browser"]
            server = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
            ended.callback(server.wait, 20)
            # in the background an interrupt is ignored, and children ignore it too: all of them are ended instead
            ended.callback(os.killpg, server.pid, signal.SIGTERM)
            waited(lambda: socket.create_connection(("127.0.0.1", port), 1).close() or True, f"{words[0]} serves")
            browser = Browser(tmp_path / "profile")
            ended.callback(browser.process.wait, 10)
            ended.callback(browser.process.terminate)
            browser.call("Emulation.setFocusEmulationEnabled", enabled=True)  # a window nobody looks at has no focus
            browser.call("Page.navigate", url=f"http://127.0.0.1:{port}/{path}")
            return browser

        yield start


def ask_and_look(page: Browser, name: str) -> None:
    """What a person does with the panel wherever it is shown, and what is seen then; its picture is kept on demand."""
    says(page, "answers in", PATIENCE)
    says(page, "trained encoder")
    page.press("query 3")
    says(page, "3: unseen, u1: trained encoder")
    assert page.run("document.querySelectorAll('img').length") >= 10, "queries and results"
    assert page.run("document.querySelectorAll('svg image').length") == 1, "the map"
    shot = base64.b64decode(page.call("Page.captureScreenshot", format="png")["data"])
    assert np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), float).std() > 20, "an empty page"
    if folder := os.environ.get("SARMATCH_SCREENSHOTS"):
        (Path(folder) / name).write_bytes(shot)
    width = "document.querySelector('.widget-box').clientWidth"
    broad = page.run(width)
    page.call("Emulation.setDeviceMetricsOverride", width=800, height=1500, deviceScaleFactor=1, mobile=False)
    waited(lambda: page.run(width) < broad, "the panel is as narrow as its window")
    cut = "[...document.querySelectorAll('.widget-box')].filter(box => box.scrollWidth > box.clientWidth).length"
    assert page.run(cut) == 0, "in a narrow window nothing is cut off at the right"


def says(page: Browser, text: str, patience: float = 30) -> None:
    waited(lambda: text in (page.run("document.body.innerText") or ""), f"the page says {text!r}", patience)


@pytest.mark.slow
def test_a_person_asks_and_looks(opened):
    if importlib.util.find_spec("voila") is None:
        pytest.skip("voila is not installed (the extra `voila`)")
    page = opened("sarmatch.cli", "explore", str(RUN))
    ask_and_look(page, "explorer.png")
    page.press("help")
    says(page, "Failures only lists the queries")
    page.press("reset")
    says(page, "0: unseen, u1: trained encoder")


@pytest.mark.slow
def test_the_panel_answers_in_a_notebook_of_jupyterlab(opened, tmp_path):
    notebook = page_notebook(RUN)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}  # else a dialog asks for one
    nbformat.write(notebook, tmp_path / "asked.ipynb")
    words = [f"--ServerApp.root_dir={tmp_path}", "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token="]
    words += ["--allow-root", "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"]
    own = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    settings = tmp_path / "JUPYTER_CONFIG_DIR" / "labconfig" / "page_config.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}')
    page = opened("jupyterlab", *words, path="lab/tree/asked.ipynb", **own)
    # asked for before the kernel is there, a run is lost
    kernel = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status"
    waited(lambda: page.run(kernel) == "idle", "JupyterLab has the notebook open and an idle kernel", 120)
    page.run("void jupyterapp.commands.execute('notebook:run-all-cells')")
    ask_and_look(page, "explorer_in_jupyterlab.png")
