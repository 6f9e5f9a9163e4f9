"""The shape of the package: imports point down, libraries stay where they belong, the audit stands alone."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "amarl_core"
LAYERS = [  # a module imports from its own layer and from those above it in this list
    {"errors", "files", "runs", "record_files"},
    {"tables", "settings", "topology", "services", "traffic", "traces", "scenario", "freeze",
     "checked_fields", "trace_mappings", "trace_presets", "trace_files", "trace_times", "trace_reports", "places",
     "draws", "bursts", "overlays", "overlaid", "request_tables", "volume_tables", "volumes", "demand_matrices",
     "raw_graph", "graph_attributes", "graph_files", "sndlib", "repetita", "simple_graph", "import_rules", "filling",
     "imported", "idle_routes", "load_size", "placement", "scenario_files", "makers", "generate", "trace_chunks"},
    {"native", "arrays", "prices", "reach", "store", "routing", "search", "inference", "arena", "departures", "gate",
     "rollout", "arrival", "clocks", "k_shortest", "rule_routes", "moves", "reoptimise", "rule_service", "label_heap",
     "window_plans", "turns", "telemetry", "stopwatch"},
    {"config", "ppo_update", "policy", "env", "teams", "agents", "simulation", "progress", "stock",
     "checkpoint", "boards", "actors", "shared_policies", "timeline", "peers"},
    {"baselines", "windows", "rule_play", "evaluation", "calibrate", "tune", "ablate_masks", "stats",
     "intervals", "effects",
     "bound_columns", "bound_interior", "bound_master", "bound_program", "bound_day", "bounds",
     "outages", "late_news", "recovery", "reaction", "long_runs", "carried"},
    {"transcript", "rules", "epochs", "replay", "walks", "ledger_rows", "lock_order", "audit", "outage_audit",
     "long_audit"},
    {"trials", "trial_kinds", "studies", "crews", "worklist", "findings"},
    {"oracle", "verdicts", "asynchrony", "forms", "actor_gain", "utilisation", "failures", "disruptions",
     "phases", "scaling", "growth", "limits", "performance", "latency_drift", "robustness", "scale"},
    {"look", "records", "plots", "failure_plots", "learning_plots", "paper", "study_tables", "seed_tables", "targets",
     "colophon", "export", "headline", "steps", "study", "live", "batch", "verdict_plots",
     "maps", "map_layout", "map_symbols", "hop_view", "hop_walk", "catalogue",
     "explore", "explore_plots", "background", "watch", "live_table", "live_curves", "live_cost",
     "field_plots", "async_plots", "mask_plots", "import_plots", "robust_verdict", "robust_plots", "fairness_plots",
     "actor_plots", "disruption_records", "disruption_plots", "reaction_plots",
     "time_to_gos", "perf_records", "perf_plots", "scale_plots", "large_plots",
     "soak", "kills", "victims", "integrity", "reliability"},
]  # fmt: skip
AUDIT = LAYERS[5]
PATHS = {path.stem: path for path in PACKAGE.rglob("*.py") if path.stem != "__init__"}
MODULES = sorted(PATHS)


def imported_names(module: str) -> set[str]:
    """Everything a module imports when it runs, as dotted names (imports for type checking only left out)."""
    tree = ast.parse(PATHS[module].read_text(encoding="utf-8"))
    guards = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    skipped = {id(inner) for guard in guards for inner in ast.walk(guard)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_modules(module: str) -> set[str]:
    """The modules of this package that a module imports."""
    parts = [name.split(".") for name in imported_names(module)]
    inside = [part[2:] if part[1:2] == ["foreign"] else part[1:] for part in parts if part[0] == "amarl_core"]
    return {words[0] for words in inside if words} & set(MODULES)


def test_a_name_belongs_to_one_module():
    """Modules are told apart by their names alone here, whatever folder they lie in."""
    assert len(PATHS) == len([path for path in PACKAGE.rglob("*.py") if path.stem != "__init__"])


def layer_of(module: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if module in layer)


def test_every_module_has_a_layer():
    homeless = [module for module in MODULES if not any(module in layer for layer in LAYERS)]
    assert not homeless, f"say in LAYERS where {homeless} belong"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    above = {name for name in imported_modules(module) if layer_of(name) > layer_of(module)}
    assert not above, f"{module} imports {sorted(above)} from a layer above its own"


def test_no_import_cycles():
    try:
        list(TopologicalSorter({module: imported_modules(module) for module in MODULES}).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {error.args[1]}")


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("ipywidgets", {"live", "explore"}),
        ("torch", {"policy", "ppo_update", "agents", "stock", "peers", "limits"}),  # stock: the untouched peer
        ("papermill", {"batch"}),
        (
            "matplotlib",
            {
                "look",
                "plots",
                "failure_plots",
                "learning_plots",
                "verdict_plots",
                "mask_plots",
                "import_plots",
                "actor_plots",
                "large_plots",
            },
        ),
        ("topohub", {"graph_files"}),
        ("defusedxml", {"graph_files", "demand_matrices"}),
    ],
)
def test_a_library_is_imported_only_where_it_belongs(library, allowed):
    users = {m for m in MODULES if any(name.split(".")[0] == library for name in imported_names(m))}
    assert users <= allowed


def test_the_audit_shares_nothing_with_the_simulator():
    simulator = LAYERS[2] | LAYERS[3]
    for module in sorted(AUDIT & set(MODULES)):
        assert not imported_modules(module) & simulator, module
        assert not any(name.split(".")[0] == "numba" for name in imported_names(module)), module


def test_library_code_never_prints():
    for module in set(MODULES) - {"batch"}:
        tree = ast.parse(PATHS[module].read_text(encoding="utf-8"))
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        lines = [call.lineno for call in calls if call.func.id == "print"]
        assert not lines, f"{module} prints at lines {lines}; use logging"
