"""The command line: run a notebook and export its page, reproduce the whole study, or do a study of your own.

python -m amarl_core.batch run 30_gos_curves -p study quick
python -m amarl_core.batch reproduce --profile quick
python -m amarl_core.batch study                    the studies there are
python -m amarl_core.batch study seeds --jobs 2     do one of them, or go on with it
python -m amarl_core.batch pages --study quick      the pages of a study that exists
python -m amarl_core.batch figures --study quick    Figures 2 and 3 and the headline table, for the README
"""

from __future__ import annotations

import argparse
import ast
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import nbformat
from traitlets.config import Config

from amarl_core.errors import AmarlError, RunError
from amarl_core.files import storing, sweep_one, write_text, write_whole
from amarl_core.runs import usable_cores

PAPER_PAGES = ("90_reproduce_paper", "30_gos_curves", "40_failure_causes", "50_baselines_and_bound")
"""Pages that are made first, while what goes beyond the paper is not measured yet."""

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
REPORTS = ROOT / "reports"


@dataclass(frozen=True)
class Job:
    """One page to make.

    Attributes:
        notebook: its name, without folder and suffix.
        parameters: values that differ from the notebook's own.
    """

    notebook: str
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """The method that the notebook shows, if it shows one: it then gives a page for each."""
        return self.parameters.get("method", notebook_parameters(notebook_path(self.notebook)).get("method", ""))

    @property
    def page(self) -> str:
        """Name of the page."""
        return f"{self.notebook}_{self.method}.html" if self.method else f"{self.notebook}.html"

    @property
    def command(self) -> str:
        """The command that makes this page."""
        options = "".join(f" -p {name} {value}" for name, value in self.parameters.items())
        return f"python -m amarl_core.batch run {self.notebook}{options}"


def study_jobs(study: str, scenario: str, seed: int) -> list[Job]:
    """List the pages of a study, in the order of the index."""
    reading = {"study": study}
    training = {"scenario": scenario, "seed": seed, **reading}
    return [
        Job("00_quickstart", {"scenario": scenario, "seed": seed}),
        Job("10_explore_network_and_traffic", training),
        Job("90_reproduce_paper", reading),
        Job("30_gos_curves", reading),
        Job("40_failure_causes", reading),
        Job("50_baselines_and_bound", reading),
        Job("60_asynchrony", reading),
        Job("70_robustness", reading),
        Job("75_failures", reading),
        Job("80_performance", reading),
        Job("85_scale_and_reliability", reading),
        *(Job("20_train", {"method": method, **training}) for method in ("sarl", "amarl")),
    ]


# ---------------------------------------------------------------------------------- notebooks and parameters
def notebook_path(name: str) -> Path:
    """Find a notebook by its name, with or without the suffix.

    Raises:
        RunError: there is none of that name; the message lists those there are.
    """
    path = NOTEBOOKS / f"{Path(name).stem}.ipynb"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in NOTEBOOKS.glob("*.ipynb")))
        raise RunError(f"there is no notebook {name!r}; expected one of {known}")
    return path


def notebook_parameters(path: Path) -> dict[str, Any]:
    """Read names and defaults from a notebook's parameters cell, which holds literals only."""
    cells = [c for c in nbformat.read(path, as_version=4).cells if "parameters" in c.metadata.get("tags", [])]
    if len(cells) != 1:
        raise RunError(f"{path.name} has {len(cells)} cells tagged parameters; expected 1")
    statements = ast.parse(cells[0].source).body
    return {s.targets[0].id: ast.literal_eval(s.value) for s in statements if isinstance(s, ast.Assign)}


def check_parameters(path: Path, given: dict[str, Any]) -> None:
    """Refuse a parameter that the notebook does not have, or that is of another type than its default.

    Raises:
        RunError: with the valid names and their defaults.
    """
    valid = notebook_parameters(path)
    listing = ", ".join(f"{name} = {default!r}" for name, default in valid.items())
    for name, value in given.items():
        if name not in valid:
            raise RunError(f"{path.stem} has no parameter {name!r}; valid are {listing}")
        kind = type(valid[name])
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (isinstance(value, kind) and (kind is bool) == isinstance(value, bool) or kind is float and is_number):
            raise RunError(f"{path.stem}: parameter {name} is {value!r}; expected {kind.__name__}, as {valid[name]!r}")


def parse_value(text: str) -> Any:
    """Read a parameter's value as a Python literal, and otherwise as the text itself."""
    word = {"true": "True", "false": "False"}.get(text, text)
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return text


# ------------------------------------------------------------------------------------------------- running
def run_job(job: Job, reports: Path) -> tuple[Any, float]:
    """Run a notebook in a fresh kernel and export its page.

    Args:
        job: the page to make.
        reports: folder of the pages.

    Returns:
        The page (`export.Page`) and the seconds it took.

    Raises:
        RunError: a cell failed; the notebook with its traceback is kept beside the pages.
    """
    path = notebook_path(job.notebook)
    check_parameters(path, job.parameters)
    import papermill  # slow to import, as is all that draws

    from amarl_core.export import export_page

    page = reports / job.page
    with storing(reports):  # now, not after a minute of work
        reports.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        executed = Path(folder) / path.name
        try:
            with _stderr_to(Path(folder) / "kernel.log"):
                papermill.execute_notebook(
                    str(path),
                    str(executed),
                    parameters=job.parameters,
                    cwd=str(ROOT),
                    kernel_name="python3",
                    language="python",
                    # a kernel that listens on files of its own: ports could be reached, and taken, by others
                    config=Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}}),
                    progress_bar=False,
                    log_output=False,
                )
        except papermill.PapermillExecutionError as error:
            kept = page.with_suffix(".failed.ipynb")
            write_whole(kept, lambda file: file.write(executed.read_bytes()))
            raise RunError(
                f"{path.stem} failed in cell {error.exec_count}: {error.ename}: {error.evalue} (the "
                f"notebook with its traceback: {kept})"
            ) from None
        except RuntimeError as error:  # the kernel died, or did not start
            said = (Path(folder) / "kernel.log").read_text(encoding="utf-8")[-2000:]
            raise RunError(f"{path.stem}: {error}. The kernel's last words:\n{said}") from error
        result = export_page(executed, page, job.command, f": {job.method.upper()}" if job.method else "")
    page.with_suffix(".failed.ipynb").unlink(missing_ok=True)
    return result, time.perf_counter() - begun


@contextmanager
def _stderr_to(path: Path) -> Iterator[None]:
    """Keep what kernels say as they start and stop off the terminal; a cell's errors are in the notebook."""
    terminal = os.dup(2)
    try:
        with path.open("w") as file:
            os.dup2(file.fileno(), 2)
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def make_pages(jobs: Sequence[Job], reports: Path) -> list[Any]:
    """Make pages, as many at once as there are cores, each in its own process; a line as each is done."""
    for job in jobs:
        check_parameters(notebook_path(job.notebook), job.parameters)
    pages: dict[int, Any] = {}
    workers = joblib.Parallel(n_jobs=min(usable_cores(), len(jobs)), return_as="generator_unordered")
    for number, page, seconds in workers(joblib.delayed(_numbered)(n, job, reports) for n, job in enumerate(jobs)):
        pages[number] = page
        say(f"[{len(pages)}/{len(jobs)}] {page.href} ... {seconds:.0f} s")
    return [pages[number] for number in range(len(jobs))]


def _numbered(number: int, job: Job, reports: Path) -> tuple[int, Any, float]:
    return number, *run_job(job, reports)


def say(line: str) -> None:
    """Print a line of progress at once."""
    print(line, flush=True)


# ------------------------------------------------------------------------------------------------ commands
def reproduce(profile: str, study: str, reports: Path) -> None:
    """Train, test and audit everything (finished runs are loaded), then make all pages and the index."""
    from amarl_core.headline import write_headline
    from amarl_core.study import PROFILES, run_study

    if profile not in PROFILES:
        raise RunError(f"there is no profile {profile!r}; expected one of {', '.join(PROFILES)}")
    begun, command = time.perf_counter(), f"make reproduce{'' if profile == 'full' else f' PROFILE={profile}'}"

    def show(folder: Path, first: bool = False) -> str:
        index = pages(study if reports == REPORTS else str(folder), reports, command, PAPER_PAGES if first else ())
        return os.path.relpath(index)

    def show_paper(folder: Path) -> None:
        say(f"What the paper compares was done in {time.perf_counter() - begun:.0f} s; its pages")
        say(f"Open {show(folder, first=True)}. What goes beyond the paper is measured now")

    say(f"Study {study!r}, profile {profile}: training, tests and audit")
    is_short = profile == "smoke"  # its pages would take longer than all of it
    folder = run_study(profile, study, root=reports / "runs", at_paper=None if is_short else show_paper)
    say(f"Study done in {time.perf_counter() - begun:.0f} s; pages")
    write_headline(folder, reports)
    say(f"Open {show(folder)}. Done in {time.perf_counter() - begun:.0f} s")


def pages(study_name: str, reports: Path, command: str, only: Sequence[str] = ()) -> Path:
    """Make the pages of a study that exists, all or only those of some notebooks, and the index."""
    from amarl_core.export import write_index
    from amarl_core.records import load_study

    study = load_study(study_name)
    jobs = study_jobs(study_name, study.info["scenario"], study.seeds[0])
    made = make_pages([job for job in jobs if not only or job.notebook in only], reports)
    return write_index(study_name, made, reports, command, is_whole=not only)


def figures(study_name: str, folder: Path) -> list[Path]:
    """Write Figures 2 and 3 as PNG, and the headline table and the targets as Markdown, for the README."""
    from amarl_core.failure_plots import failure_causes
    from amarl_core.paper import gather, headline_table
    from amarl_core.plots import figure_2
    from amarl_core.records import load_study
    from amarl_core.targets import targets_table

    evidence = gather(load_study(study_name))
    written = []
    pictures = {"figure_2": figure_2(evidence.arrival3), "figure_3": failure_causes(evidence.arrival3)}
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
        written.append(folder / f"{name}.png")
    for name, table in {"headline": headline_table(evidence), "targets": targets_table(evidence)}.items():
        written.append(folder / f"{name}.md")
        write_text(written[-1], f"{table.markdown()}\n{table.caption}\n")
    return written


def do_study(name: str | None, reports: Path, jobs: int | None, backend: str, scheduler: str | None) -> int:
    """Do what is not done yet of a study, or list the studies there are; return the exit code."""
    from amarl_core.runs import RunFolder
    from amarl_core.studies import known_studies, read_study
    from amarl_core.worklist import run

    if name is not None:
        report = run(read_study(name), reports / "runs", jobs=jobs, backend=backend, scheduler=scheduler)
        say(report.summary())
        return 0 if report.ok else 1
    for known in known_studies():
        study = read_study(known)
        done = [trial for trial in study.trials if RunFolder(study.folder(reports / "runs") / trial.place).is_finished]
        say(f"{known:<12} {len(done):>4} of {len(study.trials):>4} trials finished   {study.question}")
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(prog="python -m amarl_core.batch", description=__doc__.splitlines()[0])
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run one notebook with parameters and export its page")
    run.add_argument("notebook", help="such as 30_gos_curves")
    run.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    whole = commands.add_parser("reproduce", help="train, test, audit and report everything")
    whole.add_argument("--profile", default="full", help="full (default), quick or smoke")
    whole.add_argument("--study", help="name of the run folder; by default the profile's name")
    trials = commands.add_parser("study", help="do a study of data/studies or of a TOML file; without NAME list them")
    trials.add_argument("name", nargs="?", metavar="NAME", help="name in data/studies, or a TOML file")
    trials.add_argument("--jobs", type=int, help="processes at once (default: one a core; 0: none but this one)")
    trials.add_argument("--backend", default="local", help="local (default) or dask")
    trials.add_argument("--scheduler", help="address of a Dask scheduler, such as tcp://127.0.0.1:8786")
    again = commands.add_parser("pages", help="make the pages of a study again, from its records")
    again.add_argument("--study", default="full")
    pictures = commands.add_parser("figures", help="write the README's figures and table to reports/figures")
    pictures.add_argument("--study", default="full")
    for command in (run, whole, trials, again):
        command.add_argument("--reports", type=Path, default=REPORTS, help="folder of pages and runs")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code, and print a mistake as one line."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level="INFO", format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("papermill").setLevel("WARNING")
    for left in getattr(options, "reports", REPORTS).glob(".*.tmp"):  # of a call that was killed
        sweep_one(left)
    try:
        if options.command == "run":
            given = {name: parse_value(value) for name, value in options.parameter}
            job = Job(notebook_path(options.notebook).stem, given)
            page, seconds = run_job(job, options.reports)
            say(f"{options.reports / page.href} ... {seconds:.0f} s")
        elif options.command == "reproduce":
            reproduce(options.profile, options.study or options.profile, options.reports)
        elif options.command == "study":
            return do_study(options.name, options.reports, options.jobs, options.backend, options.scheduler)
        elif options.command == "pages":
            say(
                str(
                    pages(
                        options.study,
                        options.reports,
                        f"python -m amarl_core.batch pages --study {options.study}",
                    )
                )
            )
        else:
            for path in figures(options.study, REPORTS / "figures"):
                say(f"{os.path.relpath(path)}  {path.stat().st_size // 1000} kB")
    except AmarlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # of a library's own writing, such as temporary files
        print(f"error: {error}; make room, or set TMPDIR to a folder that can be written", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; finished runs are kept and will be loaded by the next call", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
