"""Run folders: written in one step, believed only when finished, never overwritten."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amarl_core import runs
from amarl_core.errors import HeldError, RunError
from amarl_core.runs import RunFolder, read_frame, read_json, record_name, write_frame, write_json


@pytest.fixture
def folder(tmp_path):
    return RunFolder.of("quick", "amarl", seed=1, root=tmp_path)


def test_a_run_lives_from_new_to_finished(folder):
    assert folder.status == "new" and not folder.is_finished
    folder.start({"seed": 1}, provenance={"python": "3.11"})
    assert folder.status == "running" and not folder.is_finished
    folder.finish()
    assert folder.is_finished and folder.require_finished() is folder
    assert folder.json("config.json") == {"seed": 1}
    assert folder.json("status.json") == {"status": "finished", "error": None}


def test_a_finished_run_is_never_overwritten(folder):
    folder.start({"seed": 1}).save_json("timing.json", {"train_s": 1.0})
    folder.finish()
    with pytest.raises(RunError, match="never overwritten"):
        RunFolder(folder.path).start({"seed": 2})
    with pytest.raises(RunError, match="never overwritten"):
        folder.save_json("timing.json", {"train_s": 2.0})
    folder.save_json("audit.json", {"violations": 0})
    assert folder.json("timing.json") == {"train_s": 1.0} and folder.json("config.json") == {"seed": 1}


@pytest.mark.parametrize("end", [lambda f: None, RunFolder.stop, lambda f: f.fail(ValueError("bad loss"))])
def test_an_unfinished_run_is_never_taken_for_a_finished_one(folder, end):
    folder.start({})
    end(folder)
    with pytest.raises(RunError, match=f"the run is {folder.status}"):
        folder.require_finished()


def test_a_failed_run_says_why(folder):
    folder.start({})
    folder.fail(ValueError("bad loss"))
    assert folder.error == "ValueError: bad loss"


def test_a_run_that_another_process_finishes_just_before_we_hold_its_lock_is_not_begun_anew(folder, monkeypatch):
    other = RunFolder(folder.path).start({"seed": 1})
    acquire = folder._lock.acquire

    def late():
        other.finish()
        return acquire()

    monkeypatch.setattr(folder._lock, "acquire", late)
    with pytest.raises(RunError, match="never overwritten"):
        folder.start({"seed": 2})
    assert folder.json("config.json") == {"seed": 1} and not folder._lock.is_locked


def test_starting_again_removes_the_records_of_an_unfinished_run(folder):
    folder.start({"seed": 1})
    folder.save_frame("progress.parquet", pd.DataFrame({"gos": [0.5]}))
    write_json(folder.path / "model" / "sarl.json", {})
    (folder.path / "notes.txt").write_text("mine")
    folder.stop()
    again = RunFolder(folder.path).start({"seed": 2})
    assert not (folder.path / "progress.parquet").exists() and not (folder.path / "model").exists()
    assert (folder.path / "notes.txt").exists() and again.json("config.json") == {"seed": 2}


def test_going_on_keeps_what_an_unfinished_run_has_recorded(folder):
    with pytest.raises(RunError, match="start it"):
        folder.go_on()
    folder.start({"seed": 1}).save_frame("progress.parquet", pd.DataFrame({"gos": [0.5]}))
    folder.stop()
    again = RunFolder(folder.path).go_on()
    assert again.status == "running" and again.json("config.json") == {"seed": 1}
    assert (folder.path / "progress.parquet").exists()
    with pytest.raises(HeldError, match="another run is writing"):
        RunFolder(folder.path).go_on()
    again.finish()
    with pytest.raises(RunError, match="never overwritten"):
        RunFolder(folder.path).go_on()


def test_two_writers_of_one_folder_are_refused(folder):
    folder.start({})
    with pytest.raises(HeldError, match="another run is writing"):
        RunFolder(folder.path).start({})
    folder.stop()
    RunFolder(folder.path).start({}).finish()


def test_only_a_started_run_can_end(folder):
    with pytest.raises(RunError, match="it is new"):
        folder.finish()
    folder.start({})
    folder.stop()
    with pytest.raises(RunError, match="it is stopped"):
        folder.finish()


def test_a_damaged_status_is_an_error_and_not_a_result(folder):
    write_json(folder.path / "status.json", {"status": "done"})
    with pytest.raises(RunError, match="expected one of"):
        _ = folder.is_finished


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert read_json(tmp_path / "a.json") == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_json_takes_dataclasses_and_numpy_and_writes_null_for_nan(tmp_path):
    @dataclass
    class Config:
        lag_s: float
        sizes: tuple

    write_json(
        tmp_path / "c.json",
        {"config": Config(np.float64("inf"), (32, 32)), "n": np.int64(3), "a": np.array([1.5, np.nan])},
    )
    assert json.loads((tmp_path / "c.json").read_text()) == {
        "config": {"lag_s": None, "sizes": [32, 32]},
        "n": 3,
        "a": [1.5, None],
    }


def test_frames_come_back_with_their_lists(tmp_path):
    tmp_path = tmp_path / "seed=1"
    tmp_path.mkdir()
    codes = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int16()), pa.array(["a", "b"]))
    arrow = pd.Series(pd.arrays.ArrowExtensionArray(pa.ListArray.from_arrays(pa.array([0, 2, 2, 3]), codes)))
    frame = pd.DataFrame(
        {
            "request_id": [1, 2, 3],
            "links": arrow,
            "hosts": [["a", "b"], [], ["a"]],
            "service": pd.Categorical(["ar", "iot", "ar"]),
        }
    )
    write_frame(tmp_path / "d.parquet", frame)
    back = read_frame(tmp_path / "d.parquet")
    assert list(back.columns) == list(frame.columns)
    assert [list(x) for x in back["links"]] == [list(x) for x in back["hosts"]] == [["a", "b"], [], ["a"]]
    assert back["service"].dtype == "category" and list(back["service"]) == ["ar", "iot", "ar"]
    assert list(pd.read_parquet(tmp_path / "d.parquet")["links"][0]) == ["a", "b"]
    pq.write_table(pq.ParquetFile(tmp_path / "d.parquet").read(), tmp_path / "groups.parquet", row_group_size=2)
    assert [list(x) for x in read_frame(tmp_path / "groups.parquet")["links"]] == [["a", "b"], [], ["a"]]
    assert list(read_frame(tmp_path / "d.parquet", ["request_id"]).columns) == ["request_id"]


def test_errors_name_the_file_and_the_remedy(tmp_path):
    (tmp_path / "bad.parquet").write_text("no")
    (tmp_path / "bad.json").write_text("{\n,")
    write_frame(tmp_path / "d.parquet", pd.DataFrame({"x": [1]}))
    for read, name, match in [
        (read_frame, "none.parquet", "no such record"),
        (read_frame, "bad.parquet", "Parquet"),
        (read_json, "none.json", "no such file"),
        (read_json, "bad.json", "line 2"),
        (lambda p: read_frame(p, ["y"]), "d.parquet", "'y'"),
    ]:
        with pytest.raises(RunError, match=match) as caught:
            read(tmp_path / name)
        assert name in str(caught.value)


def test_record_names_tell_order_and_attempts():
    assert record_name("decisions", "test-weekday") == "decisions_test-weekday.parquet"
    assert record_name("ledger", "test-weekday", "arrival1") == "ledger_test-weekday_attempts1.parquet"
    assert record_name("ledger", "test-weekend", "free3") == "ledger_test-weekend_free.parquet"
    assert record_name("decisions", "train", "train") == "decisions_train.parquet"
    with pytest.raises(RunError, match="arrival3"):
        record_name("decisions", "test-weekday", "lag")


def test_provenance_names_versions_and_checksums():
    made = runs.provenance(SimpleNamespace(name="toy", digest="d1"), [SimpleNamespace(name="day", sha256="f0")])
    assert made["versions"]["numpy"] == np.__version__ and made["cores"] >= 1
    assert made["scenario"] == {"name": "toy", "digest": "d1"} and made["traces"] == {"day": "f0"}
    assert runs.provenance()["scenario"] is None
    json.dumps(made)
