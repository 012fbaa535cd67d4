"""A strip located by vectors of tiles: the same scores, the same place and the same vectors as in plain loops."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

import sarmatch as sm
from sarmatch.atomic_io import write_json
from sarmatch.cli import app
from sarmatch.datasets import registry
from sarmatch.encoders import Encoder, Inputs
from sarmatch.encoders.base import ENCODERS
from sarmatch.localization.location import OWN_CALIBRATION, finder
from sarmatch.localization.tiles import TileEncoder, laid_out, maps_on
from sarmatch.localization.windows import cut_windows, posed_features
from sarmatch.patches import PatchImages, references, to_input
from sarmatch.search import DenseSearch, Gallery
from sarmatch.search.turned import Pose
from sarmatch.training.runs import Run, whitened
from tests import fake_archives, fake_data
from tests.localization.test_locate import field, power_of, write

SIZE, PIXEL = 32, 0.5  # pixels of a tile of the tiny scene, metres
AT, HIGH, WIDE = (192, 64), 160, 32  # the strip lies on five tiles of the map, one below the other

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Ground(Encoder):
    """An oracle: the ground under a patch, which SAR of `power_of` shows upside down in contrast."""

    feature_dim, trainable = 64, False

    def __init__(self, image_size, sar_bands):
        super().__init__()
        self.inputs = {"query": Inputs(sar_bands, image_size), "reference": Inputs(3, image_size)}

    def forward_features(self, images, modality):
        ground = images.mean(1, keepdim=True)
        return F.adaptive_avg_pool2d(ground if modality == "reference" else -ground / 20, 8)

    def forward_head(self, features, modality):
        flat = features.flatten(1)
        return F.normalize(flat - flat.mean(1, keepdim=True), dim=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A map of 19 x 17 tiles, and a strip of it that does not say where it lies."""
    folder = tmp_path_factory.mktemp("tiles")
    ground = field(0)
    write(folder / "map.tif", np.repeat((255 * ground)[None], 3, 0).astype(np.uint8), PIXEL)
    part = ground[AT[0] : AT[0] + HIGH, AT[1] : AT[1] + WIDE]
    write(folder / "strip.tif", power_of(part), PIXEL, crs=None)
    write(folder / "east_up.tif", power_of(np.rot90(part)), PIXEL, crs=None)
    return folder


@pytest.fixture(scope="module")
def run(files):
    """A run of the oracle on the tiny scene, with a likelihood of its own that knows no drift."""
    scene = fake_data.tiny_scene()
    config = sm.recipe("demo", scene="tiny", encoder="ground_of_tests", encoder_options={}, image_size=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SARMATCH_CACHE", str(files / "cache"))
        patch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: scene)
        patch.setitem(ENCODERS._things, "ground_of_tests", Ground)
        path = files / "run"
        path.mkdir()
        write_json(path / "config.json", config.model_dump())
        write_json(path / "metrics.json", [])
        likelihood = {"temperature": 0.05, "outliers": 0.1, "drift": 0.0, "absent": 0.2, "spread": 0.0}
        write_json(path / OWN_CALIBRATION, likelihood)
        yield sm.load_run(path)


@pytest.fixture(scope="module")
def found(run, files):
    return sm.locate(files / "strip.tif", files / "map.tif", run, pixel_size=PIXEL)


def cosines(run, found):
    """What the run's search says of each window and tile, from plain images: `(W, H, W)`, and the tiles."""
    tiles = references(found.scene, SIZE)
    windows = cut_windows(found.strip, SIZE)
    corners = np.round(windows.centre - SIZE / 2).astype(int)
    pixels = np.stack([found.strip.read(int(r), int(c), SIZE, SIZE) for r, c in corners])
    images = to_input(torch.from_numpy(pixels), found.strip.scale, 16, found.strip.window)
    query = run.encoder.encode_query(images).numpy()
    images = torch.stack(PatchImages(found.scene, tiles, 16).__getitems__(range(len(tiles))))
    reference = run.encoder.encode_reference(images).numpy()
    query, reference = whitened(tiles, query, reference, run.query_mean)
    return (query @ reference.T).reshape(len(query), tiles["row"].nunique(), tiles["col"].nunique()), tiles


def test_scores_are_the_cosines_of_a_plain_loop_over_all_tiles(run, found):
    encoder = finder(run).encoder
    gallery, encoder = maps_on(encoder, found.scene)
    features, masks = posed_features(encoder, cut_windows(found.strip, SIZE), Pose(0.0, 1.0))
    assert masks is None and features.shape[2:] == (1, 1)
    (scores,) = DenseSearch(gallery, encoder).surfaces(features)
    expected, tiles = cosines(run, found)
    assert len(tiles) >= 100, "a smaller gallery is not whitened"
    np.testing.assert_allclose(scores, expected, atol=2e-5)
    (fmap,) = gallery.maps.values()
    middles = fmap.metres_of(*np.mgrid[: scores.shape[1], : scores.shape[2]] + 0.5).reshape(-1, 2)
    np.testing.assert_allclose(middles, tiles[["x", "y"]], atol=1e-6)


def test_the_place_is_the_best_of_all_paths_and_the_true_one(run, found):
    """Without drift a path is a place of the middle window; each is tried with all windows of the strip."""
    scores, tiles = cosines(run, found)
    steps = np.arange(len(scores)) - len(scores) // 2  # a window is a tile further down than the one before
    high, wide = scores.shape[1:]
    likely = [np.exp((s - s.max()) / 0.05) for s in scores]
    total = np.zeros((high, wide))
    for row, col in product(range(high), range(wide)):
        for window, step in zip(likely, steps, strict=True):
            inside = 0 <= row + step < high
            chance = window[row + step, col] / window.sum() * window.size if inside else 0.0
            total[row, col] += math.log(0.1 + 0.9 * chance)
    joint = np.log(0.8 / total.size) + total
    evidence = np.logaddexp.reduce(np.append(joint, np.log(0.2)))
    np.testing.assert_allclose(found.fix.posterior.log_prob, joint - evidence, atol=2e-2)
    best = tiles[["x", "y"]].to_numpy()[total.argmax()]
    assert np.abs(found.fix.place - best).max() <= SIZE * PIXEL / 2
    truth = (AT[1] + WIDE / 2) * PIXEL, -(AT[0] + HIGH / 2) * PIXEL
    np.testing.assert_allclose(best, truth, atol=SIZE * PIXEL / 2)
    assert found.on_map and found.probability > 0.9 and found.fix.agrees.all() and found.calibrated
    np.testing.assert_allclose(found.fix.track[:, 1], truth[1] + -steps * SIZE * PIXEL, atol=SIZE * PIXEL / 2)
    corner = found.footprint[0]
    np.testing.assert_allclose(corner, (AT[1] * PIXEL, -AT[0] * PIXEL), atol=SIZE * PIXEL / 2)
    assert not len(found.fix.ties.score) and found.window == SIZE and found.fix.near_m == pytest.approx(48, abs=0.1)


def test_vectors_of_a_map_are_made_once(run, files, found, monkeypatch):
    monkeypatch.setattr("sarmatch.search.gallery.embed", lambda *a, **k: pytest.fail("built anew"))
    again = sm.locate(files / "strip.tif", files / "map.tif", run, pixel_size=PIXEL)
    np.testing.assert_array_equal(again.fix.posterior.log_prob, found.fix.posterior.log_prob)


def test_a_told_heading_turns_the_windows(run, files, found):
    asked = {"pixel_size": PIXEL, "heading": 90}
    turned = sm.locate(files / "east_up.tif", files / "map.tif", run, **asked)
    assert turned.on_map and np.abs(turned.fix.place - found.fix.place).max() < SIZE * PIXEL / 2
    np.testing.assert_allclose(np.sort(turned.footprint, 0), np.sort(found.footprint, 0), atol=SIZE * PIXEL)
    assert sm.locate(files / "east_up.tif", files / "map.tif", run, pixel_size=PIXEL).probability < 0.5


def test_a_place_near_which_it_should_lie_speaks(run, files, found):
    asked = {"run": run, "pixel_size": PIXEL, "radius": 5.0}
    near = sm.locate(files / "strip.tif", files / "map.tif", near=tuple(found.lonlat), **asked)
    assert near.absent < found.absent and near.probability >= found.probability
    far = found.to_lonlat(found.fix.place + (100.0, 100.0))[0]
    beside = sm.locate(files / "strip.tif", files / "map.tif", near=tuple(far), **asked)
    assert beside.absent > found.absent


def test_the_command_line_takes_such_a_run(run, files, tmp_path):
    asked = ["locate", files / "strip.tif", files / "map.tif", "--run", run.path, "-o", tmp_path / "fix.geojson"]
    told = CliRunner().invoke(app, [*map(str, asked), "--pixel-size", str(PIXEL)])
    assert told.exit_code == 0, told.output
    assert {p.suffix for p in tmp_path.iterdir()} == {".geojson", ".csv", ".tif", ".points", ".png"}
    with rasterio.open(tmp_path / "fix.tif") as file:
        assert file.count == 1


def test_tiles_on_nodata_are_no_places_and_those_on_no_grid_are_refused(files, found):
    tiles = references(found.scene, SIZE).drop(index=[3]).reset_index(drop=True)
    vectors = np.eye(len(tiles), dtype=np.float32)
    (fmap,) = laid_out(Gallery(tiles, vectors), vectors, found.scene, SIZE).maps.values()
    assert not fmap.valid[0, 3] and int((~fmap.valid).sum()) == 1 and not fmap.features[:, 0, 3].any()
    (scores,) = DenseSearch(laid_out(Gallery(tiles, vectors), vectors, found.scene, SIZE)).surfaces(
        torch.ones(1, len(tiles), 1, 1)
    )
    assert scores[0, 0, 3] == -torch.inf and torch.isfinite(scores).sum() == len(tiles)
    moved = tiles.assign(row=tiles["row"] + pd.Series(np.arange(len(tiles)) % 2))
    with pytest.raises(ValueError, match="do not join"):
        laid_out(Gallery(moved, vectors), vectors, found.scene, SIZE)


def test_overlapping_tiles_have_their_centres_in_the_middle_of_cells(run, found):
    encoder = TileEncoder(run.encoder, SIZE, 24, run.query_mean)
    gallery, _ = maps_on(encoder, found.scene)
    tiles = references(found.scene, SIZE, 24)
    (fmap,) = gallery.maps.values()
    high, wide = fmap.features.shape[1:]
    assert gallery.stride == 24 and high * wide == len(tiles)
    middles = fmap.metres_of(*np.mgrid[:high, :wide] + 0.5).reshape(-1, 2)
    np.testing.assert_allclose(middles, tiles[["x", "y"]], atol=1e-6)


class TestRefused:
    def test_another_window_and_a_strip_narrower_than_a_tile(self, run, files, tmp_path):
        with pytest.raises(ValueError, match="window is 64, and the run compares tiles of 32 px"):
            sm.locate(files / "strip.tif", files / "map.tif", run, window=64, pixel_size=PIXEL)
        write(tmp_path / "narrow.tif", power_of(field(0)[:160, :24]), crs=None)
        with pytest.raises(ValueError, match=r"narrow.tif: is 24 x 160 px at the map's 0.5 m, expected 32 px or more"):
            sm.locate(tmp_path / "narrow.tif", files / "map.tif", run, pixel_size=PIXEL)

    def test_runs_without_a_map_in_metres(self, run, files, tmp_path):
        views, _ = fake_archives.write_vigor(tmp_path / "views")
        pairs = fake_data.write_pairs(tmp_path / "pairs")
        for scene, said in ((views, "cross-view set has tiles and no map"), (pairs, "how large its pixels are")):
            other = Run(run.path, run.config.model_copy(update={"scene": str(scene)}))
            with pytest.raises(ValueError, match=said):
                sm.locate(files / "strip.tif", files / "map.tif", other)
        small = Run(run.path, run.config.model_copy(update={"patch_size": 16}))
        with pytest.raises(ValueError, match="compares tiles of 16 px, expected 32 or more"):
            sm.locate(files / "strip.tif", files / "map.tif", small)
