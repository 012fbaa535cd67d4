"""Notebooks to show: slides and one report, each a single HTML file that needs no network.

Both are made of the outputs that are kept in the notebooks, and execute nothing.
"""

import base64
import html
import io
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import nbformat
from matplotlib.mathtext import math_to_image
from nbconvert import HTMLExporter, SlidesExporter
from nbformat import NotebookNode

from sarmatch.atomic_io import write

REVEAL = Path(__file__).parent / "reveal"
PREFIX = "reveal"  # stands for the address of reveal.js until its files are put into the page
FORMULA = re.compile(r"(?<![\\$`])(\$\$?)(?=[^\s$])([^$`]+?)(?<=[^\s$\\])\1(?!\d)")
#: What matplotlib calls otherwise, or sets without being told: patterns, and what they become.
OTHER_WORDS = {
    r"\\[lr]Vert(?![a-z])": r"\\|",
    r"\\[bB]ig(?![a-z])": "",
    r"\\text(?=\{)": r"\\mathrm",
    r"\\mathrm\{([^}]*)\}": lambda found: found[0].replace(" ", r"\ "),
    r"_(\\mathrm\{[^}]*\})": r"_{\1}",
    r"\\t?frac(\w)(\w)": r"\\frac{\1}{\2}",
}
STARTS = ("slide", "subslide")

SLIDE_STYLE = """<style>
.reveal { font-size: 26px } .reveal h1 { font-size: 1.7em } .reveal h2 { font-size: 1.3em }
.reveal .slides section { text-align: left; max-height: 100%; overflow-y: auto }
.reveal img { max-height: 470px; max-width: 100% } .reveal img.formula { max-height: none; margin: 0; zoom: 1.7 }
.reveal h1, .reveal h2, .reveal h3 { text-transform: none }
.reveal .jp-InputPrompt, .reveal .jp-OutputPrompt { display: none }
.reveal table { font-size: 0.65em }
</style>"""
START = """<script>
Reveal.initialize({controls: true, progress: true, hash: true, slideNumber: "c/t", transition: "none",
                   width: 1160, height: 720, plugins: [RevealNotes]});
</script>"""
REPORT_STYLE = """<style>
body { font: 16px/1.5 sans-serif; max-width: 60em; margin: auto; padding: 1em; color: #222 }
img { max-width: 100% } img.formula { vertical-align: middle; zoom: 1.2 }
pre { overflow-x: auto; background: #f6f6f6; padding: .6em }
table { border-collapse: collapse; font-size: .85em } td, th { padding: .15em .6em; border-bottom: 1px solid #ddd }
article { border-top: 3px solid #0072B2; margin-top: 3em } a.anchor-link { display: none }
@media print { article { break-before: page } }
</style>"""


def make_slides(path: Path, out: Path) -> Path:
    """Slides of a notebook, by the slide types of its cells.

    Code and printouts are left out; what a cell printed is in the speaker notes of its slide (key S).

    Parameters
    ----------
    path
        An executed notebook.
    out
        The page, HTML.

    Raises
    ------
    ValueError
        Where the file is no notebook, or has no cell to show.
    """
    exporter = SlidesExporter(exclude_input=True, reveal_url_prefix=PREFIX, reveal_theme="white")
    page, _ = exporter.from_notebook_node(for_slides(_read(path)), {"metadata": {"name": path.stem}})
    write(out, lambda p: p.write_text(_offline(page), encoding="utf-8"))
    return out


def make_report(paths: Sequence[Path], out: Path) -> Path:
    """Notebooks as the chapters of one page, with a page of contents; code is left out.

    Parameters
    ----------
    paths
        Executed notebooks, in their order.
    out
        The page, HTML.

    Raises
    ------
    ValueError
        Where there is no notebook, or a file is none.
    """
    if not paths:
        raise ValueError("no notebook to report on")
    known = {path.name: path.stem for path in paths}
    chapters, contents = [], []
    for path in paths:
        notebook = _with_formulas(_read(path))
        exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_output_prompt=True)
        body, _ = exporter.from_notebook_node(notebook)
        chapters.append(f'<article id="{html.escape(path.stem)}">{_own_anchors(body, path.stem, known)}</article>')
        contents.append(_entry(path.stem, body))
    page = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>sarmatch: report</title>'
        f"{REPORT_STYLE}</head><body><nav><h1>Contents</h1><ol>{''.join(contents)}</ol></nav>{''.join(chapters)}</body></html>"
    )
    write(out, lambda p: p.write_text(page, encoding="utf-8"))
    return out


def for_slides(notebook: NotebookNode) -> NotebookNode:
    """The cells that are shown: printouts become speaker notes, and what then shows nothing is left out.

    A slide that would have begun with a cell that is left out begins with the next one.
    """
    shown: list[NotebookNode] = []
    waiting: str | None = None
    for cell in _with_formulas(notebook).cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type", "-")
        if kind == "skip":
            continue
        printed = "".join(o.text for o in cell.get("outputs", []) if o.output_type == "stream")
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.output_type != "stream" and _has_picture_or_table(o)]
            if not cell.outputs:
                waiting = kind if kind in STARTS else waiting
                shown += _notes(printed) if shown else []
                continue
        if waiting and kind not in STARTS:
            cell.metadata["slideshow"] = {"slide_type": waiting}
        waiting = None
        shown += [cell, *_notes(printed)]
    return nbformat.v4.new_notebook(cells=shown, metadata=notebook.metadata)


def _has_picture_or_table(output: NotebookNode) -> bool:
    """Whether there is something to see without a kernel: a widget has nothing."""
    return any(kind.startswith("image/") or kind == "text/html" for kind in output.get("data", {}))


def _notes(printed: str) -> list[NotebookNode]:
    if not printed.strip():
        return []
    text = f"<pre>{html.escape(printed)}</pre>"
    return [nbformat.v4.new_markdown_cell(text, metadata={"slideshow": {"slide_type": "notes"}})]


def _read(path: Path) -> NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: not readable as a notebook ({error})") from error


def _with_formulas(notebook: NotebookNode) -> NotebookNode:
    """A copy in which formulas of text cells are pictures, so that no script has to set them."""
    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = FORMULA.sub(lambda found: _formula(found[2].strip()), cell.source)
    return notebook


@cache
def _formula(formula: str) -> str:
    """A picture of a formula; as it was written where matplotlib cannot set it."""
    file, words = io.BytesIO(), formula
    for theirs, ours in OTHER_WORDS.items():
        words = re.sub(theirs, ours, words)
    try:
        math_to_image(f"${words}$", file, format="svg")
    except (ValueError, RuntimeError):
        return f"<code>{html.escape(formula)}</code>"
    picture = base64.b64encode(file.getvalue()).decode()
    return f'<img class="formula" alt="{html.escape(formula)}" src="data:image/svg+xml;base64,{picture}">'


def _offline(page: str) -> str:
    """A page of slides with reveal.js inside, and nothing that would be fetched."""
    page = re.sub(r"<script[^>]*\ssrc=[^>]*>\s*</script>", "", page)
    page = re.sub(r'<script type="(?:module|text/x-mathjax-config)">.*?</script>', "", page, flags=re.DOTALL)
    for name in ("reveal", "theme/white"):
        style = (REVEAL / f"{name.rpartition('/')[2]}.css").read_text()
        link = re.compile(rf'<link [^>]*{PREFIX}/dist/{name}\.css"[^>]*>')
        for found in link.findall(page):
            page = page.replace(found, f"<style>{style}</style>")
    head, _, tail = page.rpartition("<script>")
    scripts = "".join(f"<script>{(REVEAL / name).read_text()}</script>" for name in ("reveal.js", "notes.js"))
    rest = tail.partition("</script>")[2]
    return head.replace("</head>", f"{SLIDE_STYLE}</head>", 1) + scripts + START + rest


def _own_anchors(body: str, stem: str, known: dict[str, str]) -> str:
    """Anchors of a chapter that no other chapter has, and links to other notebooks as links to their chapters."""
    body = re.sub(r'\bid="([^"]+)"', rf'id="{stem}--\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{stem}--\1"', body)
    return re.sub(r'href="([\w.-]+\.ipynb)"', lambda m: f'href="#{known[m[1]]}"' if m[1] in known else m[0], body)


def _entry(stem: str, body: str) -> str:
    """A chapter of the contents: its title, and the headings in it."""
    headings = re.findall(r'<h([12])[^>]*\bid="([^"]+)"[^>]*>(.*?)</h\1>', body, flags=re.DOTALL)
    words = [(level, anchor, re.sub(r"<a class=.anchor-link.*?</a>", "", text)) for level, anchor, text in headings]
    title = next((text for level, _, text in words if level == "1"), html.escape(stem))
    inner = "".join(f'<li><a href="#{stem}--{anchor}">{text}</a></li>' for level, anchor, text in words if level == "2")
    return f'<li><a href="#{html.escape(stem)}">{title}</a><ul>{inner}</ul></li>'
