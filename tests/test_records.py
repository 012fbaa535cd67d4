"""What README and the shipped checkpoint claim is what the code gives."""

import re

import numpy as np
import pytest
from rasterio import Affine

import sarmatch as sm
from sarmatch.home import ROOT
from sarmatch.records import RECORDS, readme_with_results, record
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


def test_the_shipped_checkpoint_gives_the_recorded_recall():
    run = sm.load_run(ROOT / "data" / "demo")
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
