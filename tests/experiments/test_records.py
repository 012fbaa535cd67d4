"""What README and the shipped checkpoint claim is what the code gives."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rasterio import Affine

import sarmatch as sm
from sarmatch.experiments.pages import (
    PAGES,
    edges_table,
    lengths_table,
    results_table,
    sweep_table,
    weights_table,
    with_tables,
)
from sarmatch.experiments.provenance import commits_of, with_commits
from sarmatch.experiments.records import RECORDS, Comparison, keep_run, load_comparison, record_commits
from sarmatch.paths import ROOT
from sarmatch.training import evaluate
from sarmatch.training.checkpoints import WRITTEN, commit_of
from tests.fake_data import save_image
from tests.fake_mosaics import NORTH, WEST, optical, sar, write_tiff

GRID = Affine(0.5, 0, WEST, 0, -0.5, NORTH)
CLEAN = r"[0-9a-f]{7,}(, [0-9a-f]{7,})*"
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_states_the_recorded_numbers(page):
    text = (ROOT / page).read_text()
    assert with_tables(text) == text


@pytest.mark.parametrize("page", PAGES)
def test_a_changed_number_would_show(page):
    text = (ROOT / page).read_text()
    table = text.index("| commit |")
    number = re.compile(r"\d\.\d").search(text, table).group(0)
    changed = text[:table] + text[table:].replace(number, "-1.5", 1)
    assert with_tables(changed) == text


def test_readme_is_short_and_has_one_table_of_results():
    assert len(README.splitlines()) <= 150
    (table,) = re.findall(r"<!-- results:.*?<!-- end of results -->", README, flags=re.DOTALL)
    assert README.count("written by `sarmatch readme`") == 1
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert 1 <= len(rows) <= 8
    assert all("**simulated**" in row or "**real**" in row for row in rows)


@pytest.mark.parametrize("page", PAGES)
def test_tables_call_methods_by_words(page):
    codes = re.compile(
        r"\b[GM]\d[a-z]?\b|`(?!easy|standard|hard|sentinel)\w+`|\b[a-z]+_[a-z_]+\b|\bcoarse\b(?! to fine)"
    )
    tables = re.findall(r"by `sarmatch readme` -->(.*?)<!-- end", (ROOT / page).read_text(), flags=re.DOTALL)
    assert tables
    assert not [code for table in tables for code in codes.findall(table)]


@pytest.mark.parametrize("page", ["data/README.md", "data/results/README.md", *PAGES])
def test_links_of_a_page_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#\s]+?)(?:#[^)]*)?\)", (ROOT / page).read_text()):
        known = link == "CONTRIBUTING.md" or link.startswith("https://")
        assert known or (ROOT / page).parent.joinpath(link).exists(), link


def test_every_page_is_in_the_index():
    index = (ROOT / "data/results/README.md").read_text()
    assert all(f"({Path(page).name})" in index for page in PAGES if page != "README.md")


def test_a_table_that_nobody_makes_is_named():
    with pytest.raises(ValueError, match="no table is called 'nothing'; there are .*'alignment'"):
        with_tables("<!-- nothing: written by `sarmatch readme` -->\n<!-- end of nothing -->")


class TestProvenance:
    def test_one_line_says_versions_device_profile_and_commit(self, monkeypatch):
        monkeypatch.setenv("SARMATCH_PROFILE", "full")
        line = sm.provenance_line("POT", "pandas")
        assert re.fullmatch(
            rf"sarmatch {re.escape(sm.__version__)}, torch {re.escape(torch.__version__)}, POT \S+, "
            rf"pandas {re.escape(pd.__version__)}, device: .+, profile: full, commit: \S+",
            line,
        )

    def test_rows_that_say_their_commit_are_believed_and_others_take_that_of_the_table(self):
        rows = pd.DataFrame({"commit": ["bbb", "aaa-dirty", None, "bbb"]})
        assert commits_of(rows, "ccc, ddd") == ["aaa-dirty", "bbb", "ccc", "ddd"]
        assert commits_of(pd.DataFrame({"arm": ["x"]}), "ccc") == ["ccc"]
        assert commits_of(pd.DataFrame(), "") == ["unknown"]

    def test_what_is_computed_from_rows_names_their_commits(self):
        table = pd.DataFrame(
            [
                {"arm": arm, "seed": seed, "protocol": protocol, "kind": "aligned", "commit": f"{arm}{seed}{protocol}"}
                for arm in ("first", "other", "third")
                for seed in (0, 1)
                for protocol in ("same", "cross")
            ]
        )
        gaps = pd.DataFrame([{"arm": "other", "control": "first", "protocol": "cross", "kind": "aligned", "low": 0.5}])
        assert with_commits(gaps, table)["commit"].tolist() == ["first0cross, first1cross, other0cross, other1cross"]
        task = {"seed": 1, "protocol": "same", "kind": "aligned"}
        curves = pd.DataFrame([{"arm": arm} | task for arm in ("third", "chance", "ceiling")])
        assert with_commits(curves, table)["commit"].tolist() == ["third1same", "first1same", "first1same"]
        robust = pd.DataFrame([{"arm": "other", "seed": 0, "kind": "aligned", "commit": "an older one"}])
        (named,) = with_commits(robust, table)["commit"]
        assert named == "other0cross, other0same"
        with pytest.raises(ValueError, match="no row of the table is of .*'fourth'"):
            with_commits(curves.assign(arm="fourth"), table)

    def test_a_record_that_is_older_is_given_them_and_keeps_its_numbers(self, tmp_path):
        (tmp_path / "table.csv").write_text("arm,seed,k,commit\na,0,30,1e5\nb,0,30,0012345\n")
        (tmp_path / "differences.csv").write_text("arm,control,k,low\nb,a,30,0.10\n")
        for _ in range(2):  # a second time changes nothing
            record_commits(tmp_path)
            assert (
                tmp_path / "differences.csv"
            ).read_text() == 'arm,control,k,low,commit\nb,a,30,0.10,"0012345, 1e5"\n'

    def test_every_recorded_number_names_clean_commits(self):
        results = ROOT / "data/results"
        files = [p for table in results.glob("*/table.csv") for p in table.parent.glob("*.csv") if p.stem != "history"]
        assert {p.name for p in files} >= {"table.csv", "differences.csv", "curves.csv", "robustness.csv", "powers.csv"}
        told = {p: pd.read_csv(p, dtype=str)["commit"].unique() for p in files}
        for path in results.glob("*/calibration.json"):
            told[path] = [fields["commit"] for fields in json.loads(path.read_text()).values()]
        for path in ROOT.glob("data/**/whitening.json"):
            told[path] = [json.loads(path.read_text())["commit"]]
        unclean = {p: t for p, texts in told.items() for t in texts if not re.fullmatch(CLEAN, str(t))}
        assert not unclean

    def table(self, **commits: str) -> str:
        same = {"protocol": "cross_area", "kind": "arbitrary", "k": 10, "recall@1": 0.1, "oracle": 0.5}
        table = pd.DataFrame([{"arm": arm, "commit": commit, **same} for arm, commit in commits.items()])
        gap = {"control": "coarse", "measure": "recall@1", "difference": 0.1, "low": 0, "high": 0.2}
        gaps = pd.DataFrame([{"arm": arm, **same, **gap} for arm in commits])
        return lengths_table({"easy": Comparison(table, gaps, "unused")})

    def test_a_clean_row_has_its_commit_and_no_mark(self):
        text = self.table(coarse="aaa", correlation="bbb")
        assert text.splitlines()[4].endswith("| bbb |")
        assert "†" not in text

    def test_a_dirty_or_unknown_row_is_marked_and_the_mark_explained(self):
        text = self.table(coarse="aaa", correlation="bbb-dirty", G1="unknown")
        lines = text.splitlines()
        assert [line.rpartition("| ")[2] for line in lines[3:6]] == ["aaa |", "bbb† |", "unknown† |"]
        assert lines[-1].startswith("† made from a tree with uncommitted changes")

    def test_many_commits_stand_below_the_table(self):
        text = self.table(coarse="aaa", correlation="a, b, c, d-dirty")
        assert "| (a)† |" in text
        assert "(a) a, b, c, d†" in text


@pytest.mark.parametrize("path", RECORDS)
def test_records_name_no_folder_of_one_machine(path):
    for file in (ROOT / path).glob("*.json"):
        assert not re.search(r'"/\w', file.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "kind"),
    [("data/demo", "aligned"), ("data/checkpoints/wasserstein", "aligned"), ("data/dense", "arbitrary")],
)
def test_a_shipped_checkpoint_gives_the_recorded_recall(folder, kind):
    run = sm.load_run(ROOT / folder)
    assert (ROOT / folder / "model.safetensors").stat().st_size <= 2 * 2**20
    recorded = run.metrics.query("protocol == 'cross_area' and kind == @kind").set_index("method")
    report, _ = evaluate(run.encoder, run.scene(), run.config, "cross_area", kind)
    assert report["queries"] == recorded.loc[run.config.encoder, "queries"]
    # another machine rounds differently: a query or two may change places
    assert report["recall@1"] == pytest.approx(recorded.loc[run.config.encoder, "recall@1"], abs=0.01)


def readme_code(word: str, page: str = "README.md") -> str:
    """The one Python block of a page that holds a word."""
    text = (ROOT / page).read_text()
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if word in b)
    return block


@pytest.mark.slow
def test_the_python_of_readme_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    space: dict[str, object] = {}
    exec(readme_code("found.xy"), space)
    assert space["found"].xy.shape == space["refined"].xy.shape == (20, 5, 2)


def test_the_pair_reader_that_readme_writes_reads(tmp_path):
    space: dict[str, object] = {}
    exec(readme_code("paired_folders(", "data/README.md"), space)
    for scene, n in ((1, 1), (1, 2), (2, 1)):
        write_tiff(tmp_path / f"radar/{scene}_{n}.tif", sar(GRID, (64, 64)), GRID, crs=None)
        save_image(tmp_path / f"rgb/{scene}_{n}.jpg", np.moveaxis(optical(GRID, (64, 64)), 0, -1))
    reader = space["MINE"]
    assert reader.recognises(tmp_path)
    scene = reader.scene(tmp_path, reader.files(tmp_path))
    assert sum(len(a.map.tiles) for a in scene.areas) == 3
    assert not scene.has_coordinates


def test_the_mosaic_reader_that_readme_writes_reads(tmp_path):
    space: dict[str, object] = {}
    exec(readme_code("mosaic_scene(", "data/README.md"), space)
    write_tiff(tmp_path / "town/map.tif", optical(GRID, (400, 400)), GRID)
    write_tiff(tmp_path / "town/strip_1.tif", sar(GRID, (400, 400), bands=2), GRID)
    reader = space["MINE"]
    assert reader.recognises(tmp_path)
    scene = reader.scene(tmp_path, reader.files(tmp_path))
    assert [a.name for a in scene.areas] == ["town"]
    assert scene.areas[0].strips[0].bands == ("VV", "VH")
    assert scene.has_coordinates


def test_a_record_keeps_no_path_and_loads_again(tmp_path):
    run = sm.load_run(ROOT / "data" / "demo")
    moved = sm.Run(run.path, run.config.model_copy(update={"scene": str(tmp_path / "towns")}))
    keep_run(moved, tmp_path / "kept", weights=True)
    again = sm.load_run(tmp_path / "kept")
    assert again.config.scene == "towns"
    assert again.metrics.equals(run.metrics)
    assert again.encoder is not None


def test_kept_weights_are_half_as_large_and_rank_alike(tmp_path):
    run = sm.load_run(ROOT / "data" / "demo")
    keep_run(run, tmp_path / "kept", weights=True)
    size = (tmp_path / "kept" / "model.safetensors").stat().st_size
    assert size <= 8 * 2**20
    distinct = {v.data_ptr(): v.numel() for v in run.encoder.state_dict().values()}  # what is shared counts once
    assert size == pytest.approx(2 * sum(distinct.values()), rel=0.02)
    images = torch.rand(20, 1, 64, 64) * 30 - 25
    whole, half = (r.encoder.encode_query(images).detach() for r in (run, sm.load_run(tmp_path / "kept")))
    torch.testing.assert_close(whole @ whole.T, half @ half.T, atol=2e-3, rtol=0)


def test_the_table_of_a_comparison_states_means_spread_and_intervals():
    rows = [
        {"arm": arm, "seed": seed, "protocol": protocol, "kind": kind, "data": "simulated", "gallery": 400}
        | {f"recall@{k}": (value + seed) / 100 for k in (1, 10)}
        | {"recall@1_chance": 0.0025, "recall@10_chance": 0.025}
        for arm, value in (("infonce", 10), ("sliced", 20))
        for seed in (0, 1, 5)
        for protocol in ("same_area", "cross_area")
        for kind in ("arbitrary", "aligned")
    ]
    gap = {"arm": "sliced", "control": "infonce", "protocol": "cross_area", "kind": "arbitrary", "measure": "recall@10"}
    gaps = pd.DataFrame([gap | {"difference": 0.1, "low": -0.02, "high": 0.2}])
    lines = sweep_table(Comparison(pd.DataFrame(rows), gaps, "aaa")).splitlines()
    assert lines[2].startswith("| InfoNCE alone | **12.0** (10.0 to 15.0) / **12.0** (10.0 to 15.0) |")
    assert lines[2].endswith("|  | aaa |")
    assert lines[3].endswith("| +10.0 (-2.0 to +20.0) | aaa |")
    assert all(line.count("|") == 8 for line in lines[:4])
    assert lines[-1] == "**simulated**, 3 seeds, gallery 400, chance 0.25 / 2.5."


def test_the_table_of_weights_sets_what_was_moved_beside_what_was_found():
    same = {"protocol": "cross_area", "data": "simulated", "gallery": 400, "recall@10_chance": 0.025, "network": "n"}
    arms = (("two_branches_0", 3.0, "no alignment"), ("two_branches_wasserstein_1", 2.0, "effective: 2.00 times"))
    table = pd.DataFrame(
        same
        | {"arm": arm, "seed": seed, "kind": kind, "effect": effect, "recall@10": 0.3 + seed / 10}
        | {"ratio": ratio, "ratio_low": ratio - 0.5, "ratio_high": ratio + 0.5, "validation_recall@10": 0.4}
        for arm, ratio, effect in arms
        for seed in (0, 1)
        for kind in ("arbitrary", "aligned")
    )
    gap = {"arm": arms[1][0], "protocol": "cross_area", "kind": "arbitrary", "measure": "recall@10"}
    gaps = pd.DataFrame([gap | {"difference": 0.1, "low": -0.02, "high": 0.2}])
    control, moved = weights_table(Comparison(table, gaps, "aaa")).splitlines()[2:4]
    assert control.startswith("| two branches, no alignment | 2 | 3.00 (2.50 to 3.50) | no alignment |")
    assert moved == (
        "| two branches, Wasserstein critic of weight 1 | 2 | 2.00 (1.50 to 2.50) | effective "
        "| **40.0** (40.0 to 40.0) | **35.0** (30.0 to 40.0) | +10.0 (-2.0 to +20.0) | aaa |"
    )


def test_the_table_of_lengths_has_a_column_per_scene_and_length():
    same = {"protocol": "cross_area", "kind": "arbitrary"}
    table = pd.DataFrame(
        [
            {"arm": arm, "k": k, "recall@1": (value + seed) / 100, "oracle": k / 100, **same}
            for arm, value in (("coarse", 10), ("G1", 20))
            for seed in (0, 1, 5)
            for k in (10, 30)
        ]
    )
    gap = {"arm": "G1", "control": "coarse", "measure": "recall@1", "difference": 0.1, **same}
    gaps = pd.DataFrame([gap | {"k": 10, "low": -0.02, "high": 0.2}, gap | {"k": 30, "low": 0.02, "high": 0.2}])
    both = Comparison(table, gaps, "aaa")
    lines = lengths_table({"easy": both, "hard": both}).splitlines()
    assert lines[0] == "| method | `easy`, K = 10 | `easy`, K = 30 | `hard`, K = 10 | `hard`, K = 30 | commit |"
    assert lines[2] == "| the oracle of the list | 10.0 | 30.0 | 10.0 | 30.0 | aaa |"
    assert lines[3].endswith("| 12.0 | 12.0 | 12.0 | 12.0 | aaa |")
    cells = "22.0, +10.0 (-2.0 to +20.0) | 22.0, **+10.0 (+2.0 to +20.0)**"
    assert lines[4] == f"| graph network, edges in metres | {cells} | {cells} | aaa |"
    alone = both._replace(table=table[table["arm"] == "coarse"])
    last = lengths_table({"easy": alone, "hard": both}).splitlines()[4]
    assert last == f"| graph network, edges in metres | - | - | {cells} | aaa |", "a scene may lack a method"


def test_a_whitened_row_stands_beside_a_baseline_that_has_no_vectors_to_whiten():
    run = sm.load_run(ROOT / "data/demo")
    run.__dict__["metrics"] = run.metrics[run.metrics["method"] != "hog + whitened"]
    rows = [line.split("|") for line in results_table([run]).splitlines()[2:]]
    plain, whitened = ([cells for cells in rows if cells[3].endswith(end)] for end in ("per tile ", "whitened "))
    assert len(plain) == len(whitened) == 4
    assert [cells[7] for cells in plain] == [cells[7] for cells in whitened], "its own row, training-free"


def test_the_table_of_edges_compares_with_the_network_without():
    comparison = load_comparison("refinement_easy")
    lines = edges_table({"easy": comparison}).splitlines()
    row = next(line for line in lines if line.startswith("| graph network, edges in metres |"))
    gap = comparison.gaps.query("arm == 'G1' and control == 'G0' and protocol == 'cross_area' and kind == 'arbitrary'")
    expected = 100 * gap.set_index("measure").loc["recall@1", "difference"]
    assert row.split("|")[2].strip().startswith(f"**{expected:+.1f} ")


def test_refined_lists_stand_beside_the_baseline_of_the_same_queries():
    run = sm.load_run(ROOT / "data/demo")
    (row,) = results_table([], [(run, load_comparison("refinement_easy"))]).splitlines()[2:]
    hog = run.metrics.query("protocol == 'cross_area' and kind == 'arbitrary' and method == 'hog'").iloc[0]
    assert "one vector per tile, then correlation of pixels in its first 30" in row
    assert f"| HOG {100 * hog['recall@1']:.3g} / {100 * hog['recall@10']:.3g} |" in row


def test_a_record_leaves_the_commit_what_it_was_and_code_does_not(tmp_path):
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True)

    files = {name: tmp_path / name for name in ("sarmatch.py", "data/results/one/table.csv", "data/results/two.json")}
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    assert commit_of(tmp_path) == "unknown"
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "one")
    clean = commit_of(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{7,}", clean)
    (tmp_path / "new").write_text("not tracked")
    files["data/results/one/table.csv"].write_text("2")
    assert commit_of(tmp_path, WRITTEN) == clean
    assert commit_of(tmp_path) == f"{clean}-dirty"
    for name in ("sarmatch.py", "data/results/two.json"):
        files[name].write_text("2")
        assert commit_of(tmp_path, WRITTEN) == f"{clean}-dirty"
        files[name].write_text("1")
