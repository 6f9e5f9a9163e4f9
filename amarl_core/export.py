"""From an executed notebook to an HTML page that needs no network: text, figures, tables, foldable code.

Nothing in a page comes from elsewhere: no script at all, one style in the page itself, images as data.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
from jinja2 import Environment, FileSystemLoader
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from amarl_core.colophon import study_colophon
from amarl_core.failure_plots import failure_causes
from amarl_core.files import write_text
from amarl_core.paper import REFERENCE, gather, headline_table
from amarl_core.plots import figure_2
from amarl_core.records import load_study, seconds_to_paper
from amarl_core.targets import verdict

TEMPLATES = Path(__file__).resolve().parent / "templates"
DROPPED_TAG = "no-report"  # cells that make sense only in JupyterLab
ANSWER_TAG = "answer"  # the cell that answers the notebook's question
COVER_TAG = "cover"  # the cell whose figure stands for the notebook in the index
FIGURE = re.compile(r'<figure class="picture".*?(<img [^>]*>|<svg.*?</svg>)', re.DOTALL)
NARROW = re.compile(r'<source [^>]*srcset="([^"]*)"')


@dataclass(frozen=True)
class Page:
    """A page as the index lists it.

    Attributes:
        href: file name below `reports/`.
        title: heading of its notebook.
        question: the question that its notebook answers.
        cover: markup of one of its figures: of the cell tagged `cover`, else the first; empty if it has none.
    """

    href: str
    title: str
    question: str
    cover: str = ""


def describe(notebook: NotebookNode) -> tuple[str, str]:
    """Read title and question from a notebook's first cell.

    Returns:
        The first heading, and the text after "**Question.**".
    """
    text = notebook.cells[0].source
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    question = re.search(r"\*\*Question\.\*\* (.+?)(?:\n\n|$)", text, re.DOTALL)
    return title[1] if title else "Notebook", " ".join(question[1].split()) if question else ""


def export_page(notebook_path: Path, page_path: Path, command: str, title_suffix: str = "") -> Page:
    """Write an executed notebook as an offline page.

    Args:
        notebook_path: the executed notebook.
        page_path: the page to write.
        command: the command that makes the page, for its last line.
        title_suffix: appended to the title, where one notebook gives several pages.

    Returns:
        The page, for the index.
    """
    notebook = nbformat.read(notebook_path, as_version=4)
    title, question = describe(notebook)
    title += title_suffix
    notebook.cells = [cell for cell in notebook.cells if DROPPED_TAG not in cell.metadata.get("tags", [])]
    notebook.cells[0].source = f"# {title}\n\n**Question.** {question}"
    # the answer stands on top, also where it takes the whole notebook to find it
    notebook.cells[1:] = sorted(notebook.cells[1:], key=lambda cell: ANSWER_TAG not in cell.metadata.get("tags", []))
    exporter = HTMLExporter(
        template_name="offline", extra_template_basedirs=[str(TEMPLATES)], exclude_anchor_links=True
    )
    facts = {
        "title": title,
        "toc": _mark_headings(notebook),
        "css": _style(),
        "command": command,
        "date": _today(),
    }
    body, _ = exporter.from_notebook_node(notebook, resources={"page": facts})
    write_text(page_path, body)
    return Page(page_path.name, title, question, cover_of(notebook))


def cover_of(notebook: NotebookNode) -> str:
    """Return the markup of the figure that stands for a notebook, for the index."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in sorted(cells, key=lambda cell: COVER_TAG not in cell.metadata.get("tags", [])):
        for output in cell.outputs:
            drawn = FIGURE.search("".join(output.get("data", {}).get("text/html", "")))
            if drawn:
                narrow = NARROW.search(drawn[0])  # a card is as narrow as a phone
                return drawn[1] if narrow is None else re.sub(r' src="[^"]*"', f' src="{narrow[1]}"', drawn[1])
    return ""


def _mark_headings(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Give each second-level heading an id, and say after which cell the table of contents stands."""
    contents: list[tuple[str, str]] = []

    def mark(heading: re.Match[str]) -> str:
        contents.append((f"section-{len(contents) + 1}", heading[1]))
        return f'<h2 id="{contents[-1][0]}">{heading[1]}</h2>\n'

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"^## (.+)$", mark, cell.source, flags=re.MULTILINE)
    answers = [cell for cell in notebook.cells if ANSWER_TAG in cell.metadata.get("tags", [])]
    (answers or notebook.cells)[0].metadata["toc_after"] = True
    return contents


def _style() -> str:
    return (TEMPLATES / "offline" / "page.css").read_text(encoding="utf-8")


def _today() -> str:
    return time.strftime("%Y-%m-%d %H:%M")


def write_index(study_name: str, pages: Sequence[Page], reports: Path, command: str, is_whole: bool = True) -> Path:
    """Write `index.html`: the headline table, the two main figures, and the way to the pages.

    Args:
        study_name: the study that the pages show.
        pages: pages in the order of the list.
        reports: folder of the pages.
        command: the command that made all this.
        is_whole: whether nothing of the study is still being measured.

    Returns:
        The path of the index.
    """
    study = load_study(study_name)
    evidence = gather(study)
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    text = environment.get_template("offline/landing.html.j2").render(
        title="One agent per service, or one for all?",
        reference=REFERENCE,
        verdict=verdict(evidence),
        headline=headline_table(evidence),
        pictures=[figure_2(evidence.arrival3), failure_causes(evidence.arrival3)],
        pages=pages,
        study=study,
        minutes=f"{seconds_to_paper(study) / 60:.1f}",
        total_minutes=f"{study.info['seconds'] / 60:.1f}",
        is_whole=is_whole,
        audited=len(evidence.audits),
        colophon=study_colophon(study),
        css=_style(),
        command=command,
        date=_today(),
    )
    write_text(reports / "index.html", text)
    return reports / "index.html"
