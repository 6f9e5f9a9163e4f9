"""Checkpoints: all that a training needs to go on exactly where it was.

A checkpoint is a folder `checkpoint/` in the run's folder, of numpy arrays and one JSON file, so that nothing is
unpickled. What was served never changes again, so each save appends one file of it (`served-3.npz`: routes and ledger
rows since the save before); the rest is small and is written whole (`state-3.npz`). `checkpoint.json` names the files
that belong together and is replaced last, in one step: a kill at any moment leaves this checkpoint or the one before.
"""

from __future__ import annotations

import dataclasses
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amarl_core import __version__
from amarl_core.config import TrainConfig
from amarl_core.errors import RunError, StorageError, problem
from amarl_core.files import write_whole
from amarl_core.policy import model_state, set_model_state
from amarl_core.runs import plain, read_json, write_json
from amarl_core.store import LOCK_WAIT_NS, N_LEDGER, STOP, VERSION

if TYPE_CHECKING:
    from amarl_core.agents import Training

FORMAT = 2
FOLDER = "checkpoint"
ANEW = "To begin anew, pass resume=False to train(), or delete the folder {folder}."

Arrays = dict[str, np.ndarray]


def identity(config: TrainConfig, provenance: Mapping) -> dict:
    """Return what must be the same for a training to go on, as JSON knows it.

    Args:
        config: of the training.
        provenance: what `runs.provenance` says of its scenario and trace.
    """
    (trace,) = provenance["traces"].values()
    about = {
        "format": FORMAT,
        "version": __version__,
        "scenario": provenance["scenario"]["digest"],
        "trace": trace,
        "config": config,
    }
    return plain(about)


class Checkpoint:
    """The checkpoint of one run folder.

    Args:
        run_folder: the run's folder.
        identity: what the training is; a checkpoint of another one is refused.
    """

    def __init__(self, run_folder: str | Path, identity: dict):
        self.folder = Path(run_folder) / FOLDER
        self.identity = identity
        self._served: list[str] = []  # files that the current checkpoint consists of
        self._cursors: list[int] | None = None  # where each agent was then
        self._n_ledger = 0

    @property
    def is_there(self) -> bool:
        """Whether there is one."""
        return (self.folder / "checkpoint.json").exists()

    def remove(self) -> None:
        """Delete it: the run is finished. What names its files goes first: half a checkpoint is none."""
        (self.folder / "checkpoint.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------------------------------------------ writing
    def save(self, training: Training) -> None:
        """Write the state of a training whose threads have returned.

        Raises:
            RunError: it cannot be written; the checkpoint before it stays.
        """
        number = len(self._served) + 1
        served, state = f"served-{number}.npz", f"state-{number}.npz"
        simulation = training.simulation
        cursors = [int(agent.stream["cursor"][0]) for agent in simulation.agents]
        n_ledger = int(simulation.arena.shared.control[N_LEDGER])
        try:
            _save_arrays(self.folder / served, _served_since(simulation, self._cursors, self._n_ledger))
            _save_arrays(self.folder / state, _state_of(training))
            manifest = {
                "identity": self.identity,
                "state": state,
                "served": [*self._served, served],
                "sizes": training.sizes,
                "actors": list(training.cast.counts),
                "generators": [generator.bit_generator.state for generator in training.generators],
                "spent": dataclasses.asdict(training.spent),
            }
            write_json(self.folder / "checkpoint.json", manifest)
        except StorageError as error:
            raise StorageError(f"{error}. It goes on from the checkpoint before.") from error
        self._served, self._cursors, self._n_ledger = manifest["served"], cursors, n_ledger
        self._sweep(manifest)

    def _sweep(self, manifest: Mapping) -> None:
        """Delete files of earlier states, and of saves that were cut short."""
        kept = {manifest["state"], *manifest["served"], "checkpoint.json"}
        for path in self.folder.iterdir():
            if path.name not in kept:
                path.unlink()

    # ------------------------------------------------------------------------------------------------ reading
    def manifest(self) -> dict:
        """Read `checkpoint.json`.

        Raises:
            RunError: it belongs to another training, with what differs.
        """
        path = self.folder / "checkpoint.json"
        manifest = read_json(path)
        try:
            known, config = manifest["identity"], manifest["identity"]["config"]
            changed = [key for key in ("format", "version", "scenario", "trace") if known[key] != self.identity[key]]
        except (KeyError, TypeError) as error:
            raise RunError(f"{path}: not a checkpoint ({error!r}). {self._anew}") from error
        mine = self.identity["config"]
        for name in [name for name in {**mine, **config} if mine.get(name) != config.get(name)]:
            raise RunError(
                problem(path, None, name, config.get(name), f"{mine.get(name)!r}, as this training has it", self._anew)
            )
        for name in changed:
            raise RunError(problem(path, None, name, known[name], f"{self.identity[name]!r}, as it is now", self._anew))
        return manifest

    def restore(self, training: Training, manifest: Mapping) -> None:
        """Put a fresh training where the checkpointed one was.

        Raises:
            RunError: a file is missing or damaged.
        """
        simulation = training.simulation
        try:
            for name in manifest["served"]:
                with np.load(self.folder / name, allow_pickle=False) as served:
                    _serve_again(simulation, dict(served))
            with np.load(self.folder / manifest["state"], allow_pickle=False) as state:
                _set_state(training, dict(state))
            for generator, drawn in zip(training.generators, manifest["generators"], strict=True):
                generator.bit_generator.state = drawn
            training.spent = dataclasses.replace(training.spent, **manifest["spent"])
        except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise RunError(f"{self.folder}: the checkpoint is damaged ({error}). {self._anew}") from error
        training.progress.go_on_from(training.spent.wall_s)
        self._served = list(manifest["served"])
        self._cursors = [int(agent.stream["cursor"][0]) for agent in simulation.agents]
        self._n_ledger = int(simulation.arena.shared.control[N_LEDGER])

    @property
    def _anew(self) -> str:
        return ANEW.format(folder=self.folder.parent)


def _save_arrays(path: Path, arrays: Arrays) -> None:
    write_whole(path, lambda file: np.savez(file, **arrays))


def narrow(values: np.ndarray) -> np.ndarray:
    """Return integers in the smallest type that holds them all; anything else as it is."""
    if values.dtype.kind not in "iu" or not len(values):
        return values
    least, most = int(values.min()), int(values.max())
    fitting = (t for t in (np.int8, np.int16, np.int32) if np.iinfo(t).min <= least and most <= np.iinfo(t).max)
    return values.astype(next(fitting, np.int64))


# ------------------------------------------------------------------------------------- what has been served
def _served_since(simulation, cursors: list[int] | None, n_ledger: int) -> Arrays:
    """Return requests and ledger rows that were served after the agents stood at these cursors."""
    arena = simulation.arena
    parts = [
        agent.mine[(cursors[a] if cursors else 0) : agent.stream["cursor"][0]]
        for a, agent in enumerate(simulation.agents)
    ]
    row = np.concatenate(parts)  # int64[n]
    records = arena.records
    arrays = {"row": narrow(row)}
    for name in records.rows.dtype.names:
        arrays[f"record/{name}"] = narrow(records.rows[name][row])
    for name, table in (("links", records.links), ("hosts", records.hosts)):
        length = records.rows[f"n_{name}"][row]
        arrays[name] = narrow(table[row][np.arange(table.shape[1]) < length[:, None]])
    ledger = arena.shared.ledger[n_ledger : arena.shared.control[N_LEDGER]]
    for name in ledger.dtype.names:
        arrays[f"ledger/{name}"] = narrow(ledger[name])
    return arrays


def _serve_again(simulation, served: Arrays) -> None:
    """Write what `_served_since` returned where it was; ledger rows go after those that are there."""
    shared, records, row = simulation.arena.shared, simulation.arena.records, served["row"]
    for name in records.rows.dtype.names:
        records.rows[name][row] = served[f"record/{name}"]
    for name, table in (("links", records.links), ("hosts", records.hosts)):
        block = np.zeros((len(row), table.shape[1]), table.dtype)
        block[np.arange(table.shape[1]) < served[f"record/n_{name}"][:, None]] = served[name]
        table[row] = block
    start = shared.control[N_LEDGER]
    end = start + len(served["ledger/row"])
    for name in shared.ledger.dtype.names:
        shared.ledger[name][start:end] = served[f"ledger/{name}"]
    shared.control[N_LEDGER] = end


# --------------------------------------------------------------------------------------------- all the rest
def _views(training: Training) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays that are saved, and written back in place, by name.

    Their shapes follow from configuration, trace and `lanes/stream`, which comes first.
    """
    simulation = training.simulation
    arena = simulation.arena
    yield "lanes/stream", arena.lanes.stream
    yield "gate/clock", arena.gate.clock
    yield "store/used", arena.shared.used
    for name, weights in arena.nets._asdict().items():
        yield f"nets/{name}", weights
    for a, agent in enumerate(simulation.agents):
        n = int(agent.stream["n_active"][0])
        yield f"flows/{a}/t_s", agent.flows.t_s[:n]
        yield f"flows/{a}/row", agent.flows.row[:n]
        yield f"buffer/{a}/fill", agent.buffer.fill
        yield f"buffer/{a}/uniform", agent.buffer.uniform
        for name, column in agent.buffer._asdict().items():
            if name not in ("fill", "uniform"):
                yield f"buffer/{a}/{name}", column[: agent.buffer.fill[0]]


def _state_of(training: Training) -> Arrays:
    control = training.simulation.arena.shared.control
    arrays = dict(_views(training))
    arrays["store/version"] = control[[VERSION, N_LEDGER, LOCK_WAIT_NS]]
    arrays["is_done"], arrays["is_interrupted"] = np.array(training.is_done), np.array(training.is_interrupted)
    arrays["turn"] = np.array(training.turn or (-1.0, 0.0))
    for a, model in _models(training):
        arrays |= {f"model/{a}/{name}": values for name, values in model_state(model).items()}
    return arrays | {f"progress/{name}": values for name, values in training.progress.state().items()}


def _set_state(training: Training, arrays: Arrays) -> None:
    control = training.simulation.arena.shared.control
    version, n_ledger, waited = arrays["store/version"]
    if control[N_LEDGER] != n_ledger:
        raise ValueError(f"{control[N_LEDGER]} ledger rows instead of {n_ledger}")
    control[VERSION], control[LOCK_WAIT_NS], control[STOP] = version, waited, 0
    for name, view in _views(training):
        view[...] = arrays[name]
    training.is_done[:] = arrays["is_done"].tolist()
    training.is_interrupted[:] = arrays["is_interrupted"].tolist()
    a, horizon_s = arrays["turn"].tolist()
    training.turn = None if a < 0 else (int(a), horizon_s)
    for a, model in _models(training):
        set_model_state(model, _below(arrays, f"model/{a}/"))
    training.progress.restore(_below(arrays, "progress/"))


def _models(training: Training) -> Iterator[tuple[int, object]]:
    """Yield each model once, with the first agent that acts by it."""
    for a, model in enumerate(training.run.models):
        if not any(model is other for other in training.run.models[:a]):
            yield a, model


def _below(arrays: Arrays, prefix: str) -> Arrays:
    return {name[len(prefix) :]: values for name, values in arrays.items() if name.startswith(prefix)}
