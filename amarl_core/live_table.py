"""What the view of a live training says in HTML: its style, its table of agents, its notes and errors."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from amarl_core.config import TrainConfig
from amarl_core.look import clock, method_name, service_name
from amarl_core.simulation import AgentError
from amarl_core.watch import REQUESTS, Watch

WORDS = {
    "new": ("ready", "#5c6670"),
    "preparing": ("getting ready", "#8a6a12"),
    "training": ("training", "#0b5c8a"),
    "stopping": ("stopping", "#8a6a12"),
    "stopped": ("stopped", "#8a6a12"),
    "finished": ("finished", "#1d7a4f"),
    "failed": ("failed", "#b0303c"),
}
"""Of each state: how it is called, and its colour."""

MEASURES = (
    ("gos", "GoS, %", 1),
    ("reward", "reward", 3),
    ("steps_per_s", "steps/s", 0),
    ("conflicts", "conflicts, %", 2),
    ("staleness", "staleness, versions", 1),
    ("lag", "lag, min", 1),
)
"""Of each measure: its field in `watch.Measures`, its heading, its digits."""

CAPTION = (
    '<div class="note">By agent, in the colours of the table. A point looks back over 6 % of the time so far; lag is '
    "in minutes of simulated time.</div>"
)

NOTES = {
    "preparing": "Loading the traffic and the compiled kernels.",
    "stopped": "Stopped. The checkpoint holds everything: Resume goes on exactly from here, also after a restart.",
}
STYLE = """<style>
.amarl-live{font-family:system-ui,-apple-system,'Segoe UI',Arial,'Liberation Sans',sans-serif;
 color:var(--jp-content-font-color1,#222);line-height:1.4}
.amarl-live h4{margin:0;font-size:16px;font-weight:650}
.amarl-live .state{display:inline-block;margin-left:.6em;padding:1px 10px;border-radius:10px;color:#fff;
 font-size:12.5px;font-weight:600;vertical-align:2px}
.amarl-live .numbers{display:flex;flex-wrap:wrap;gap:.2em 1.6em;font-size:13.5px;font-variant-numeric:tabular-nums}
.amarl-live .numbers b{font-weight:650}
.amarl-live table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums;width:100%}
.amarl-live th{font-weight:600;text-align:right;padding:3px 10px;border-bottom:1.5px solid #8a8a8a;white-space:nowrap}
.amarl-live td,.amarl-live tbody th{text-align:right;padding:2.5px 10px;
 border-bottom:1px solid var(--jp-border-color2,#e3e3e3)}
.amarl-live th:first-child{text-align:left;font-weight:500}
.amarl-live .failed td,.amarl-live .failed th{background:#fbeaec;color:#6d1420;font-weight:650}
.amarl-live .scroll{overflow-x:auto}
.amarl-live .dot{display:inline-block;width:18px;height:4px;border-radius:2px;margin-right:8px;vertical-align:3px}
.amarl-live .error{border-left:5px solid #b0303c;background:#fbeaec;color:#6d1420;padding:8px 12px;font-size:14px}
.amarl-live .error b{font-weight:700}
.amarl-live .widget-html-content{line-height:1.45}
.amarl-live .note{color:var(--jp-content-font-color2,#5c6670);font-size:13px}
.amarl-live-card{background:#fff;border-radius:6px;overflow:hidden}
.amarl-live-card .note{color:#5c6670;font-size:12px}
</style>"""


def headline(config: TrainConfig, scenario: str, state: str) -> str:
    """Say what is trained and where it stands."""
    word, color = WORDS[state]
    title = f"{method_name(config.method)} on {html.escape(scenario)}, seed {config.seed}"
    return f'{STYLE}<h4>{title}<span class="state" role="status" style="background:{color}">{word}</span></h4>'


def numbers(watch: Watch) -> str:
    """Say how far the training is, how long it took and will take, and how fast it goes."""
    steps_per_s = watch.history.now().steps_per_s.sum()
    parts = [
        f"<b>{100 * watch.share:.1f} %</b>",
        f"day <b>{watch.day:.1f}</b> of {watch.days:.0f}",
        f"<b>{seconds(watch.history.wall_s)}</b> so far",
    ]
    if watch.share < 1 and np.isfinite(watch.left_s):
        parts.append(f"<b>{seconds(watch.left_s)}</b> left")
    parts.append(f"<b>{steps_per_s:,.0f}</b> steps/s")
    return f'<div class="numbers">{"".join(f"<span>{part}</span>" for part in parts)}</div>'


def table(watch: Watch, agents: Sequence[str], colors: Sequence[str], order: Sequence[int], failed: str) -> str:
    """Show every agent's measures over the last seconds.

    Args:
        watch: of the training.
        agents, colors: names of the agents, and of their lines in the curves.
        order: in which they stand.
        failed: the agent that failed, if one did.
    """
    now = watch.history.now()
    columns = {heading: [_number(v, digits) for v in getattr(now, name)[0]] for name, heading, digits in MEASURES}
    columns["requests"] = [f"{n:,.0f}" for n in watch.history.latest[:, REQUESTS]]
    columns["updates"] = [f"{n:,}" for n in watch.updates()]
    head = "".join(f'<th scope="col">{name}</th>' for name in ("agent", *columns))
    rows = []
    for a in order:
        name = service_name(agents[a]) if len(agents) > 1 else method_name(agents[a])
        mark = ' class="failed"' if agents[a] == failed else ""
        dot = f'<span class="dot" style="background:{colors[a]}"></span>'
        cells = "".join(f"<td>{column[a]}</td>" for column in columns.values())
        rows.append(f'<tr{mark}><th scope="row">{dot}{html.escape(name)}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table aria-label="Agents, over the last seconds"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def note(state: str, error: BaseException | None, train_s: float, view_s: float) -> str:
    """Say what a reader should know about a state: what failed and what to do, or how it ended."""
    if error is not None:
        return _failure(error)
    text = NOTES.get(state, "")
    if state == "finished":
        view = f" (the view took {view_s:.1f} s of processor time)" if view_s > 0 else ""
        text = f"Finished after {clock(train_s)} of training{view}. Run the cells below again for what it learned."
    return f'<div class="note">{text}</div>' if text else ""


def _failure(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    if not isinstance(error, AgentError):
        return f'<div class="error" role="alert"><b>Failed.</b> {html.escape(text)}</div>'
    agent, _, what = text.partition(":")
    return (
        f'<div class="error" role="alert"><b>Agent {html.escape(agent)} failed:</b> {html.escape(what.strip())}<br>'
        "The others were stopped. Resume goes on from the last checkpoint, or begins anew if there is none.</div>"
    )


def seconds(value: float) -> str:
    """Write seconds without a fraction: `48 s`, `0:12:30`."""
    return f"{value:.0f} s" if value < 120 else clock(value)


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}" if np.isfinite(value) else "–"
