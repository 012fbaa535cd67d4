"""What README and the shipped checkpoint claim is what the code gives."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from rasterio import Affine

import sarmatch as sm
from sarmatch.experiments.records import RECORDS, lengths_table, readme_with_results, record, sweep_table
from sarmatch.paths import ROOT
from sarmatch.training import evaluate
from tests.fake_data import save_image
from tests.fake_mosaics import NORTH, WEST, optical, sar, write_tiff

GRID = Affine(0.5, 0, WEST, 0, -0.5, NORTH)
README = (ROOT / "README.md").read_text()


def test_readme_states_the_recorded_numbers():
    assert readme_with_results(README) == README


def test_a_changed_number_would_show():
    first = re.search(r"\*\*(\d+\.\d)\*\*", README)
    changed = README.replace(first.group(0), "**99.9**", 1)
    assert readme_with_results(changed) != changed


@pytest.mark.parametrize("path", RECORDS)
def test_records_name_no_folder_of_one_machine(path):
    for file in (ROOT / path).glob("*.json"):
        assert not re.search(r'"/\w', file.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["data/demo", "data/checkpoints/wasserstein"])
def test_a_shipped_checkpoint_gives_the_recorded_recall(folder):
    run = sm.load_run(ROOT / folder)
    assert (ROOT / folder / "model.safetensors").stat().st_size <= 8 * 2**20
    recorded = run.metrics.query("protocol == 'cross_area' and kind == 'aligned'").set_index("method")
    report, _ = evaluate(run.encoder, run.scene(), run.config, "cross_area", "aligned")
    assert report["queries"] == recorded.loc[run.config.encoder, "queries"]
    # another machine rounds differently: a query or two may change places
    assert report["recall@1"] == pytest.approx(recorded.loc[run.config.encoder, "recall@1"], abs=0.01)


def readme_code(word: str) -> str:
    """The one Python block of README that holds a word."""
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if word in b)
    return block


def test_the_python_of_readme_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    space: dict[str, object] = {}
    exec(readme_code("found.xy"), space)
    assert space["found"].xy.shape == (200, 5, 2)


def test_the_pair_reader_that_readme_writes_reads(tmp_path):
    space: dict[str, object] = {}
    exec(readme_code("paired_folders("), space)
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
    exec(readme_code("mosaic_scene("), space)
    write_tiff(tmp_path / "town/map.tif", optical(GRID, (400, 400)), GRID)
    write_tiff(tmp_path / "town/flight_1.tif", sar(GRID, (400, 400), bands=2), GRID)
    reader = space["MINE"]
    assert reader.recognises(tmp_path)
    scene = reader.scene(tmp_path, reader.files(tmp_path))
    assert [a.name for a in scene.areas] == ["town"]
    assert scene.areas[0].strips[0].bands == ("VV", "VH")
    assert scene.has_coordinates


def test_a_record_keeps_no_path_and_loads_again(tmp_path):
    run = sm.load_run(ROOT / "data" / "demo")
    moved = sm.Run(run.path, run.config.model_copy(update={"scene": str(tmp_path / "towns")}))
    record(moved, tmp_path / "kept", weights=True)
    again = sm.load_run(tmp_path / "kept")
    assert again.config.scene == "towns"
    assert again.metrics.equals(run.metrics)
    assert again.encoder is not None


def test_kept_weights_are_half_as_large_and_rank_alike(tmp_path):
    run = sm.load_run(ROOT / "data" / "demo")
    record(run, tmp_path / "kept", weights=True)
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
    lines = sweep_table(pd.DataFrame(rows), gaps).splitlines()
    assert lines[2].startswith("| `infonce` | **12.0** (10.0 to 15.0) / **12.0** (10.0 to 15.0) |")
    assert lines[2].endswith("|  |")
    assert lines[3].endswith("| +10.0 (-2.0 to +20.0) |")
    assert all(line.count("|") == 7 for line in lines[:4])
    assert lines[-1] == "**simulated**, 3 seeds, gallery 400, chance 0.25 / 2.5."


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
    lines = lengths_table({"easy": (table, gaps), "hard": (table, gaps)}).splitlines()
    assert lines[0] == "| | refiner | `easy`, K = 10 | `easy`, K = 30 | `hard`, K = 10 | `hard`, K = 30 |"
    assert lines[2] == "| | the oracle of the list | 10.0 | 30.0 | 10.0 | 30.0 |"
    assert lines[3].endswith("| 12.0 | 12.0 | 12.0 | 12.0 |")
    both = "22.0, +10.0 (-2.0 to +20.0) | 22.0, **+10.0 (+2.0 to +20.0)**"
    assert lines[4] == f"| G1 | `gnn`: graph network, edges in metres | {both} | {both} |"
