"""A team with its networks, fresh or trained, and the folder where a run is recorded and loaded from."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from sb3_contrib import MaskablePPO

from amarl_core.arrays import World, make_world, observation_size, slot_count, truncated_nodes
from amarl_core.config import TrainConfig, make_config
from amarl_core.inference import Nets, make_nets
from amarl_core.policy import build_model, copy_weights, load_model, save_model
from amarl_core.record_files import RecordFiles
from amarl_core.runs import RunFolder
from amarl_core.simulation import Simulation, Team

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 100_000
"""Rows of a training's records that are made into a table and written together."""


@dataclass
class Run:
    """A trained team, ready to route; `simulation` holds the training records of a run just made."""

    config: TrainConfig
    scenario: object
    team: Team
    world: World
    models: list[MaskablePPO]
    nets: Nets
    status: str = "running"
    folder: Path | None = None
    progress: pd.DataFrame = field(default_factory=pd.DataFrame)
    timing: dict = field(default_factory=dict)
    simulation: Simulation | None = None

    @property
    def method(self) -> str:
        """The method, one of `config.ALL_METHODS`."""
        return self.config.method

    @property
    def seed(self) -> int:
        """The seed of traffic, weights and sampling."""
        return self.config.seed


def untrained(scenario, config: TrainConfig) -> Run:
    """Return a team with fresh weights; actors that share a policy share the model too."""
    world = make_world(scenario, config.mu)
    team = Team.of(scenario, config.method)
    n_slots = slot_count(world, config.max_slots)
    n_inputs = observation_size(world, n_slots)
    for node in truncated_nodes(world, n_slots):
        log.warning(
            "node %s has more useful neighbours than the %d slots; the farthest are left out",
            scenario.network.node_ids[node],
            n_slots,
        )
    seeds = np.random.SeedSequence([config.seed, 0]).generate_state(len(team.agents))
    if config.shares_policy:
        models = [build_model(config, n_inputs, n_slots, int(seeds[0]))] * len(team.agents)
    else:
        models = [build_model(config, n_inputs, n_slots, int(seed)) for seed in seeds]
    nets = make_nets(len(team.agents), n_inputs, config.width, n_slots, config.activation)
    for a, model in enumerate(models):
        copy_weights(model, nets, a)
    return Run(config, scenario, team, world, models, nets)


def record(run: Run, place: RunFolder) -> None:
    """Write models, progress, timing and training records; mark the run.

    A stopped run writes no records: its checkpoint has them, and writing a long run's tables takes seconds.
    """
    for agent, model in zip(run.team.agents, run.models, strict=True):
        save_model(model, run.folder / "model", agent, run.config, run.scenario)
    place.save_frame("progress.parquet", run.progress)
    place.save_json("timing.json", run.timing)
    if run.status == "finished":
        with RecordFiles(run.folder / "decisions_train.parquet") as file:
            for part in run.simulation.decision_parts(ROWS_AT_ONCE):
                file.append(part)
        with RecordFiles(run.folder / "ledger_train.parquet") as file:
            for part in run.simulation.ledger_parts(ROWS_AT_ONCE):
                file.append(part)
        place.finish()
    else:
        place.stop()


def load_run(folder: str | Path, scenario) -> Run:
    """Load a finished run.

    Raises:
        RunError: an unfinished run, or a model that does not fit the scenario.
    """
    place = RunFolder(folder).require_finished()
    config = make_config(**place.json("config.json"))
    run = untrained(scenario, config)
    n_slots = run.nets.actor_3.shape[2]
    run.models = [
        load_model(Path(folder) / "model", agent, scenario, observation_size(run.world, n_slots), n_slots)
        for agent in run.team.agents
    ]
    for a, model in enumerate(run.models):
        copy_weights(model, run.nets, a)
    run.folder, run.status = Path(folder), "finished"
    run.progress, run.timing = place.frame("progress.parquet"), place.json("timing.json")
    return run
