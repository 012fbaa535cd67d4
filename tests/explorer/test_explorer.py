"""The explorer without a browser: what its state answers, and its widgets driven by setting values."""

import io
import re
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from PIL import Image

from sarmatch import atomic_io
from sarmatch.encoders import create_encoder
from sarmatch.explorer import pages
from sarmatch.explorer.finders import HeatMap
from sarmatch.explorer.panel import ExplorerPanel
from sarmatch.explorer.sources import MAX_BYTES, Asked, Disturbance, Source, asked, uploaded
from sarmatch.explorer.state import Explorer, Settings
from sarmatch.figures import method_words
from sarmatch.figures.style import PLACES, embedded
from sarmatch.scenes import NoCoordinatesError, Raster
from sarmatch.training import Config, Run
from sarmatch.training.runs import task

VECTOR = {
    "scene": "tiny",
    "image_size": 16,
    "kinds": ("arbitrary",),
    "encoder_options": {"widths": (8, 16, 32, 32, 32), "feature_dim": 16},
    "baseline_options": {"cells": 4},
}
DENSE = {
    "scene": "tiny",
    "search": "dense",
    "encoder": "dense",
    "encoder_options": {"width": 8, "channels": 8, "dilations": (1,), "coarse": 2},
    "loss": "shift_cross_entropy",
    "baseline": "cfog",
    "baseline_options": {},
}


def untrained_run(folder, **fields) -> Run:
    """A run whose encoder is as its seed made it; its training-free baseline finds what there is to find."""
    run = Run(folder, Config(**fields))
    config = run.config
    encoder = create_encoder(config.encoder, config.image_size, config.sar_bands, **config.encoder_options)
    run.__dict__["encoder"] = encoder.eval()
    run.__dict__["query_mean"] = np.zeros(16, np.float32)
    return run


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SARMATCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def dense(tiny_scene, tmp_path_factory, cache):
    return Explorer(untrained_run(tmp_path_factory.mktemp("dense"), **DENSE), tiny_scene, count=12)


@pytest.fixture(scope="module")
def vectors(tiny_scene, tmp_path_factory, cache):
    return Explorer(untrained_run(tmp_path_factory.mktemp("vector"), **VECTOR), tiny_scene, count=12)


def image_file(pixels: np.ndarray, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


class TestState:
    def test_every_method_and_refiner_that_fits_is_there(self, dense, vectors):
        assert dense.methods == ("dense", "coarse_to_fine", "unknown_heading", "cfog")
        assert dense.refiners("cfog") == ("coarse",)
        assert vectors.methods == ("plain", "hog")
        assert {"coarse", "whitened", "geographic_vote", "interpolated_map", "correlation"} <= set(
            vectors.refiners("hog")
        )
        assert not {"gnn", "mlp"} & set(vectors.refiners("plain")), "nobody trained those"

    def test_the_true_place_is_found_and_said_to_be_it(self, dense):
        answer = dense.answer(dense.queries[3], Settings("cfog", k=5))
        assert answer.places[0] == "true"
        assert answer.errors[0] < 2
        assert answer.places[1] != "true" or answer.errors[1] <= dense.side_m
        row, col = np.unravel_index(answer.heat.scores.argmax(), answer.heat.scores.shape)
        peak = np.array(answer.heat.corner) + np.array([col, -row]) * answer.heat.metres
        np.testing.assert_allclose(peak, answer.true, atol=2, err_msg="the heat map has its peak there")

    def test_a_vector_answer_is_the_gallery_in_order(self, vectors):
        finder = vectors.finder("hog")
        answer = vectors.answer(vectors.queries[0], Settings("hog", k=50))
        cosines = (
            finder.search.gallery.vectors
            @ finder.search.encode([asked(vectors.queries[0], Disturbance()).image(16)])[0]
        )
        np.testing.assert_allclose(answer.candidates.scores[0], np.sort(cosines)[::-1][:50], atol=1e-5)
        here = answer.heat.scores[np.isfinite(answer.heat.scores)]
        np.testing.assert_allclose(np.sort(here), np.sort(cosines), atol=1e-5)
        first = vectors.tiles.iloc[answer.candidates.tile[0, 0]]
        assert vectors.window_of(answer.candidates, 0) == (first["area"], first["row"], first["col"])

    @pytest.mark.parametrize("whitened", [0.1, 0.3])
    def test_vectors_are_compared_as_the_run_does(self, tiny_scene, tmp_path, cache, whitened):
        run = untrained_run(tmp_path, **VECTOR)
        atomic_io.write_json(tmp_path / "whitening.json", {"plain": 0.2, "whitened": whitened})
        state = Explorer(run, tiny_scene, count=3)
        answer = state.answer(state.queries[1], Settings("plain", k=20))
        table, tiles = task(run.config, tiny_scene, run.config.protocols[-1], "arbitrary", count=3)
        found = run.find(tiny_scene, table.iloc[[1]], tiles, 20)
        np.testing.assert_allclose(answer.candidates.scores, found.scores, atol=1e-4)
        here = answer.heat.scores[np.isfinite(answer.heat.scores)]
        np.testing.assert_allclose(np.sort(here)[::-1][:20], found.scores[0], atol=1e-4, err_msg="the heat map too")

    @pytest.mark.parametrize("refiner", ["whitened", "geographic_vote", "correlation"])
    def test_refiners_reorder_the_same_list(self, vectors, refiner):
        before = vectors.answer(vectors.queries[1], Settings("hog", k=20))
        after = vectors.answer(vectors.queries[1], Settings("hog", refiner, 20))
        assert sorted(before.candidates.tile[0]) == sorted(after.candidates.tile[0])

    def test_failures_are_the_queries_whose_first_place_is_wrong(self, dense):
        settings = Settings("cfog", k=3)
        wrong = [i for i, q in enumerate(dense.queries) if dense.answer(q, settings).places[0] != "true"]
        assert dense.listed(failures_of=settings) == wrong
        assert len(wrong) < len(dense.queries) / 2, "and the search is not by chance"

    def test_search_in_the_list(self, dense):
        assert dense.listed() == list(range(12))
        assert dense.listed(" UNSEEN1") == [i for i, q in enumerate(dense.queries) if "unseen1" in q.label]
        assert dense.listed("nowhere") == []

    def test_a_result_is_asked_with_next(self, dense):
        answer = dense.answer(dense.queries[3], Settings("cfog", k=5))
        again = dense.answer(dense.query_at(answer, 0), Settings("cfog", k=5))
        assert np.hypot(*(again.true - answer.candidates.xy[0, 0])) < 1
        assert again.places[0] == "true"

    def test_unknown_names_are_said(self, dense):
        with pytest.raises(ValueError, match="no method is called 'x'; there are"):
            dense.finder("x")
        with pytest.raises(ValueError, match="no refiner of 'cfog' is called 'gnn'; there are"):
            dense.answer(dense.queries[0], Settings("cfog", "gnn"))

    def test_without_coordinates_tiles_say_what_is_right(self, tiny_scene, vectors, tmp_path):
        flat = replace(tiny_scene, pixel_size=None)
        state = Explorer(untrained_run(tmp_path, **VECTOR), flat, kind="aligned", count=5)
        answer = state.answer(state.queries[0], Settings("hog", k=100))
        assert answer.errors is None and answer.heat is None and answer.true is None
        assert answer.places[list(answer.candidates.tile[0]).index(state.queries[0].tiles[0])] == "true"
        with pytest.raises(NoCoordinatesError):
            state.upload("a.png", b"")


class TestDisturbances:
    def test_an_offset_moves_the_window_and_the_truth(self, dense):
        source = Source("x", dense.scene.area("unseen").strips[0], 100, 60, 32, "unseen")
        moved = source.moved(Disturbance(east_m=5, north_m=3), 0.5)
        assert (moved.row, moved.col) == (94, 70)
        np.testing.assert_allclose(dense.place_of(moved) - dense.place_of(source), [5, 3])
        far = source.moved(Disturbance(east_m=-1e4, north_m=1e4), 0.5)
        assert (far.row, far.col) == source.raster.bounds[:2], "no farther than the strip reaches"

    def test_a_turn_is_clockwise(self):
        pixels = np.ones((1, 33, 33), np.float32)
        pixels[0, :14, 13:20] = 100  # north
        source = Source("x", Raster.from_array("s", pixels, "intensity"), 0, 0, 33)
        turned = asked(source, Disturbance(rotation_deg=90)).pixels[0]
        assert turned[16, 25:].mean() > 50 > turned[16, :8].mean(), "north has become east"

    def test_speckle_has_the_looks_that_are_asked_for(self):
        source = Source("x", Raster.from_array("s", np.full((1, 200, 200), 0.3, np.float32), "intensity"), 0, 0, 200)
        pixels = asked(source, Disturbance(looks=4)).pixels
        assert pixels.mean() == pytest.approx(0.3, rel=0.02)
        assert pixels.mean() ** 2 / pixels.var() == pytest.approx(4, rel=0.05)
        np.testing.assert_array_equal(asked(source, Disturbance()).pixels, np.float32(0.3))

    @pytest.mark.parametrize(("scale", "power"), [("amplitude", lambda x: x**2), ("decibel", lambda x: 10 ** (x / 10))])
    def test_speckle_is_the_same_in_every_scale(self, scale, power):
        level = {"amplitude": 0.5, "decibel": 10 * np.log10(0.25)}[scale]
        raster = Raster.from_array("s", np.full((1, 200, 200), level, np.float32), scale)
        intensity = power(asked(Source("x", raster, 0, 0, 200), Disturbance(looks=2)).pixels)
        assert intensity.mean() == pytest.approx(0.25, rel=0.03)


class TestUploads:
    def test_an_own_image_is_found_where_it_was_cut(self, dense):
        strip = dense.scene.area("unseen").strips[0]
        pixels = strip.read(96, 64, 40, 40)[0]
        content = image_file((255 * np.sqrt(pixels / pixels.max())).astype(np.uint8))
        source = dense.upload("my <b>image</b>.png", content)
        answer = dense.answer(source, Settings("cfog", k=3))
        assert set(answer.places) == {"candidate"}
        assert answer.errors is None
        true = dense.scene.metres("unseen", np.array([96 + 20]), np.array([64 + 20]))[0]
        assert np.hypot(*(answer.candidates.xy[0, 0] - true)) < 3

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("../../etc/passwd", b"x", "expected an image, one of"),
            ("a.svg", b"<svg/>", "expected an image"),
            ("a.png", b"no image", "a.png: "),
            ("a.png", bytes(MAX_BYTES + 1), "expected at most"),
            ("a.png", image_file(np.arange(400, dtype=np.uint8).reshape(20, 20)), "20 x 20 px, expected at least 32"),
            ("a.png", image_file(np.zeros((64, 64), np.uint8)), "a.png: "),
        ],
    )
    def test_what_cannot_be_used_is_named(self, dense, name, content, said):
        with pytest.raises(ValueError, match=said) as error:
            dense.upload(name, content)
        assert "/upload" not in str(error.value), "no temporary path is told"

    def test_too_many_pixels_are_refused_before_they_are_decoded(self, dense, monkeypatch):
        monkeypatch.setattr("sarmatch.explorer.sources.MAX_PIXELS", 1000)
        monkeypatch.setattr("sarmatch.explorer.sources.unplaced_strip", lambda *a, **k: pytest.fail("decoded"))
        with pytest.raises(ValueError, match="64 x 64 px, expected at least 32 x 32 and 1,000 in all"):
            uploaded("a.png", image_file(np.eye(64, dtype=np.uint8)), dense.scene, 1, 32)

    def test_nothing_is_kept_on_disk(self, dense, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        dense.upload("a.png", image_file((np.arange(64 * 64).reshape(64, 64) % 251 + 4).astype(np.uint8)))
        assert not list(tmp_path.iterdir())


class TestPages:
    def test_names_are_escaped_everywhere(self, dense):
        evil = '<script>alert("x")</script>'
        source = replace(dense.queries[0], label=evil)
        answer = dense.answer(source, Settings("cfog", k=3))
        answer = replace(answer, source=source)
        for page in (pages.headline(answer, evil), pages.card(answer.image, evil), pages.message(evil)):
            assert "<script" not in page
            assert "&lt;script&gt;" in page

    def test_a_frame_is_more_than_a_colour(self):
        cards = {p: pages.card(np.zeros((4, 4)), "w", p) for p in ("true", "overlaps", "wrong")}
        assert [re.search(r"border:4px (\w+)", c).group(1) for c in cards.values()] == ["solid", "dotted", "dashed"]
        assert all(pages.SIGNS[p] in card for p, card in cards.items())

    def test_the_peak_is_bright_where_it_lies(self):
        heat = HeatMap(np.zeros((50, 50), np.float32), (1.0, 99.0), 2.0)
        heat.scores[10, 40] = 1  # x 81, y 79
        warm = pages.warmed(np.zeros((20, 20, 3), np.float32), (0.0, 100.0, 0.0, 100.0), heat).sum(-1)
        row, col = np.unravel_index(warm.argmax(), warm.shape)
        assert abs((col + 0.5) * 5 - 81) <= 5
        assert abs(100 - (row + 0.5) * 5 - 79) <= 5
        assert (warm > 0).sum() <= 9, "and nowhere else"


class TestPanel:
    @pytest.fixture
    def panel(self, dense):
        panel = ExplorerPanel(dense)
        panel.method.value = "cfog"
        return panel

    def test_methods_are_worded(self, panel, vectors):
        assert [words for words, _ in panel.method.options] == [method_words(n) for n in panel.state.methods]
        assert "vote of neighbours on the map" in [words for words, _ in ExplorerPanel(vectors).refiner.options]

    def test_a_still_shows_what_the_panel_shows(self, panel):
        figure = panel.still()
        off = f"{panel.answer.errors[0]:,.0f} m off"
        assert figure.get_suptitle() == f"Query {panel.source.label}: {off} by {method_words('cfog')} (simulated)"
        titles = [axes.get_title() for axes in figure.axes]
        assert [t.split("\n")[0] for t in titles[2:]] == pages.results(panel.answer)[:4]
        assert [t.split("\n")[1] for t in titles[2:]] == [PLACES[p]["sign"] for p in panel.answer.places[:4]]
        low, high = Image.open(io.BytesIO(embedded(figure, "jpeg")[0])).convert("L").getextrema()
        assert high - low > 100

    def test_k_shows_as_many_results(self, panel):
        panel.k.value = 7
        assert sum(bool(p.value) for p in panel.results.pictures) == 7
        assert panel.results.buttons[7].layout.display == "none"

    def test_choosing_asking_and_reset(self, panel):
        panel.listed.buttons[5].click()
        assert panel.source is panel.state.queries[5]
        assert panel.state.queries[5].label in panel.status.value
        panel.rotation.value = 45
        turned = panel.query.value
        panel.results.buttons[0].click()
        assert panel.source.label.startswith("result 1 of 5:") or "no SAR strip covers" in panel.status.value
        panel.reset.click()
        assert (panel.source, panel.rotation.value) == (panel.state.queries[0], 0)
        assert panel.method.value == panel.state.methods[0]
        assert panel.query.value != turned

    def test_the_list_turns_pages_and_is_searched(self, panel):
        assert panel._shown == list(range(8))
        panel.after.click()
        assert panel._shown == [8, 9, 10, 11]
        assert panel.after.disabled
        panel.search.value = "11: "
        assert panel._shown == [11]
        panel.search.value = ""
        panel.failures.value = True
        assert panel._shown == panel.state.listed(failures_of=panel.settings)[:8]

    def test_locate_draws_other_speckle(self, panel):
        panel.looks.value = 1.0
        first = panel.query.value
        panel.locate.click()
        assert panel.query.value != first

    def test_an_upload_and_a_bad_one(self, panel):
        good = image_file((np.arange(64 * 64).reshape(64, 64) % 251 + 4).astype(np.uint8))
        file = {"name": "<b>mine</b>.png", "type": "image/png", "size": len(good), "content": memoryview(good)}
        file["last_modified"] = datetime.now()
        panel.upload.value = (file,)
        assert "&lt;b&gt;mine" in panel.status.value
        assert "<b>mine" not in panel.status.value + panel.query.value
        panel.upload.value = (file | {"name": "<i>.txt"},)
        assert "&lt;i&gt;.txt: expected an image" in panel.status.value

    def test_help_comes_and_goes(self, panel):
        panel.help_button.value = True
        assert "Failures only" in panel.help.value
        panel.help_button.value = False
        assert panel.help.value == ""


def test_an_image_is_what_the_encoder_sees():
    query = Asked(np.full((1, 8, 8), 0.1, np.float32), "intensity", None)
    np.testing.assert_allclose(query.image(4).numpy(), np.full((1, 1, 4, 4), -10.0), atol=1e-4)
