"""Slides and report: what is on them, what is not, and that nothing is fetched from anywhere."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sarmatch.experiments.notebooks import list_notebooks
from sarmatch.experiments.present import for_slides, make_report, make_slides

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABh6FO1AAAAABJRU5ErkJggg=="


def cell(kind: str, text: str, *outputs, code: bool = False):
    make = new_code_cell if code else new_markdown_cell
    more = {"outputs": list(outputs)} if code else {}
    return make(text, metadata={"slideshow": {"slide_type": kind}}, **more)


def printed(text: str):
    return new_output("stream", name="stdout", text=text)


def picture():
    return new_output("display_data", {"image/png": PNG, "text/plain": "<Figure>"})


@pytest.fixture
def notebook(tmp_path):
    cells = [
        cell("slide", "# Title of it\n\nOne line with $W_1$ & $\\frac{a}{b}$, and `$x$`."),
        cell("skip", "nobody sees this"),
        cell("slide", "read_it_all()", printed("loaded 400 <tiles>"), code=True),
        cell("fragment", "## The question"),
        cell("fragment", "plot_it_all()", printed("recall 0.25"), picture(), code=True),
        cell("fragment", "panel()", new_output("display_data", {"text/plain": "Panel()"}), code=True),
        cell("subslide", "## More\n\nSee [the next](02_b.ipynb) and [another](77_z.ipynb)."),
    ]
    path = tmp_path / "01_a.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def fetched(page: str) -> list[str]:
    """Whatever a browser would load while it shows a page."""
    page = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)  # inside is a library that is bundled
    found = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="([^"]+)"|<link[^>]*href="([^"]+)"', page)
    return [a or b for a, b in found if not (a or b).startswith("data:")] + re.findall(
        r"@import|url\(\s*['\"]?http", page
    )


class TestSlides:
    def test_printouts_go_to_the_speaker_and_code_to_nobody(self, notebook, tmp_path):
        page = make_slides(notebook, tmp_path / "a.html").read_text()
        notes = re.findall(r'<aside class="notes">(.*?)</aside>', page, flags=re.DOTALL)
        assert "loaded 400 &lt;tiles&gt;" in notes[0]
        assert "recall 0.25" in notes[1]
        slides = re.sub(r'<aside class="notes">.*?</aside>', "", page, flags=re.DOTALL)
        for absent in ("nobody sees this", "read_it_all()", "recall 0.25", "Panel()"):
            assert absent not in slides, absent
        assert PNG in slides

    def test_a_slide_begins_where_it_should(self, notebook):
        kinds = [c.metadata["slideshow"]["slide_type"] for c in for_slides(nbformat.read(notebook, 4)).cells]
        assert kinds == ["slide", "notes", "slide", "fragment", "notes", "subslide"]

    def test_nothing_is_fetched_and_reveal_is_inside(self, notebook, tmp_path):
        page = make_slides(notebook, tmp_path / "a.html").read_text()
        assert fetched(page) == []
        assert "Reveal.initialize" in page
        assert page.count("<section") == page.count("</section>") >= 3
        assert "RevealNotes" in page

    def test_formulas_are_pictures_and_other_dollars_are_not(self, notebook, tmp_path):
        page = make_slides(notebook, tmp_path / "a.html").read_text()
        assert re.findall(r'<img alt="([^"]+)" class="formula"', page) == ["W_1", "\\frac{a}{b}"]
        assert "and <code>$x$</code>" in page

    def test_of_a_real_notebook(self, tmp_path):
        path = list_notebooks()[0]
        page = make_slides(path, tmp_path / "real.html").read_text()
        assert fetched(page) == []
        held = nbformat.read(path, 4).cells
        pictures = sum("image/" in str(list(o.get("data", {}))) for c in held for o in c.get("outputs", []))
        shown = len(re.findall(r'<img[^>]*src="data:image/(?:png|jpeg)', page))
        assert 0 < shown <= pictures


class TestReport:
    def test_chapters_contents_and_links(self, notebook, tmp_path):
        other = tmp_path / "02_b.ipynb"
        nbformat.write(new_notebook(cells=[new_markdown_cell("# Second <b>\n\n## The question")]), other)
        page = make_report([notebook, other], tmp_path / "report.html").read_text()
        assert fetched(page) == []
        contents = page[: page.index("</nav>")]
        assert "Title of it" in contents
        anchors = re.findall(r'href="#([^"]+)"', page)
        ids = re.findall(r'\bid="([^"]+)"', page)
        assert len(ids) == len(set(ids)), "two chapters have a heading of one name"
        assert set(anchors) <= set(ids), "a link that leads nowhere"
        assert 'href="#02_b"' in page
        assert 'href="77_z.ipynb"' in page, "a notebook that is not in the report"
        assert "recall 0.25" in page, "printouts belong to a report"
        assert "plot_it_all()" not in page

    def test_what_is_no_notebook_is_named(self, tmp_path):
        (tmp_path / "x.ipynb").write_text("{")
        for make in (lambda p: make_report([p], tmp_path / "o.html"), lambda p: make_slides(p, tmp_path / "o.html")):
            with pytest.raises(ValueError, match=r"x\.ipynb: not readable as a notebook"):
                make(tmp_path / "x.ipynb")
        with pytest.raises(ValueError, match="no notebook"):
            make_report([], tmp_path / "o.html")
        assert not (tmp_path / "o.html").exists()
