"""The notebooks in JupyterLab, with a browser: Run All without an error, and a training watched, stopped and resumed.

Screenshots go to the folder that AMARL_SCREENSHOTS names, or to a temporary one.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from test_export import CHROMIUM, FLAGS

from amarl_core import batch

ROOT = Path(__file__).resolve().parent.parent
RUN_ALL = ("00_quickstart", "10_explore_network_and_traffic")
KERNEL = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"
PAGE = "window.jupyterapp.shell.currentWidget"
CELLS = f"{PAGE}.content.model.sharedModel.cells"
RUN = """() => { window.isDone = false;
  window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.isDone = true; }); }"""
ERRORS = f"""() => {CELLS}.flatMap(c => c.cell_type !== 'code' ? [] : c.outputs.map(o => o.toJSON ? o.toJSON() : o))
  .filter(o => o.output_type === 'error' || o.name === 'stderr')"""
ASK = f"""async (code) => {{ const future = {KERNEL}.requestExecute({{code}}); let said = '';
  future.onIOPub = m => {{ if (m.header.msg_type === 'stream') said += m.content.text;
                           if (m.header.msg_type === 'error') said += m.content.ename; }};
  await future.done; return said; }}"""
SHOWN = {
    "curves": "document.querySelector('.amarl-live .amarl-curves')?.outerHTML ?? ''",
    "map": "document.querySelector('.amarl-live .amarl-map')?.outerHTML ?? ''",
    "table": "document.querySelector('.amarl-live table')?.textContent ?? ''",
    "progress": "document.querySelector('.amarl-live .numbers')?.textContent ?? ''",
}
"""Scripts that give what a page shows of each part of the view, empty while it shows nothing."""

WATCH = f"""() => {{ window.seen = {{}}; setInterval(() => {{
  for (const [part, shown] of Object.entries({{{", ".join(f"{part}: {shown}" for part, shown in SHOWN.items())}}})) {{
    if (shown !== '') (window.seen[part] ??= new Set()).add(shown);
  }} }}, 50); }}"""
"""Notes what each part shows, time and again."""

STATE = "document.querySelector('.amarl-live .state')?.textContent"
MINUTES_5, SECONDS_15, SECONDS_10 = 300_000, 15_000, 10_000
"""What is waited for at most, in ms, on a machine that is busy with something else."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab server on a free port, its files in a temporary folder: (address, folder)."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium, or name one in CHROMIUM")
    root = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {f"JUPYTER_{kind}_DIR": str(root / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    options = {
        "ServerApp.port_retries": 0, "ServerApp.root_dir": root, "ServerApp.disable_check_xsrf": True,
        "IdentityProvider.token": "", "LabApp.expose_app_in_browser": True, "LabApp.workspaces_dir": root / "spaces",
        "LabApp.news_url": None, "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }  # fmt: skip
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    with (root / "lab.log").open("w") as told:
        server = subprocess.Popen(
            command + [f"--{name}={value}" for name, value in options.items()],
            env=os.environ | places | {"IPYTHONDIR": str(root / "ipython"), "PYTHONPATH": str(ROOT)},
            stdout=told,
            stderr=told,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{url}/api/status", timeout=1)
                break
            except OSError:
                assert server.poll() is None, (root / "lab.log").read_text()
                time.sleep(0.25)
        yield url, root
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def browser(lab):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folder of the screenshots."""
    place = Path(os.environ.get("AMARL_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    place.mkdir(parents=True, exist_ok=True)
    return place


class Notebook:
    """A notebook open in JupyterLab.

    Args:
        browser: of playwright.
        url: of the server.
        path: of the notebook, below the server's root.
    """

    def __init__(self, browser, url: str, path: str):
        self.browser, self.address, self.complaints = browser, f"{url}/lab/workspaces/test/tree/{path}?reset", []
        self.open()

    def open(self) -> None:
        """Open it in a page of its own, and wait for its kernel."""
        self.page = self.browser.new_page(
            viewport={"width": 1440, "height": 2600}
        )  # high: cells off screen are not drawn
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(self.address)
        self.wait_for(f"() => {KERNEL}?.status === 'idle'")

    def wait_for(self, what: str, argument: object = None, timeout: float = MINUTES_5) -> None:
        self.page.wait_for_function(what, arg=argument, timeout=timeout)

    def run_all(self) -> None:
        self.page.evaluate(RUN)
        self.wait_for("() => window.isDone")

    def ask(self, code: str) -> str:
        """Return what the kernel prints."""
        return self.page.evaluate(ASK, code).strip()

    def press(self, label: str) -> None:
        self.page.locator(f'.amarl-live button:has-text("{label}")').first.click(timeout=MINUTES_5)

    def wait_for_state(self, state: str, timeout: float = MINUTES_5) -> None:
        self.wait_for(f"state => {STATE} === state", state, timeout)

    def assert_no_complaint(self) -> None:
        assert self.page.evaluate(ERRORS) == []
        assert self.complaints == []


def with_parameters(name: str, place: Path, **values: object) -> str:
    """Copy a notebook with other parameters; return its file's name."""
    notebook = nbformat.read(batch.notebook_path(name), as_version=4)
    valid = batch.notebook_parameters(batch.notebook_path(name))
    notebook.cells[1].source += "".join(f"\n{key} = {value!r}" for key, value in values.items() if key in valid)
    nbformat.write(notebook, place / f"{name}.ipynb")
    return f"{name}.ipynb"


@pytest.mark.parametrize("name", [name for name in RUN_ALL if (batch.NOTEBOOKS / f"{name}.ipynb").exists()])
def test_run_all_gives_no_error(lab, browser, pictures, name):
    url, root = lab
    notebook = Notebook(browser, url, with_parameters(name, root, interactive=True, smoke=True))
    notebook.run_all()
    notebook.page.screenshot(path=pictures / f"{name}.png")
    notebook.assert_no_complaint()
    notebook.page.close()


def test_a_training_is_watched_stopped_and_resumed(lab, browser, pictures, toy):
    url, root = lab
    choices = dict(interactive=True, scenario="toy", days=100, study=str(root / "study"))
    notebook = Notebook(browser, url, with_parameters("20_train", root, **choices))
    notebook.run_all()

    # live: figures change by themselves, while the kernel answers
    notebook.wait_for_state("training")
    notebook.page.evaluate(WATCH)
    notebook.wait_for("parts => parts.every(part => window.seen[part]?.size > 2)", list(SHOWN), SECONDS_15)
    assert notebook.ask("print(1 + 1, training.state)") == "2 training"
    table = notebook.page.locator(".amarl-live table").inner_text()
    assert all(name in table for name in (*toy.service_ids, "GoS, %", "staleness", "lag"))
    notebook.page.screenshot(path=pictures / "20_training.png")

    notebook.press("Stop")
    pressed = time.monotonic()
    notebook.wait_for_state("stopped", timeout=SECONDS_10)
    print(f"stopped {time.monotonic() - pressed:.2f} s after the button")
    served = int(notebook.ask("print(training.timing['requests'])"))
    assert notebook.ask("print(training.timing['resumed'])") == "0" and served > 0
    notebook.page.screenshot(path=pictures / "20_stopped.png")

    # closing the page stops nothing, and opening it again shows the same training
    notebook.press("Resume")
    notebook.wait_for_state("training")
    notebook.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    notebook.page.close()
    notebook.open()
    notebook.wait_for(
        "() => ['training', 'finished'].includes(document.querySelector('.amarl-live .state')?.textContent)"
    )
    notebook.page.screenshot(path=pictures / "20_opened_again.png")
    known = notebook.ask("print(id(training))")
    notebook.run_all()
    assert notebook.ask("print(id(training))") == known
    notebook.wait_for_state("finished")
    assert notebook.ask("print(training.timing['resumed'], training.run.status)") == "1 finished"
    notebook.run_all()
    notebook.page.screenshot(path=pictures / "20_finished.png", full_page=True)
    notebook.assert_no_complaint()
    notebook.page.close()
    shutil.rmtree(root / "study")
