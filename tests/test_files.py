"""Files are whole or absent; what a killed process leaves is swept; a full disk or a read-only folder is one error."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from amarl_core import files
from amarl_core.errors import AmarlError, StorageError
from amarl_core.files import beside, storing, sweep, write_text, write_whole

ROOT = Path(__file__).resolve().parent.parent


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError):
        write_whole(tmp_path / "a.txt", lambda file: (file.write(b"half"), 1 / 0))
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_reader_never_meets_half_a_file(tmp_path):
    """While it is filled, the old one stands; what is not there yet is absent."""
    seen = []

    def fill(file):
        file.write(b"ne")
        file.flush()
        seen.append((tmp_path / "a.txt").read_text())
        file.write(b"w")

    write_text(tmp_path / "a.txt", "old")
    write_whole(tmp_path / "a.txt", fill)
    assert seen == ["old"] and (tmp_path / "a.txt").read_text() == "new"


KILLED = """
import os, signal, sys
from amarl_core.files import beside, write_whole
from pathlib import Path
def fill(file):
    file.write(b"half of it")
    file.flush()
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    sys.stdin.readline()
write_whole(Path(sys.argv[1]) / "a.bin", fill)
"""


def writer(folder: Path, how: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), how],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_a_killed_process_leaves_is_swept_and_what_a_live_one_writes_is_not(tmp_path):
    dead = writer(tmp_path, "die")
    assert dead.wait() == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a.bin.") and left.read_bytes() == b"half of it"
    alive = writer(tmp_path, "live")
    assert alive.stdout.readline() == "writing\n"
    assert sweep(tmp_path) == 1 and not left.exists()
    assert len(names(tmp_path)) == 1
    alive.communicate("go on\n")
    assert names(tmp_path) == ["a.bin"] and (tmp_path / "a.bin").read_bytes() == b"half of it"


def test_a_folder_in_the_making_is_swept_too_and_nothing_else_is(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    mine = beside(tmp_path / "scenario")
    theirs = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{gone.pid}-"))
    (theirs / "traces").mkdir(parents=True)
    (theirs / "traces" / "half.csv").write_text("t_s")
    mine.mkdir()
    for name in (".hidden", ".a.tmp", "a.tmp", ".mine.1234.tmp", ".lock"):
        (tmp_path / name).write_text("mine")
    before = set(names(tmp_path))
    assert sweep(tmp_path) == 1
    assert before - set(names(tmp_path)) == {theirs.name}


def test_a_process_number_that_was_given_away_again_protects_nothing(tmp_path):
    left = beside(tmp_path / "a.bin")
    left.write_bytes(b"half")
    assert sweep(tmp_path) == 0, "this process might be writing it"
    os.utime(left, (1e9, 1e9))  # long before this process began
    assert sweep(tmp_path) == 1


def test_another_machines_file_is_given_a_day(tmp_path, monkeypatch):
    left = beside(tmp_path / "a.bin")
    left.write_bytes(b"half")
    monkeypatch.setattr(files.platform, "node", lambda: "elsewhere")
    os.utime(left, (time.time() - 3600,) * 2)
    assert sweep(tmp_path) == 0
    os.utime(left, (time.time() - 2 * files.DAY_S,) * 2)
    assert sweep(tmp_path) == 1


def test_sweeping_where_nothing_is_finds_nothing(tmp_path):
    assert sweep(tmp_path / "missing") == 0


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "make room there"),
        (errno.EDQUOT, "make room there"),
        (errno.EROFS, "may be written"),
        (errno.EACCES, "may be written"),
        (errno.ENOTDIR, "choose another folder"),
        (errno.EIO, "have the disk looked at"),
    ],
)
def test_an_error_of_the_system_names_the_folder_and_the_remedy(tmp_path, code, remedy):
    with pytest.raises(StorageError) as error, storing(tmp_path):
        raise OSError(code, os.strerror(code), "somewhere")
    said = str(error.value)
    assert said.startswith(f"{tmp_path}: cannot be written ({os.strerror(code).lower()})") and remedy in said
    assert "\n" not in said and isinstance(error.value, AmarlError)


def test_a_path_below_a_file_is_such_an_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageError, match="cannot be written.*not a directory.*choose another folder"):
        write_text(tmp_path / "file" / "below" / "a.txt", "text")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_such_an_error_and_the_old_file_stays(tmp_path, monkeypatch):
    """The kernel's own full device stands in for the disk."""
    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr("builtins.open", lambda path, mode: os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb"))
    with pytest.raises(StorageError, match="no space left on device.*make room there"):
        write_text(tmp_path / "a.txt", "new")
    monkeypatch.undo()
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt"]
