"""Data is shown, never run: names that are markup, model files that are code, paths that lead elsewhere."""

import csv
import json
import pickle
import re
import shutil
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import numpy as np
import pandas as pd
import pytest
from fake_study import write_study
from hypothesis import given
from hypothesis import strategies as st
from test_policy import Trap, repack

from amarl_core import export, live_table
from amarl_core.agents import train
from amarl_core.batch import Job
from amarl_core.colophon import world_colophon
from amarl_core.errors import AmarlError, RunError, ScenarioError
from amarl_core.evaluation import play_trace
from amarl_core.explore import DayExplorer, HopStepper
from amarl_core.explore_plots import (
    compare_gos,
    day_maps,
    demand_by_area,
    demand_by_service,
    fullest_links,
    hosts_table,
    links_table,
    network_answer,
    network_map,
    slack_table,
)
from amarl_core.files import file_name, inside
from amarl_core.hop_view import route_by_hops
from amarl_core.live_curves import curves_svg
from amarl_core.look import Answer, Note, Table
from amarl_core.maps import NetworkMap
from amarl_core.scenario import DATA_FOLDER, load_scenario
from amarl_core.simulation import AgentError
from amarl_core.store import ResourceStore
from amarl_core.teams import load_run
from amarl_core.utilisation import utilisation
from amarl_core.watch import Watch

NAMES = {  # what stands in the toy scenario, and what stands there instead
    "DU-W": "<script>alert(1)</script>",
    "West site": '"><img src=x onerror=alert(2)>',
    "West": "</title><script>alert(3)</script>",
    "voice": "<img src=x onerror=alert(4)>",
    "FW": "<b onmouseover=alert(5)>FW</b>",
    "DC": "$\\broken{$ | `x` & ../../up",
    "toy": "'><svg onload=alert(6)>",
}


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """The toy scenario with names that are markup, and one that leads out of a folder."""
    folder = tmp_path_factory.mktemp("evil") / "toy"
    shutil.copytree(DATA_FOLDER / "toy", folder)
    for path in folder.glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            rows = [[renamed(cell) for cell in row] for row in csv.reader(file)]
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    settings = (folder / "scenario.toml").read_text(encoding="utf-8").split("[frozen]")[0]
    named = settings.replace('name = "toy"', f"name = {json.dumps(NAMES['toy'])}")
    (folder / "scenario.toml").write_text(named, encoding="utf-8")
    return load_scenario(folder)


def renamed(cell: str) -> str:
    """Rename a cell, or a chain's or destination's parts."""
    if cell in NAMES:
        return NAMES[cell]
    parts = re.split("([-:])", cell)
    return "".join(NAMES["FW"] if part == "FW" else part for part in parts)


class Page(HTMLParser):
    """Finds what would run or load something, as a browser reads it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.bad: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        if tag in ("script", "iframe", "object", "embed", "link", "base", "u", "form"):
            self.bad.append(tag)
        for name, value in attributes:
            if name.startswith("on"):
                self.bad.append(f"{tag} {name}")
            if name in ("src", "srcset") and not (value or "").startswith("data:"):
                self.bad.append(f"{tag} {name}={value}")
            if name == "href" and (value or "").strip().lower().startswith("javascript"):
                self.bad.append(f"{tag} {name}={value}")
            self.words.append(value or "")

    def handle_data(self, data):
        self.words.append(data)


def assert_shown(markup: str, *names: str) -> None:
    """Hold that nothing runs, and that the names are there, to be read."""
    page = Page(markup)
    assert page.bad == []
    words = "\n".join(page.words)
    for name in names:
        assert name in words, name


def test_the_parser_finds_what_it_should():
    """What the tests below rely on: each name, written as it is, does become an element that runs."""
    for name in ("DU-W", "West site", "West", "voice", "FW", "toy"):
        assert Page(f'<p title="{NAMES[name]}">{NAMES[name]}</p>').bad, name


def test_maps_show_names_and_run_none(evil):
    chart = NetworkMap(evil)
    assert_shown(chart.svg(title=NAMES["toy"]), NAMES["DU-W"], NAMES["West site"], NAMES["FW"], NAMES["toy"])
    assert_shown(network_map(chart)._repr_html_(), NAMES["DU-W"])


@pytest.fixture(scope="module")
def walked(evil):
    """A request of the service with a bad name, from the node with a bad name, hop by hop."""
    trace = evil.training_trace(seed=0)
    s, v = evil.service_ids.index(NAMES["voice"]), evil.network.node_index[NAMES["DU-W"]]
    row = int(np.flatnonzero((trace.service == s) & (trace.source == v))[0])
    return route_by_hops(evil, trace[row : row + 1], ResourceStore.of(evil).snapshot())


def test_the_hop_view_and_its_stepper_run_no_name(evil, walked):
    chart = NetworkMap(evil)
    assert_shown(walked.drawing(chart)._repr_html_(), NAMES["DU-W"], NAMES["voice"])
    assert_shown(walked.table()._repr_html_(), NAMES["DU-W"], NAMES["voice"])
    stepper = HopStepper(walked, chart)
    assert_shown(stepper.map.value, NAMES["DU-W"])
    assert_shown(stepper.table.value)


@pytest.fixture(scope="module")
def evil_run(evil, tmp_path_factory):
    """A training on that scenario, recorded."""
    seen = []
    folder = tmp_path_factory.mktemp("run") / "seed=0"
    run = train(evil, "amarl", 0, days=1, folder=folder, tensorboard=True, on_start=lambda t: seen.append(Watch(t)))
    return run, seen[0]


def test_figures_and_tables_of_a_day_run_no_name(evil, evil_run):
    trace = evil.training_trace(seed=1)
    decisions = play_trace(evil_run[0], trace).decisions
    used, chart = utilisation(decisions, evil), NetworkMap(evil)
    label = f"day of {NAMES['toy']}"
    for shown in (
        demand_by_service(evil),
        demand_by_area(evil),
        day_maps(chart, used, label),
        fullest_links(used, evil, label),
        links_table(used, evil, label),
        hosts_table(evil),
        slack_table(evil),
        network_answer(evil, used, label),
        compare_gos({NAMES["voice"]: decisions, "rule": decisions}, NAMES["toy"]),
        world_colophon(evil, study=NAMES["voice"]),
        Table(decisions[["service", "source", "cause"]].head(300), NAMES["toy"]),
        Note(NAMES["toy"]),
        Answer(NAMES["toy"]),
    ):
        assert_shown(shown._repr_html_())
    assert_shown(hosts_table(evil)._repr_html_(), NAMES["FW"])


def test_the_live_view_runs_no_name(evil, evil_run):
    run, watch = evil_run
    watch.look()
    agents = run.team.agents
    everybody, colors = list(range(len(agents))), ["#111111"] * len(agents)
    assert_shown(live_table.table(watch, agents, colors, everybody, NAMES["voice"]), "<img src=x onerror=alert(4)>")
    assert_shown(live_table.headline(run.config, evil.name, "training"), NAMES["toy"])
    for error in (AgentError(f"{NAMES['voice']}: {NAMES['DU-W']}"), RunError(NAMES["DU-W"])):
        assert_shown(live_table.note("failed", error, 0.0, 0.0), NAMES["DU-W"])
    assert_shown(curves_svg(watch.history.curves(), colors))


def test_the_day_explorer_runs_no_name(evil, tmp_path, monkeypatch):
    """A study whose name is markup and whose scenario is the one with bad names."""
    study = write_study(tmp_path, name=NAMES["voice"], seeds=(0,), n=300)
    explorer = DayExplorer("toy", study=study.name, root=study.parent).wait()
    for value in (explorer.status.value, explorer.map.value, explorer.list.value):
        assert_shown(value)


def test_an_exported_page_and_the_index_run_no_name(evil, walked, tmp_path):
    shown = [walked.table(), walked.drawing(NetworkMap(evil)), Note(NAMES["DU-W"]), demand_by_area(evil)]
    outputs = [nbformat.v4.new_output("display_data", {"text/html": one._repr_html_()}) for one in shown]
    outputs.append(nbformat.v4.new_output("stream", name="stdout", text=NAMES["DU-W"]))
    outputs.append(nbformat.v4.new_output("execute_result", {"text/plain": NAMES["DU-W"]}))
    outputs.append(nbformat.v4.new_output("error", ename=NAMES["voice"], evalue="x", traceback=[NAMES["DU-W"]]))
    code = nbformat.v4.new_code_cell(f"scenario = {NAMES['DU-W']!r}", outputs=outputs)
    title = nbformat.v4.new_markdown_cell("# A title\n\n**Question.** Why?\n\n## A section")
    nbformat.write(nbformat.v4.new_notebook(cells=[title, code]), tmp_path / "a.ipynb")
    job = Job("20_train", {"method": NAMES["voice"]})
    page = export.export_page(tmp_path / "a.ipynb", tmp_path / "a.html", job.command)
    assert_shown((tmp_path / "a.html").read_text(encoding="utf-8"), NAMES["DU-W"], NAMES["voice"])
    study = write_study(tmp_path, name=NAMES["voice"], seeds=(0,), n=300)
    named = export.Page("a.html", NAMES["DU-W"], NAMES["voice"], page.cover)
    export.write_index(str(study), [named], tmp_path, f"python -m {NAMES['voice']}")
    assert_shown((tmp_path / "index.html").read_text(encoding="utf-8"), NAMES["DU-W"], NAMES["voice"])


def test_a_cell_of_a_markdown_table_stays_a_cell():
    text = Table(pd.DataFrame({"a": ["x | y"], "b": [1]})).markdown()
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines()] == [3, 3, 3]


# -------------------------------------------------------------------------------------------------- files
@pytest.mark.parametrize("member", ["policy.pth", "policy.optimizer.pth", "pytorch_variables.pth", "data"])
def test_a_model_whose_member_is_a_pickle_runs_nothing(toy, toy_run_folder, tmp_path, member):
    folder = tmp_path / "run"
    shutil.copytree(toy_run_folder, folder)
    sprung = tmp_path / "sprung"
    trap = pickle.dumps(Trap(sprung))
    repack(folder / "model" / f"{toy.service_ids[0]}.zip", **{member: trap})
    if member == "policy.pth":
        with pytest.raises(RunError, match="not the weights"):
            load_run(folder, toy)
    else:
        load_run(folder, toy)
    assert not sprung.exists()
    with pytest.raises(Exception):  # noqa: B017 - whatever the trap raises
        pickle.loads(trap)
        raise ValueError
    assert sprung.exists(), "the trap does work where pickles are run"


@pytest.fixture(scope="module")
def toy_run_folder(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "run"
    train(toy, "amarl", 0, days=1, folder=folder)
    return folder


def test_a_checkpoint_with_a_pickle_runs_nothing(toy, tmp_path):
    folder, sprung = tmp_path / "run", tmp_path / "sprung"
    train(toy, "amarl", 0, days=2, folder=folder, on_start=lambda training: training.simulation.stop())
    (state,) = (folder / "checkpoint").glob("state-*.npz")
    with np.load(state) as arrays:
        kept = dict(arrays)
    kept["turn"] = np.array([Trap(sprung)], dtype=object)
    np.savez(state, **kept)
    with pytest.raises(RunError, match="damaged"):
        train(toy, "amarl", 0, days=2, folder=folder)
    assert not sprung.exists()


def test_names_of_services_lead_no_file_out_of_the_run(evil, evil_run):
    run, _ = evil_run
    expected = {f"{file_name(name)}.{kind}" for name in evil.service_ids for kind in ("zip", "json")}
    assert {path.name for path in (run.folder / "model").iterdir()} == expected
    assert {path.name for path in (run.folder / "tensorboard").iterdir()} == {file_name(s) for s in evil.service_ids}
    loaded = load_run(run.folder, evil)
    assert all(zipfile.is_zipfile(path) for path in (run.folder / "model").glob("*.zip"))
    assert len(loaded.models) == len(evil.service_ids)


@given(st.text(min_size=1, max_size=40) | st.sampled_from(["..", ".", "../../a", "/etc/passwd", "a/b", "C:\\x", "%2F"]))
def test_a_file_name_stays_in_its_folder_and_tells_names_apart(text):
    name = file_name(text)
    assert Path(name).name == name and name not in ("", ".", "..")
    assert "/" not in name and "\0" not in name and (Path("/home") / name).parent == Path("/home")
    assert unquote(name) == text


def test_ordinary_names_stay_as_they_are():
    for name in ("video_streaming", "industry_4_0", "voice over IP", "télé", "AR#2"):
        assert file_name(name) == name


@pytest.mark.parametrize("name", ["../a", "/etc/hostname", "a/../../b", "link", "link/a", "a\0b"])
def test_what_leads_out_of_a_folder_is_not_inside_it(tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    assert not inside(folder, name)
    assert inside(folder, "a") and inside(folder, "b/../a") and inside(folder, "deep/er/a.csv")


@pytest.mark.parametrize("key", ["tables.nodes", "held_out.committed.test-weekday", "outline.csv"])
def test_a_scenario_reads_nothing_outside_its_folder(tmp_path, key):
    folder, stranger = tmp_path / "toy", tmp_path / "secret.csv"
    shutil.copytree(DATA_FOLDER / "toy", folder)
    shutil.copy(folder / "nodes.csv", stranger)
    text = (folder / "scenario.toml").read_text(encoding="utf-8")
    for path in ("../secret.csv", str(stranger), "link.csv"):
        (folder / "link.csv").unlink(missing_ok=True)
        (folder / "link.csv").symlink_to(stranger)
        if key == "tables.nodes":
            changed = text.replace('nodes = "nodes.csv"', f'nodes = "{path}"')
        elif key == "outline.csv":
            changed = text
            (folder / "outline.csv").unlink(missing_ok=True)
            (folder / "outline.csv").symlink_to(Path("..") / "secret.csv")
        else:
            changed = text.replace("[frozen]", f'[held_out.committed]\ntest-weekday = "{path}"\n\n[frozen]', 1)
        (folder / "scenario.toml").write_text(changed, encoding="utf-8")
        with pytest.raises(
            ScenarioError, match=f"{re.escape(key)} is .*; expected a (path|file) inside the scenario's"
        ):
            NetworkMap(load_scenario(folder))


def test_settings_of_a_model_are_data(toy, toy_run_folder, tmp_path):
    """A configuration that names another thing than a known setting is refused."""
    folder = tmp_path / "run"
    shutil.copytree(toy_run_folder, folder)
    about = folder / "model" / f"{toy.service_ids[0]}.json"
    known = json.loads(about.read_text())
    known["config"]["activation"] = "__import__('os').system('true')"
    about.write_text(json.dumps(known))
    with pytest.raises(AmarlError, match="activation"):
        load_run(folder, toy)
