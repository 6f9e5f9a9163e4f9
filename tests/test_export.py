"""Exported pages need no network, can be read without seeing the figures, and hold together on a phone."""

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from fake_study import shared_pages, shared_study

from amarl_core import export
from amarl_core.export import write_index

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip
PAGES = (
    "index",
    "00_quickstart",
    "10_explore_network_and_traffic",
    "20_train_sarl",
    "20_train_amarl",
    "30_gos_curves",
    "40_failure_causes",
    "50_baselines_and_bound",
    "60_asynchrony",
    "70_robustness",
    "75_failures",
    "80_performance",
    "85_scale_and_reliability",
    "90_reproduce_paper",
)


class Elements(HTMLParser):
    """Collects the elements of a page, each with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(params=PAGES)
def elements(request):
    return Elements((shared_pages() / f"{request.param}.html").read_text(encoding="utf-8"))


def test_a_page_has_no_script_and_nothing_from_elsewhere(elements):
    assert not elements.all("script") and not elements.all("link") and not elements.all("iframe")
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "srcset"):
            assert attributes.get(name, "data:").startswith("data:"), tag
        target = attributes.get("href", "#")
        assert target.startswith("#") or (shared_pages() / target).is_file(), target


def test_styles_load_nothing(elements):
    for path in shared_pages().glob("*.html"):
        for style in re.findall(r"<style>(.*?)</style>", path.read_text(encoding="utf-8"), re.DOTALL):
            assert "@import" not in style and "url(" not in style


def test_every_image_has_an_alternative_text(elements):
    images = elements.all("img")
    assert images
    assert all(len(image["alt"]) > 60 for image in images)


def test_every_map_says_what_it_is(elements):
    maps = elements.all("svg")
    assert all(drawn["role"] == "img" and len(drawn["aria-label"]) > 60 for drawn in maps)
    assert len([tag for tag, _ in elements.found if tag == "desc"]) == len(maps)


def test_a_page_has_a_language_a_title_and_one_main_heading(elements):
    assert elements.all("html")[0]["lang"] == "en"
    page_titles = [
        tag for tag, _ in elements.found[: [tag for tag, _ in elements.found].index("body")] if tag == "title"
    ]
    assert len(page_titles) == len(elements.all("h1")) == len(elements.all("main")) == 1
    assert elements.all("meta")[1]["name"] == "viewport"


def test_the_table_of_contents_leads_to_the_headings(elements):
    ids = {attributes["id"] for _, attributes in elements.found if "id" in attributes}
    targets = [a["href"][1:] for a in elements.all("a") if a.get("href", "").startswith("#")]
    headings = [h for h in elements.all("h2") if "id" in h]
    assert set(targets) <= ids and len(targets) == len(headings)


def test_question_and_answer_stand_before_everything_else():
    text = (shared_pages() / "90_reproduce_paper.html").read_text(encoding="utf-8")
    places = [text.index(part) for part in ("<h1", "Question.", "Answer.", "On this page", "<h2", "<img")]
    assert places == sorted(places)


def test_an_index_of_the_first_pages_says_that_the_rest_is_being_measured(tmp_path):
    waiting, whole = (
        write_index(str(shared_study()), [], tmp_path, "make reproduce", is_whole=is_whole).read_text(encoding="utf-8")
        for is_whole in (False, True)
    )
    assert "in 2.5 minutes; <strong>what goes beyond the paper is still being" in waiting
    assert "headline.json" not in waiting, "it is written last"
    assert "in 2.5 minutes, all of the study took 5.2. An independent audit" in " ".join(whole.split())
    assert "headline.json" in whole and "still being" not in whole


def test_the_index_leads_to_every_page_and_shows_headline_and_figures():
    text = (shared_pages() / "index.html").read_text(encoding="utf-8")
    answer, pages = text.split("<h2>Read more</h2>")
    assert answer.count("<img") == 2 and "AMARL against SARL" in answer
    cards = {card.split('"')[0]: card for card in pages.split('<li><a href="')[1:]}
    assert (
        set(cards) == {path.name for path in shared_pages().glob("*_*.html")} >= {f"{name}.html" for name in PAGES[1:]}
    )
    assert all(card.count("<span>") == card.count("<img") + card.count("<svg") == 1 for card in cards.values())
    assert text.index("AMARL against SARL") < text.index("Figure 2") < text.index("90_reproduce_paper.html")


def test_warnings_and_cells_for_the_lab_only_are_left_out(tmp_path):
    notebook = nbformat.v4.new_notebook()
    noisy = nbformat.v4.new_code_cell("x = '<&>'")
    noisy.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="a warning"),
        nbformat.v4.new_output("stream", name="stdout", text="1 < 2 & so on"),
    ]
    hidden = nbformat.v4.new_code_cell("secret = 1", metadata={"tags": [export.DROPPED_TAG]})
    notebook.cells = [nbformat.v4.new_markdown_cell("# T\n\n**Question.** Q?"), noisy, hidden]
    nbformat.write(notebook, tmp_path / "n.ipynb")
    made = export.export_page(tmp_path / "n.ipynb", tmp_path / "n.html", "command <x>", ": S")
    text = (tmp_path / "n.html").read_text(encoding="utf-8")
    assert made == export.Page("n.html", "T: S", "Q?")
    assert "a warning" not in text and "secret" not in text
    assert "1 &lt; 2 &amp; so on" in text and "command &lt;x&gt;" in text


def test_a_tagged_figure_stands_for_a_notebook_before_the_first():
    def shows(text, *tags):
        cell = nbformat.v4.new_code_cell("draw()", metadata={"tags": list(tags)})
        cell.outputs = [nbformat.v4.new_output("display_data", data={"text/html": text})]
        return cell

    plain, first = shows("<p>no figure</p>"), shows('<figure class="picture"><img alt="first"></figure>')
    tagged = shows('<figure class="picture"><div><svg><g/></svg><svg/></div></figure>', export.COVER_TAG)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# T"), plain, first])
    assert export.cover_of(notebook) == '<img alt="first">'
    notebook.cells[2] = shows('<figure class="picture"><source media="m" srcset="small"><img src="large" alt="first">')
    assert export.cover_of(notebook) == '<img src="small" alt="first">', "the one drawn for a phone"
    notebook.cells.append(tagged)
    assert export.cover_of(notebook) == "<svg><g/></svg>"
    assert export.cover_of(nbformat.v4.new_notebook(cells=[plain])) == ""


def test_a_failed_write_leaves_the_old_page(tmp_path):
    (tmp_path / "page.html").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        export.write_text(tmp_path / "page.html", "new \ud800")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "old"


@pytest.fixture(scope="module")
def browser():
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no browser at {CHROMIUM}: apt-get install chromium, or set CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as runner:
        chromium = runner.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("name", PAGES)
def test_a_browser_shows_the_page_without_sideways_scrolling(browser, name, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    troubles: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("request", lambda request: troubles.append(request.url) if request.url.startswith("http") else None)
    page.goto((shared_pages() / f"{name}.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = page.evaluate(
        "[...document.images].map(i => [i.complete && i.naturalWidth > 0, i.clientWidth, i.naturalWidth])"
    )
    assert all(drawn for drawn, _, _ in shown)
    # an image drawn at less than three quarters of its size has letters too small to read
    assert all(client > 0.75 * natural for _, client, natural in shown), json.dumps(shown)
    if width == 1200:  # on a phone a table scrolls in its own frame
        frames = "[...document.querySelectorAll('.scroll')].map(t => [t.scrollWidth - t.clientWidth, t.innerText])"
        assert not [text for cut, text in page.evaluate(frames) if cut > 0]
    assert not troubles
    page.close()


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("name", ["00_quickstart", "10_explore_network_and_traffic"])
def test_names_on_a_map_can_be_read_and_do_not_cover_each_other(browser, name, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto((shared_pages() / f"{name}.html").as_uri())
    boxes = page.evaluate(
        "[...document.querySelectorAll('svg.amarl-map')].map(map => [...map.querySelectorAll('text.am-label')]"
        ".map(text => text.getBoundingClientRect()).map(box => [box.left, box.top, box.right, box.bottom]))"
    )
    assert boxes and all(boxes)
    for labels in boxes:
        assert all(bottom - top >= 9 for _, top, _, bottom in labels)
        for i, a in enumerate(labels):
            for b in labels[:i]:
                assert min(a[2], b[2]) - max(a[0], b[0]) < 1 or min(a[3], b[3]) - max(a[1], b[1]) < 3, (a, b)
    page.close()


def test_code_is_hidden_until_asked_for_and_left_out_in_print(browser):
    page = browser.new_page()
    page.goto((shared_pages() / "30_gos_curves.html").as_uri())
    code = page.locator(".code").first
    assert not code.is_visible()
    page.get_by_text("show code").click()
    assert code.is_visible()
    page.emulate_media(media="print")
    assert not page.locator("nav.top").is_visible()
    page.close()
