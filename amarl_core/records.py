"""The records of a study as small tidy frames, for figures and tables. It only reads.

A study folder holds millions of decisions. Each file is read once, a few columns of it, and reduced to
counts by hour, service and cause: everything a figure shows is computed from these frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from amarl_core.errors import RunError
from amarl_core.runs import ROOT, RunFolder, read_frame, read_json, record_name

RUNS_FOLDER = Path(__file__).resolve().parent.parent / ROOT
METHODS = ("sarl", "amarl")


@dataclass(frozen=True)
class Study:
    """A finished (or partly finished) study: where it is and what it contains.

    Attributes:
        folder: `reports/runs/<study>`.
        info: the study's `study.json` (profile, command, started, seconds ...).
        seeds: seeds that both methods have finished.
        days: held-out days, in order.
    """

    folder: Path
    info: dict
    seeds: tuple[int, ...]
    days: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the study, which is its folder's name."""
        return self.folder.name

    def run_folder(self, method: str, seed: int) -> Path:
        """Folder of one run."""
        return self.folder / method / f"seed={seed}"

    def describe(self) -> str:
        """Say how much evidence stands behind a figure: seeds and held-out days."""
        return f"n = {_count(self.seeds, 'seed')}, {_count(self.days, 'held-out day')}"


def _count(items: tuple, noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def study_folder(name: str | Path) -> Path:
    """Folder of a study, given by its name below `reports/runs` or as a path."""
    return Path(name) if "/" in str(name) or Path(name).is_absolute() else RUNS_FOLDER / str(name)


def load_study(name: str | Path, smoke: bool = False) -> Study:
    """Find a study by its name below `reports/runs`, or by its folder.

    Args:
        name: the name, or the folder.
        smoke: keep only the first seed and the first held-out day, for a quick look.

    Raises:
        RunError: There is no such study, or no seed that both methods have finished.
    """
    folder = study_folder(name)
    if not (folder / "study.json").is_file():
        known = sorted(p.parent.name for p in RUNS_FOLDER.glob("*/study.json"))
        raise RunError(
            f"there is no study {str(name)!r} (no {folder / 'study.json'}); known: "
            f"{', '.join(known) or 'none'}; `make reproduce` creates one"
        )
    info = read_json(folder / "study.json")
    finished = [_finished_seeds(folder / method) for method in METHODS]
    seeds = sorted(set.intersection(*finished))
    if not seeds:
        raise RunError(
            f"study {folder.name!r} has no seed that both {' and '.join(METHODS)} have finished; run "
            "`make reproduce` again"
        )
    days = info["test_days"]
    if smoke:
        seeds, days = seeds[:1], days[:1]
    return Study(folder, info, tuple(seeds), tuple(days))


def seconds_to_paper(study: Study) -> float:
    """Return how long it took until the records of the paper's pages were there; of an older study, the whole."""
    return study.info.get("seconds_to_paper", study.info["seconds"])


def _finished_seeds(folder: Path) -> set[int]:
    runs = [RunFolder(path) for path in folder.glob("seed=*")]
    return {int(run.path.name.partition("=")[2]) for run in runs if run.is_finished}


# ------------------------------------------------------------------------------------------- decisions
COLUMNS = ["t_s", "hold_s", "service", "demand_kbps", "accepted", "cause", "latency_ms", "budget_ms"]


@lru_cache(maxsize=256)
def _reduce_day(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reduce one day's decisions to (counts by hour, service and cause; latency by service)."""
    frame = read_frame(path, COLUMNS)
    frame = frame.assign(
        hour=(frame["t_s"] // 3600 % 24).astype(np.int8), gigabit=frame["demand_kbps"] * frame["hold_s"] / 1e6
    )
    counts = (
        frame.groupby(["hour", "service", "cause"], observed=True, sort=True)
        .agg(requests=("t_s", "size"), gigabit=("gigabit", "sum"))
        .reset_index()
    )
    latency = (
        frame[frame["accepted"]]
        .groupby("service", observed=True, sort=True)
        .agg(
            requests=("t_s", "size"),
            budget_ms=("budget_ms", "first"),
            mean_ms=("latency_ms", "mean"),
            p95_ms=("latency_ms", lambda values: values.quantile(0.95)),
        )
        .reset_index()
    )
    text = {"service": str, "cause": str}
    return counts.astype(text), latency.astype({"service": str})


def _stack(study: Study, variant: str, which: int) -> pd.DataFrame:
    parts = [
        _reduce_day(study.run_folder(method, seed) / record_name("decisions", day, variant))[which].assign(
            method=method, seed=seed, day=day
        )
        for method, seed, day in product(METHODS, study.seeds, study.days)
    ]
    return pd.concat(parts, ignore_index=True)


def load_outcomes(study: Study, variant: str = "arrival3") -> pd.DataFrame:
    """Count what became of the requests of every held-out day.

    Returns:
        Columns method, seed, day, hour (0-23), service, cause, requests, gigabit (offered Gb, rate times
        holding time).
    """
    return _stack(study, variant, 0)


def load_latency(study: Study, variant: str = "arrival3") -> pd.DataFrame:
    """Summarise the end-to-end latency of the accepted requests.

    Returns:
        Columns method, seed, day, service, requests, budget_ms, mean_ms, p95_ms.
    """
    return _stack(study, variant, 1)


def load_baselines(study: Study) -> pd.DataFrame:
    """Count what became of the requests under each classical rule; as `load_outcomes`, `method` the rule."""
    return _stack_rules(study, 0, ["hour", "service", "cause", "requests", "gigabit"])


def load_baseline_latency(study: Study) -> pd.DataFrame:
    """Summarise the end-to-end latency under each classical rule; as `load_latency`, `method` the rule."""
    return _stack_rules(study, 1, ["service", "requests", "budget_ms", "mean_ms", "p95_ms"])


def _stack_rules(study: Study, which: int, columns: list[str]) -> pd.DataFrame:
    parts = []
    for folder in sorted(path for path in (study.folder / "baselines").glob("*") if path.is_dir()):
        for day in study.days:
            path = folder / record_name("decisions", day)
            if path.is_file():
                parts.append(_reduce_day(path)[which].assign(method=folder.name, seed=0, day=day))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*columns, "method", "seed", "day"])


def load_aborts(study: Study, variant: str = "arrival3") -> pd.DataFrame:
    """Count aborted commits by the resource that had no room.

    Returns:
        Columns method, seed, day, resource, aborts; and `offered`, the requests of that day.
    """
    parts = []
    for method, seed, day in product(METHODS, study.seeds, study.days):
        folder = study.run_folder(method, seed)
        ledger = read_frame(folder / record_name("ledger", day, variant), ["kind", "resource"])
        aborts = ledger.loc[ledger["kind"] == "abort", "resource"].astype(str).value_counts()
        offered = int(_reduce_day(folder / record_name("decisions", day, variant))[0]["requests"].sum())
        parts.append(
            aborts.rename_axis("resource")
            .rename("aborts")
            .reset_index()
            .assign(method=method, seed=seed, day=day, offered=offered)
        )
    return pd.concat(parts, ignore_index=True)


def conflict_rate(study: Study, variant: str = "arrival3") -> dict[str, float]:
    """Aborted commits over offered requests, by method."""
    aborts = load_aborts(study, variant).groupby("method")["aborts"].sum()
    offered = load_outcomes(study, variant).groupby("method")["requests"].sum()
    return {method: float(aborts.get(method, 0) / offered[method]) for method in METHODS}


# ------------------------------------------------------------------------------- grade of service
def gos(outcomes: pd.DataFrame, by: list[str]) -> pd.Series:
    """Grade of service in percent, accepted over offered requests, within each group of `by`."""
    offered = outcomes.groupby(by, observed=True)["requests"].sum()
    accepted = outcomes[outcomes["cause"] == "accepted"].groupby(by, observed=True)["requests"].sum()
    return 100 * accepted.reindex(offered.index, fill_value=0) / offered


def gos_by_day(outcomes: pd.DataFrame, method: str) -> np.ndarray:
    """Grade of service of one method in percent, (n_seeds, n_days): what the bootstrap resamples."""
    table = gos(outcomes[outcomes["method"] == method], ["seed", "day"]).unstack("day")
    return table[list(dict.fromkeys(outcomes["day"]))].to_numpy()


def gos_by_day_as(outcomes: pd.DataFrame, method: str, measure: str) -> np.ndarray:
    """The same under another definition, (n_seeds, n_days) in percent.

    Args:
        outcomes: from `load_outcomes`.
        method: "sarl" or "amarl".
        measure: "requests" (the headline), "services" (mean over the services), "traffic" (share of the
            offered Mb/s times seconds) or "busy hour" (the hour of the day with most requests).
    """
    part = outcomes[outcomes["method"] == method]
    if measure == "services":
        table = gos(part, ["seed", "day", "service"]).groupby(["seed", "day"]).mean().unstack("day")
    elif measure == "traffic":
        table = gos(part.assign(requests=part["gigabit"]), ["seed", "day"]).unstack("day")
    elif measure == "busy hour":
        hourly = part.groupby(["seed", "day", "hour"])["requests"].sum()
        busiest = hourly.groupby(["seed", "day"]).idxmax()
        table = gos(part, ["seed", "day", "hour"]).loc[list(busiest)].droplevel("hour").unstack("day")
    else:
        return gos_by_day(outcomes, method)
    return table[list(dict.fromkeys(outcomes["day"]))].to_numpy()


# ------------------------------------------------------------------------------- training and timing
def load_progress(study: Study) -> pd.DataFrame:
    """Stack `progress.parquet` of all runs, with columns method and seed in front."""
    parts = [
        read_frame(study.run_folder(method, seed) / "progress.parquet").assign(method=method, seed=seed)
        for method, seed in product(METHODS, study.seeds)
    ]
    return pd.concat(parts, ignore_index=True)


def load_timing(study: Study) -> pd.DataFrame:
    """One row a run from its `timing.json`: method, seed, train_s, cpu_s, steps_per_s, peak_rss_mb ..."""
    rows = [
        {"method": method, "seed": seed, **read_json(study.run_folder(method, seed) / "timing.json")}
        for method, seed in product(METHODS, study.seeds)
    ]
    return pd.DataFrame(rows).drop(columns="by_agent", errors="ignore")


def load_duel(study: Study) -> pd.DataFrame:
    """Paired timings of the held-out days: columns repeat, method, seed, order, test_s, cpu_s."""
    duel = read_frame(study.folder / "duel.parquet")
    return duel[duel["seed"].isin(study.seeds)]


def load_audits(study: Study) -> pd.DataFrame:
    """Results of the audit: columns method, seed, day, variant, requests, violations, overbooked, peak."""
    return read_frame(study.folder / "audits.parquet")


def load_verdicts(study: Study, variant: str = "arrival3") -> pd.DataFrame:
    """Count rejected requests by verdict: columns method, seed, day, service, verdict, binding, requests."""
    verdicts = read_frame(study.folder / "verdicts.parquet")
    kept = (verdicts["variant"] == variant) & verdicts["day"].isin(study.days)
    is_rule = ~verdicts["method"].isin(METHODS)
    return verdicts[kept & (is_rule | verdicts["seed"].isin(study.seeds))].drop(columns="variant")


def load_sweep(study: Study) -> pd.DataFrame:
    """Read the sweep over commit orders, bounds and attempts; see `asynchrony.measure` for its columns."""
    sweep = read_frame(study.folder / "asynchrony.parquet")
    return sweep[sweep["seed"].isin(study.seeds)]


def load_forms(study: Study) -> pd.DataFrame:
    """Read the forms between SARL and AMARL; see `forms.serve_form` for its columns."""
    return read_frame(study.folder / "forms.parquet")


def load_masks(study: Study) -> pd.DataFrame:
    """Read the ablation of action masks; see `ablate_masks.mask_ablation` for its columns."""
    return _read_or_note(study, "masks", "masks")


def _read_or_note(study: Study, name: str, step: str) -> pd.DataFrame:
    """Read a record that a step writes; a study without it gives an empty frame with a note."""
    if (study.folder / f"{name}.parquet").exists():
        return read_frame(study.folder / f"{name}.parquet")
    empty = pd.DataFrame()
    command = f"python -m amarl_core.steps {step} {study.folder}"
    empty.attrs["note"] = f"Not measured in this study yet: `{command}` takes some minutes."
    return empty


def _robust(study: Study, name: str) -> pd.DataFrame:
    """Read one of the records of the step `robustness`."""
    frame = _read_or_note(study, name, "robustness")
    if frame.empty:
        return frame
    is_rule = ~frame["method"].isin(METHODS)
    return frame[frame["day"].isin(study.days) & (is_rule | frame["seed"].isin(study.seeds))]


def load_robustness(study: Study) -> pd.DataFrame:
    """Read what every method accepted under every shift; see `robustness.measure` for the columns."""
    return _robust(study, "robustness")


def load_sizes(study: Study) -> pd.DataFrame:
    """Read accepted and offered requests of ordinary days by class of request size."""
    return _robust(study, "robustness_sizes")


def load_drift(study: Study) -> pd.DataFrame:
    """Read flow-time over the latency bound of ordinary days; see `latency_drift`."""
    return _robust(study, "robustness_drift")


def load_bounds(study: Study) -> pd.DataFrame:
    """Read the upper bounds: columns day, weight, upper, primal, gap, covered ...; see `bound_day.DayBound`."""
    parts = [read_frame(path) for path in sorted((study.folder / "bounds").glob("*.parquet"))]
    bounds = pd.concat(parts, ignore_index=True)
    return bounds[bounds["day"].isin(study.days)]


def window_gos(progress: pd.DataFrame, points: int = 60, window: float = 0.08) -> pd.DataFrame:
    """Grade of service over training of all agents of a run together, against its wall-clock.

    At each time the increments of accepted and offered requests over the window before it are summed over
    the agents, so that an agent counts by its traffic.

    Args:
        progress: rows of one run from `load_progress`.
        points: number of times, equally spaced from the end of the first window to the last update.
        window: length of the window as a share of the run.

    Returns:
        Columns wall_s, gos (percent).
    """
    end = progress["wall_s"].max()
    times = np.linspace(window * end, end, points)  # (points,)
    offered, accepted = np.zeros(points), np.zeros(points)
    for _, rows in progress.groupby("agent"):
        wall = np.concatenate([[0.0], rows["wall_s"]])
        for total, column in ((offered, "requests"), (accepted, "accepted")):
            cumulative = np.concatenate([[0], rows[column]])
            total += np.interp(times, wall, cumulative) - np.interp(times - window * end, wall, cumulative)
    with np.errstate(invalid="ignore", divide="ignore"):
        return pd.DataFrame({"wall_s": times, "gos": 100 * accepted / offered}).dropna()
