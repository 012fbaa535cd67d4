"""The rules that every notebook keeps, and what it says when it is run again.

Static rules read the committed file, outputs included. Tests marked `notebook` execute it in the quick profile.
"""

import ast
import base64
import io
import math
import re
import tempfile
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from PIL import Image

from sarmatch.experiments.notebooks import execute, execute_all, list_notebooks, record_metrics, recorded
from sarmatch.paths import ROOT

NOTEBOOKS = list_notebooks()
READINGS = ("**What you should see**", "**How to read it.**")
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@cache
def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def prose(path: Path) -> str:
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def text_of(cell: nbformat.NotebookNode) -> str:
    """All text that a code cell put out."""
    streams = [out.text for out in cell.outputs if out.output_type == "stream"]
    return "\n".join([*streams, *(out.data.get("text/plain", "") for out in cell.outputs if "data" in out)])


def has_picture(cell: nbformat.NotebookNode) -> bool:
    return any(kind.startswith("image/") for out in cell.get("outputs", []) for kind in out.get("data", {}))


def is_printed(number: str, text: str) -> bool:
    """Whether a number stands in a text, there perhaps with more digits."""
    number, percent = number.rstrip("%").replace(",", ""), "%" * number.endswith("%")
    digits = len(number.partition(".")[2])
    found = re.findall(rf"(-?\d[\d,]*\.?\d*){percent}", text)
    return number in {f"{float(n.replace(',', '')):.{digits}f}" for n in found}


def test_numbers_are_found_in_text():
    text = "recall 0.2233, median 1,271.54 m, -30 dB, 45% of it"
    assert all(is_printed(n, text) for n in ("0.2233", "0.22", "1271.5", "1,272", "-30", "45%"))
    assert not any(is_printed(n, text) for n in ("0.23", "1271", "30%", "2233", "46%"))


def test_there_are_notebooks_and_the_first_is_the_index():
    assert NOTEBOOKS
    assert NOTEBOOKS[0].name == "00_start_here.ipynb"
    assert {p.name for p in NOTEBOOKS} == {p.name for p in NOTEBOOKS[0].parent.glob("*.ipynb")}, "a name without number"
    index = prose(NOTEBOOKS[0])
    assert all(f"({path.name})" in index for path in NOTEBOOKS[1:])


@every_notebook
class TestRules:
    def test_is_a_valid_notebook(self, path):
        nbformat.validate(read(path))

    def test_begins_with_a_title_and_one_line_on_it(self, path):
        lines = [line for line in read(path).cells[0].source.splitlines() if line.strip()]
        assert lines[0].startswith("# ")
        assert len(lines) == 2
        assert len(re.findall(r"^# ", prose(path), flags=re.MULTILINE)) == 1

    def test_shows_the_pipeline_before_anything_else(self, path):
        first = next(cell for cell in code(path) if has_picture(cell))
        assert re.match(r'figures\.pipeline\("\w+"', first.source)

    def test_says_what_one_learns_and_how_long_it_takes(self, path):
        goals = read(path).cells[1].source
        assert "You will be able to" in goals
        assert "**Prerequisites:**" in goals
        assert re.search(r"\*\*Time:\*\* \d+ min quick \(2 CPU cores\) / \d+ min full \(.*GPU.*\)", goals)

    def test_imports_first_and_prints_versions_and_device(self, path):
        first = code(path)[0]
        assert "import sarmatch as sm" in first.source
        assert re.search(r"sarmatch \d+\.\d+.*torch \d.*device: ", text_of(first))
        late = [
            cell.source for cell in code(path)[1:] if re.search(r"^(import|from) ", cell.source, flags=re.MULTILINE)
        ]
        assert not late, "imports belong into the first cell"

    def test_says_profile_and_clean_commit_on_its_first_screen(self, path):
        first = code(path)[0]
        assert "sm.provenance_line(" in first.source
        assert re.search(r"profile: (quick|full), commit: \w+$", text_of(first).strip()), "or a dirty tree"

    def test_has_one_cell_of_parameters(self, path):
        (cell,) = (cell for cell in code(path) if "parameters" in cell.metadata.get("tags", []))
        for line, statement in zip(cell.source.splitlines(), ast.parse(cell.source).body, strict=True):
            assert re.match(r"[A-Z][A-Z_0-9]* = .+  # \w+", line), f"name in capitals, value, comment: {line}"
            if line.startswith("PROFILE"):
                assert 'os.environ.get("SARMATCH_PROFILE", "quick")' in line
            else:
                ast.literal_eval(statement.value)
        assert "PROFILE = " in cell.source

    def test_holds_no_logic_of_its_own(self, path):
        sources = "\n".join(cell.source for cell in code(path))
        assert len(re.findall(r"^\s*(?:def|class) ", sources, flags=re.MULTILINE)) <= 2
        assert max(len(cell.source.splitlines()) for cell in code(path)) <= 30

    def test_is_never_code_for_long(self, path):
        kinds = "".join(cell.cell_type[0] for cell in read(path).cells)
        assert "cccc" not in kinds

    def test_is_as_long_as_a_sitting(self, path):
        assert 20 <= len(read(path).cells) <= 45
        assert 500 <= len(prose(path).split()) <= 1700

    def test_every_picture_is_read_aloud_with_a_number(self, path):
        cells = read(path).cells
        shown = [i for i, cell in enumerate(cells) if has_picture(cell)]
        assert 4 <= len(shown) <= 11, "ten and the pipeline"
        for i in shown:
            reading = cells[i + 1].source
            assert reading.startswith(READINGS[0]), f"after the figure of cell {i}"
            assert re.search(r"\d", reading)

    def test_numbers_in_bold_were_printed_by_the_cell_above(self, path):
        """The text says 0.23 and the run gives 0.27: that is what this test is for."""
        cells = read(path).cells
        for above, cell in zip(cells, cells[1:], strict=False):
            if cell.source.startswith(READINGS) and above.cell_type == "code":
                for number in re.findall(r"\*\*(-?\d[\d.,]*%?)\*\*", cell.source):
                    assert is_printed(number, text_of(above)), f"{number} in: {cell.source}"

    def test_has_been_run_from_top_to_bottom(self, path):
        assert [cell.execution_count for cell in code(path)] == list(range(1, len(code(path)) + 1))

    def test_has_no_errors_warnings_or_local_paths_in_its_outputs(self, path):
        outputs = [out for cell in code(path) for out in cell.outputs]
        assert not [out for out in outputs if out.output_type == "error"]
        text = "\n".join(text_of(cell) for cell in code(path))
        assert "Warning:" not in text
        for folder in (str(ROOT), str(Path.home()), tempfile.gettempdir()):
            assert folder + "/" not in text
        assert not re.search(r"site-packages|/home/\w|/Users/\w|[A-Z]:\\", text)

    def test_carries_no_volatile_metadata(self, path):
        for holder in (read(path), *read(path).cells):
            assert not {"widgets", "papermill", "execution"} & set(holder.metadata)

    def test_is_small_and_its_pictures_show_something(self, path):
        assert path.stat().st_size <= 1.5e6
        outputs = [out for cell in code(path) for out in cell.outputs if has_picture({"outputs": [out]})]
        for out in outputs:
            ((kind, content),) = ((k, v) for k, v in out.data.items() if k.startswith("image/"))
            image = Image.open(io.BytesIO(base64.b64decode(content))).convert("L")
            assert image.getextrema()[1] - image.getextrema()[0] > 100, "an empty picture"
            assert kind == "image/jpeg" or len(out.metadata["image/png"]["alt"]) > 20, "no words for who cannot see it"

    def test_ends_with_a_summary_what_ifs_and_the_next_notebook(self, path):
        text = prose(path)
        summary, what_if = (
            re.search(f"^## {name}$", text, flags=re.MULTILINE).start() for name in ("Summary", "What if")
        )
        assert summary < what_if
        questions = re.findall(r"^\d\. .+?(?=^\d\. |^#|\Z)", text[what_if:], flags=re.MULTILINE | re.DOTALL)
        assert len(questions) == 3
        assert all(re.search(r"[Ee]xpect .*\*[\w ]+\*", q, flags=re.DOTALL) for q in questions), (
            "the expected direction"
        )
        following = re.search(r"Next: \[.+?\]\((.+?\.ipynb)\)", text[what_if:]).group(1)
        assert (path.parent / following).is_file()

    def test_links_lead_somewhere(self, path):
        for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", prose(path)):
            assert link.startswith("https://") or (path.parent / link).is_file(), link

    def test_has_one_style_and_draws_nothing_itself(self, path):
        sources = "\n".join(cell.source for cell in code(path))
        assert sources.count("figures.use_style()") == 1
        assert not re.search(r"pyplot|\bplt\.|\bsns\.|^\s*[%!]", sources, flags=re.MULTILINE)

    def test_every_cell_is_on_a_slide_or_skipped(self, path):
        types = [cell.metadata.get("slideshow", {}).get("slide_type") for cell in read(path).cells]
        assert set(types) <= {"slide", "subslide", "fragment", "skip"}
        assert types[0] == "slide"

    def test_a_widget_stands_between_a_picture_and_plain_variables(self, path):
        cells = code(path)
        for i, cell in enumerate(cells):
            if any("application/vnd.jupyter.widget-view+json" in out.get("data", {}) for out in cell.outputs):
                assert has_picture(cells[i - 1])
                assert re.search(r"^[A-Z_]+(, [A-Z_]+)* = ", cells[i + 1].source, flags=re.MULTILINE)

    def test_says_what_made_its_outputs(self, path):
        content = recorded(read(path))
        assert content["notebook"] == path.stem
        assert content["made_with"]["profile"] in {"quick", "full"}
        assert all(content["made_with"][key] for key in ("machine", "python", "torch", "commit"))
        assert "seed" in content["metrics"]


def check_metrics(metrics: dict[str, float]) -> None:
    """Finite, in range, and better than chance where there is one."""
    for name, value in metrics.items():
        assert math.isfinite(value), name
        if re.search(r"recall|hit_rate|share|fraction|overlap", name):
            assert 0 <= value <= 1, name
        if name.endswith("_m"):
            assert value >= 0, name
        if f"{name}_chance" in metrics:
            chance = metrics[f"{name}_chance"]
            assert value < chance if name.endswith("_m") else value > chance, f"{name} is no better than chance"


@pytest.mark.notebook
@every_notebook
def test_runs_again_and_says_the_same(path, tmp_path):
    before = path.read_bytes()
    again = recorded(execute(path, tmp_path / path.name))
    committed = recorded(read(path))
    assert path.read_bytes() == before, "a test never writes back"
    check_metrics(again["metrics"])
    assert again["metrics"].keys() == committed["metrics"].keys()
    if committed["made_with"]["profile"] == "quick":
        for name, value in committed["metrics"].items():
            # another machine rounds differently: a few queries may change places
            assert again["metrics"][name] == pytest.approx(value, rel=0.05, abs=0.02), name


class TestCheckMetrics:
    @pytest.mark.parametrize(
        "metrics",
        [
            {"recall@1": float("nan")},
            {"recall@1": 1.2},
            {"recall@1": 0.01, "recall@1_chance": 0.01},
            {"median_m": 900.0, "median_m_chance": 800.0},
            {"median_m": -1.0},
        ],
    )
    def test_refuses(self, metrics):
        with pytest.raises(AssertionError):
            check_metrics(metrics)

    def test_accepts(self):
        check_metrics({"recall@1": 0.2, "recall@1_chance": 0.01, "median_m": 100.0, "median_m_chance": 800.0})


def small_notebook(folder: Path, *sources: str) -> Path:
    """A notebook of these code cells, with metadata that must not survive."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    notebook.metadata["widgets"] = {}
    notebook.cells[0].metadata["execution"] = {"iopub.status.busy": "2026-01-01"}
    path = folder / "07_small.ipynb"
    nbformat.write(notebook, path)
    return path


class TestExecute:
    @pytest.mark.slow
    def test_profile_folder_and_metadata(self, tmp_path):
        path = small_notebook(
            tmp_path,
            "import os, torch; print(os.environ['SARMATCH_PROFILE'], os.getcwd(), torch.get_num_threads())",
            "from sarmatch.experiments.notebooks import record_metrics\nrecord_metrics('07_small', recall=0.5, seed=1)",
        )
        source = path.read_bytes()
        notebook = execute(path, tmp_path / "out.ipynb", profile="full")
        assert notebook.cells[0].outputs[0].text.split() == ["full", str(tmp_path), "1"], "sums in one order everywhere"
        assert recorded(notebook)["metrics"] == {"recall": 0.5, "seed": 1.0}
        assert recorded(notebook)["made_with"]["profile"] == "full"
        written = nbformat.read(tmp_path / "out.ipynb", as_version=4)
        assert written == notebook
        assert "widgets" not in written.metadata
        assert not written.cells[0].metadata
        assert path.read_bytes() == source

    def test_a_failing_cell_is_raised_and_nothing_is_written(self, tmp_path):
        path = small_notebook(tmp_path, "1 / 0")
        source = path.read_bytes()
        with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
            execute(path, path)
        assert path.read_bytes() == source
        assert [p.name for p in tmp_path.iterdir()] == [path.name]

    def test_all_in_their_order_and_kept_where_asked(self, tmp_path):
        path = small_notebook(tmp_path, """print('{"metrics": {"seed": 2.0}}')""")
        lines: list[str] = []
        records = execute_all(write_back=True, folder=tmp_path, report=lines.append)
        assert records["07_small"]["metrics"] == {"seed": 2.0}
        assert lines == ["07_small.ipynb: 1 numbers recorded"]
        assert recorded(nbformat.read(path, as_version=4)) == records["07_small"]


class TestRecordMetrics:
    def test_goes_to_the_named_folder_too(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("SARMATCH_RECORD", str(tmp_path))
        record_metrics("99_name", **{"recall@1": 0.123456789})
        assert '"recall@1": 0.123457' in capsys.readouterr().out
        assert '"recall@1": 0.123457' in (tmp_path / "99_name.json").read_text()

    def test_a_notebook_without_one_is_named(self):
        cell = nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("stream", name="stdout", text="hello")])
        with pytest.raises(ValueError, match="printed no record but 'hello'"):
            recorded(nbformat.v4.new_notebook(cells=[cell]))
