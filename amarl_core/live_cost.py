"""What the live view costs: pairs of trainings, with the view and without it, in turn.

    python -m amarl_core.live_cost --study full

The trainings run in a Jupyter kernel, so that every message of the widgets is really sent; no browser listens. The
times are written to `live_cost.parquet` in the study's folder, where notebook 20 finds them.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from amarl_core import live
from amarl_core.agents import train
from amarl_core.config import make_config
from amarl_core.errors import RunError
from amarl_core.look import Note, Table, with_interval
from amarl_core.records import study_folder
from amarl_core.runs import read_frame, write_frame
from amarl_core.scenario import load_scenario
from amarl_core.stats import bootstrap_ci

log = logging.getLogger(__name__)

RECORD = "live_cost.parquet"
COMMAND = "python -m amarl_core.live_cost"
TARGET_PERCENT = 3.0


def pairs(scenario_name: str, n: int, days: int) -> list[dict]:
    """Train n times with the view and n times without, in turn, after one training that warms up.

    Returns:
        One row a training: pair, view (whether it had one), train_s, cpu_s, view_s (processor time of the updater).
    """
    scenario, config, rows = load_scenario(scenario_name), make_config(days=days), []
    train(scenario, config=config)
    for pair in range(n):
        for view in (True, False) if pair % 2 else (False, True):
            rows.append({"pair": pair, "view": view} | (_with_view if view else _without)(scenario, config))
    return rows


def _without(scenario, config) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        timing = train(scenario, config=config, folder=folder).timing
    return {"train_s": timing["train_s"], "cpu_s": timing["cpu_s"], "view_s": 0.0}


def _with_view(scenario, config) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        training = live.start(scenario, config.method, config.seed, folder=folder, days=config.days)
        if training.join() != "finished":
            raise RunError(f"the training with a view is {training.state}: {training.error}")
        timing = training.timing
    return {"train_s": timing["train_s"], "cpu_s": timing["cpu_s"], "view_s": training.view_s}


def measure(scenario_name: str, n: int, days: int) -> pd.DataFrame:
    """Do `pairs` in a Jupyter kernel of its own.

    Raises:
        RunError: the kernel reports an error.
    """
    from jupyter_client.manager import start_new_kernel

    root = Path(__file__).resolve().parent.parent
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(root), stderr=subprocess.DEVNULL)
    said: list[str] = []

    def hear(message: dict) -> None:
        if message["msg_type"] == "stream":
            said.append(message["content"]["text"])
        elif message["msg_type"] == "error":
            raise RunError("\n".join(message["content"]["traceback"]))

    call = f"print(json.dumps(pairs({scenario_name!r}, {n}, {days})))"
    code = f"import json\nfrom amarl_core.live_cost import pairs\n{call}"
    try:
        client.execute_interactive(code, output_hook=hear, timeout=None)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return pd.DataFrame(json.loads("".join(said).splitlines()[-1])).assign(days=days)


def slowdown(rows: pd.DataFrame) -> np.ndarray:
    """Return by how many percent training took longer with the view than without: float64[pairs]."""
    times = rows.pivot(index="pair", columns="view", values="train_s")
    return (100 * (times[True] / times[False] - 1)).to_numpy()


def cost_table(folder: Path) -> Table | Note:
    """Show what was measured in a study's folder, or how to measure it."""
    if not (folder / RECORD).exists():
        return Note(f"Not measured in this study yet: {COMMAND} --study {folder.name} takes two minutes.")
    rows = read_frame(folder / RECORD)
    percent, seconds = slowdown(rows), rows.groupby("view")["train_s"].median()
    share = 100 * (rows["view_s"] / rows["train_s"])[rows["view"]].median()
    values = {
        "training without the view, s": f"{seconds[False]:.2f}",
        "training with the view, s": f"{seconds[True]:.2f}",
        "slower, %": with_interval(*bootstrap_ci(percent, np.median)),
        "processor time of the view, % of one core": f"{share:.1f}",
    }
    frame = pd.DataFrame({"": list(values), "median": list(values.values())})
    caption = (
        f"{len(percent)} pairs of AMARL on {rows['days'].iloc[0]} training days; brackets: 95 % bootstrap interval of "
        f"the median of paired ratios. Aim: under {TARGET_PERCENT:g} %. Measured by `{COMMAND}`."
    )
    return Table(frame, caption)


def main() -> int:
    """Measure, and write the record into a study's folder."""
    parser = argparse.ArgumentParser(description="Time trainings with and without the live view.")
    parser.add_argument("--study", default="full", help="a folder below reports/runs, or the path of one")
    parser.add_argument("--scenario", default="montreal")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--days", type=int, default=4)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = measure(options.scenario, options.pairs, options.days)
    write_frame(study_folder(options.study) / RECORD, rows)
    log.info("\n%s\n", rows.round(2).to_string(index=False))
    log.info("%s", cost_table(study_folder(options.study)).markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
