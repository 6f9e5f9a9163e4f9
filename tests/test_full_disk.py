"""A full disk or a folder that cannot be written: one sentence with the remedy, and nothing half-written."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from amarl_core import batch, files, freeze, soak, steps
from amarl_core.agents import train
from amarl_core.errors import StorageError
from amarl_core.export import export_page
from amarl_core.integrity import damaged, files_below, half_written
from amarl_core.look import Picture, new_figure
from amarl_core.makers import make_scenario
from amarl_core.runs import RunFolder, write_frame, write_json
from amarl_core.scenario import DATA_FOLDER
from amarl_core.study import run_study

ROOT = Path(__file__).resolve().parent.parent
TRAINING = dict(method="amarl", seed=0, days=2, deterministic=True)


def page_to(folder: Path) -> None:
    source = folder.parents[1] / "a.ipynb"
    if not source.exists():
        cell = nbformat.v4.new_markdown_cell("# A title\n\n**Question.** Why?")
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), source)
    export_page(source, folder / "a.html", "make it")


WRITERS = {  # what writes, into a folder
    "train": lambda toy, folder: train(toy, folder=folder, **TRAINING),
    "tensorboard": lambda toy, folder: train(toy, tensorboard=folder, **TRAINING),
    "evaluate": lambda toy, folder: write_frame(folder / "decisions.parquet", pd.DataFrame({"x": np.arange(9)})),
    "study": lambda toy, folder: run_study("smoke", root=folder),
    "export": lambda toy, folder: page_to(folder),
    "figure": lambda toy, folder: Picture(new_figure()[0], "a", "b").save(folder / "a.png"),
    "trace": lambda toy, folder: toy.training_trace(seed=0).head(9).write(folder / "a.csv.gz"),
    "parquet trace": lambda toy, folder: toy.training_trace(seed=0).head(9).write(folder / "a.parquet"),
    "make_scenario": lambda toy, folder: make_scenario("topohub:sndlib/abilene", folder, latency="scale", weekdays=1),
    "run folder": lambda toy, folder: RunFolder(folder).start({}),
}


@contextmanager
def full_after(monkeypatch, n_files: int):
    """Let so many files be written whole; the disk is full for every later one."""
    works, done = os.fsync, []

    def fsync(handle):
        done.append(handle)
        if len(done) > n_files:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        works(handle)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fsync)
        yield


def assert_one_sentence(error: StorageError, folder: Path, reason: str) -> None:
    said = str(error)
    assert "\n" not in said and reason in said and "; " in said, said
    assert str(folder) in said, said


@pytest.mark.parametrize("writer", WRITERS)
def test_a_folder_that_cannot_be_made_is_one_error(toy, tmp_path, writer):
    """Below a file, where root may not write either."""
    (tmp_path / "file").write_text("no folder")
    folder = tmp_path / "file" / "below"
    with pytest.raises(StorageError) as error:
        WRITERS[writer](toy, folder)
    assert_one_sentence(error.value, folder, "cannot be written (not a directory)")


@pytest.mark.parametrize("writer", [name for name in WRITERS if name not in ("tensorboard", "study")])
def test_a_disk_that_is_full_is_one_error_and_nothing_is_half_written(toy, tmp_path, monkeypatch, writer):
    folder = tmp_path / "work" / "folder"
    folder.parent.mkdir()
    with full_after(monkeypatch, 0), pytest.raises(StorageError) as error:
        WRITERS[writer](toy, folder)
    assert_one_sentence(error.value, folder, "no space left on device")
    assert "make room there" in str(error.value)
    assert files_below(folder.parent) == []
    assert half_written(folder.parent) == []


def test_a_training_whose_disk_fills_up_goes_on_when_there_is_room(toy, tmp_path, monkeypatch):
    """At every number of files that it manages to write, what is there is whole and the result the same."""
    whole = train(toy, **TRAINING).simulation.decisions()
    for n_files in (1, 5, 9):
        folder = tmp_path / str(n_files)
        with full_after(monkeypatch, n_files), pytest.raises(StorageError, match="no space left"):
            train(toy, folder=folder, checkpoint_s=0.02, **TRAINING)
        assert RunFolder(folder).status in ("running", "failed") and damaged(folder) == []
        run = train(toy, folder=folder, checkpoint_s=0.02, **TRAINING)
        assert run.status == "finished" and run.simulation.decisions().equals(whole) and damaged(folder) == []


def test_a_limit_of_the_system_on_sizes_is_such_an_error_too(toy, tmp_path):
    """The kernel's own refusal, in the midst of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    frame = pd.DataFrame({"x": np.random.default_rng(0).random(50_000)})
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
        with pytest.raises(StorageError, match="file too large.*ulimit"):
            write_frame(tmp_path / "a.parquet", frame)
        with pytest.raises(StorageError, match="file too large"):
            files.write_whole(tmp_path / "a.npz", lambda file: np.savez(file, x=frame["x"]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_scenario_is_replaced_whole_or_not_at_all(toy, tmp_path, monkeypatch):
    folder, options = tmp_path / "abilene", dict(latency="scale", weekdays=1, weekends=1)
    made = make_scenario("topohub:sndlib/abilene", folder, **options)
    with full_after(monkeypatch, 0), pytest.raises(StorageError):
        make_scenario("topohub:sndlib/polska", folder, overwrite=True, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["abilene"]
    folder.rename(tmp_path / ".abilene.replaced")  # as a kill between two renames leaves it
    again = make_scenario("topohub:sndlib/abilene", folder, overwrite=True, **options)
    assert again.digest == made.digest and [path.name for path in tmp_path.iterdir()] == ["abilene"]


# --------------------------------------------------------------------------------------------- the command line
@pytest.mark.parametrize(
    "arguments", [["reproduce", "--profile", "smoke"], ["run", "30_gos_curves"], ["run", "20_train", "-p", "days", "1"]]
)
def test_a_command_says_so_in_one_line_and_exits_with_2(tmp_path, capsys, arguments):
    (tmp_path / "file").write_text("no folder")
    assert batch.main([*arguments, "--reports", str(tmp_path / "file" / "reports")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith(f"error: {tmp_path / 'file' / 'reports'}") and "choose" in said[0]


def test_an_error_of_the_system_from_elsewhere_is_one_line_too(monkeypatch, capsys):
    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/x")

    monkeypatch.setattr(batch, "run_job", no_room)
    assert batch.main(["run", "30_gos_curves"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("error: ") and "TMPDIR" in said[0]


def test_freezing_on_a_full_disk_says_so_and_leaves_the_scenario_as_it_was(tmp_path, monkeypatch, caplog):
    folder = tmp_path / "toy"
    shutil.copytree(DATA_FOLDER / "toy", folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with full_after(monkeypatch, 0):
        assert freeze.main([str(folder)]) == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said.startswith(f"{folder}: cannot be written (no space left on device)")


def test_a_step_of_a_study_says_so_and_exits_with_2(toy, tmp_path, monkeypatch, caplog):
    write_json(tmp_path / "study.json", {"scenario": "toy", "choices": {"days": 1}})
    with full_after(monkeypatch, 0):
        assert steps.main(["train", str(tmp_path), "--method=amarl", "--seed=0"]) == 2
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "cannot be written (no space left on device)" in said and "\n" not in said


def test_a_soak_that_cannot_be_recorded_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    assert soak.main(["--scenario", "toy", "--hours", "1", "--folder", str(tmp_path / "file" / "soak")]) == 2


def test_a_package_whose_cache_cannot_be_written_still_works_and_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("no folder")
    code = "import os, amarl_core; place = os.environ['NUMBA_CACHE_DIR']; print(place); os.makedirs(place)"
    environment = os.environ | {"AMARL_CACHE_DIR": str(tmp_path / "file"), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and Path(done.stdout.strip()).is_relative_to(tmp_path)
    assert done.stderr.count("\n") == 1 and "set AMARL_CACHE_DIR" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "the folder goes with its process"
