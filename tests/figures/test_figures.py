"""Figures draw, say their units and whether data are simulated, and show what they are given."""

import base64
import io
import re
import tempfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import seaborn
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Circle
from PIL import Image

import sarmatch as sm
from sarmatch import figures
from sarmatch.evaluation import error_summary
from sarmatch.evaluation.calibration import reliability, risk_coverage
from sarmatch.experiments import studies
from sarmatch.experiments.report import write_report
from sarmatch.figures.charts import MATERIAL_COLOURS
from sarmatch.figures.panels import EFFECTS
from sarmatch.figures.style import (
    FAMILIES,
    GREEN,
    METHOD_STYLES,
    MODALITIES,
    PALE,
    PLACES,
    PURPLE,
    RED,
    REFINER_GROUPS,
    SLATES,
    YELLOW,
    embedded,
    grouped,
    in_order,
)
from sarmatch.patches import regions
from sarmatch.paths import ROOT
from sarmatch.scenes import Area, Raster, Scene, Tile
from sarmatch.scenes.scene import default_bands
from tests.fake_archives import write_vigor

#: Where one label serves all axes.
SHARED = {
    "attended",
    "answers",
    "edges_over",
    "feature_colours",
    "annotated_pair",
    "apart_and_found",
    "by_weight",
    "by_windows",
    "forest",
    "image_grid",
    "layers",
    "lengths",
    "levels",
    "list_on_map",
    "located_strip",
    "overlap_by_stride",
    "recall_curves",
    "robustness",
    "sharpening",
    "split_map",
    "transport",
}
UNITS = (
    "m|km|px|dB|-1 to 1|count|count of times|nats|0 to [12]|percentage points|"
    "unit of the features|no unit|tiles looked at|tile widths|compass"
)
UNIT = re.compile(rf"\(({UNITS}|fraction of queries)\)")


@pytest.fixture(scope="module")
def task(tiny_scene):
    """Queries of the unseen area and their gallery."""
    return sm.search_task(tiny_scene, "arbitrary", None, "test", protocol="cross_area", count=12, seed=1)


@pytest.fixture(scope="module")
def metrics():
    rows = []
    for method, recall in (("plain", 0.5), ("hog", 0.1)):
        row = {f"recall@{k}": recall * k / 10 for k in (1, 5, 10)} | {f"recall@{k}_chance": k / 100 for k in (1, 5, 10)}
        ends = {
            f"recall@{k}_{end}": recall * k / 10 + s for k in (1, 5, 10) for end, s in (("low", -0.01), ("high", 0.01))
        }
        fixed = {"protocol": "cross_area", "kind": "arbitrary", "data": "simulated", "queries": 12, "gallery": 100}
        rows.append({**fixed, "method": method, **row, **ends})
    return pd.DataFrame(rows)


def drawn(figure) -> np.ndarray:
    """The figure's pixels."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=60)
    return np.asarray(Image.open(file).convert("RGB"))


def candidates(queries, tiles):
    """The right tile first, then a semi-positive, then others."""
    found = []
    for query in queries.itertuples():
        first = [query.positive, *query.semi[:1]]
        found.append(first + [i for i in range(len(tiles)) if i not in {query.positive, *query.semi}][: 4 - len(first)])
    return np.array(found)


NOISE = np.random.default_rng(0).random((8, 40, 40)).astype(np.float32)
DENSE_ROWS = pd.DataFrame(
    {
        "queries_of": ["least contrast", "most contrast"] * 2,
        "method": ["dense"] * 2 + ["cfog"] * 2,
        "recall@1": [0.5, 0.9, 0.4, 0.8],
        "recall@1_low": [0.4, 0.8, 0.3, 0.7],
        "recall@1_high": [0.6, 1.0, 0.5, 0.9],
    }
)


ARMS = pd.DataFrame(
    {
        "arm": ["infonce", "wasserstein"] * 2,
        "protocol": "cross_area",
        "kind": "arbitrary",
        "wasserstein_1": [0.5, 0.4, 0.6, 0.3],
        "recall@10": [0.5, 0.6, 0.4, 0.5],
    }
)
PHOTO = np.repeat(NOISE[0][..., None], 3, -1)


def panorama():
    """A panorama of a set in the layout of VIGOR, whose images are made up."""
    with tempfile.TemporaryDirectory() as folder:
        view = sm.load_crossview(write_vigor(Path(folder))[0], "cross_area", "train")
        return figures.panorama_on_tiles(view._replace(simulated=True), 0)


FIGURES = {
    "pair": lambda scene, queries, tiles, metrics: figures.pair(
        sm.read_patch(scene, next(queries.itertuples())), np.full((3, 32, 32), 0.5), "intensity", 0.5, "a", scene.label
    ),
    "image_grid": lambda scene, queries, tiles, metrics: figures.image_grid(
        [[np.eye(32), np.eye(32)]], ["a", "b"], 0.5, "c", scene.label
    ),
    "edges_over": lambda scene, queries, tiles, metrics: figures.edges_over(
        [NOISE[0]], [np.repeat(NOISE[1][..., None], 3, -1)], [np.eye(40) > 0], ["a"], 0.5, "t", scene.label
    ),
    "annotated_pair": lambda scene, queries, tiles, metrics: figures.annotated_pair(
        np.random.default_rng(0).gamma(1, 1, (1, 32, 32)),
        np.full((3, 32, 32), 0.5),
        {"layover": np.eye(32) > 0, "shadow": np.zeros((32, 32), bool), "double bounce": np.tri(32) > 0},
        "intensity",
        0.5,
        "a",
        scene.label,
    ),
    "tiling": lambda scene, queries, tiles, metrics: figures.tiling(
        scene, tiles, next(queries.itertuples()), next(queries.iloc[1:].itertuples())
    ),
    "map_with_places": lambda scene, queries, tiles, metrics: figures.map_with_places(
        scene, queries[:1], tiles, candidates(queries[:1], tiles)[0]
    ),
    "map_of_outcomes": lambda scene, queries, tiles, metrics: figures.map_of_outcomes(
        scene, queries, np.arange(len(queries)) % 2 == 0
    ),
    "split_map": lambda scene, queries, tiles, metrics: figures.split_map(
        scene, {p: regions(scene, p, 64) for p in ("same_area", "cross_area")}, "t"
    ),
    "overlap_by_stride": lambda scene, queries, tiles, metrics: figures.overlap_by_stride(
        {16: np.linspace(0.25, 1, 50), 8: np.linspace(0.5625, 1, 50)}, 16, scene.label
    ),
    "recall_curves": lambda scene, queries, tiles, metrics: figures.recall_curves(metrics),
    "error_cdf": lambda scene, queries, tiles, metrics: figures.error_cdf(
        {"plain": np.array([0.0, 5, 500])}, {"chance": {10: 0.1}}, "a", scene.label
    ),
    "within_metres": lambda scene, queries, tiles, metrics: figures.within_metres(
        pd.DataFrame(
            {"protocol": "same_area", "arm": "plain", "seed": 0, "metres": [5, 50, 500], "fraction": [0.0, 0.1, 0.4]}
        ),
        "a",
        scene.label,
    ),
    "training_curve": lambda scene, queries, tiles, metrics: figures.training_curve(
        pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "recall@1": [0.1, 0.2], "recall@5": [0.5, 0.4]}),
        data=scene.label,
    ),
    "loss_curves": lambda scene, queries, tiles, metrics: figures.loss_curves(
        np.arange(3) / 2, {"infonce": np.arange(3.0)}, {"infonce": np.ones(3)}, 0.8, "t", scene.label
    ),
    "transport": lambda scene, queries, tiles, metrics: figures.transport(
        np.eye(2), np.ones((2, 2)), {"a": np.eye(2) / 2, "b": np.full((2, 2), 0.25)}, "t", scene.label
    ),
    "critic_surfaces": lambda scene, queries, tiles, metrics: figures.critic_surfaces(
        np.zeros((2, 2)),
        np.ones((2, 2)),
        {"a": (NOISE[0], 3 * NOISE[1]), "b": (NOISE[1], NOISE[0])},
        (-1, 2, -1, 2),
        "t",
        scene.label,
    ),
    "layers": lambda scene, queries, tiles, metrics: figures.layers(
        pd.DataFrame(
            {
                "encoder": ["untrained"] * 2 + ["infonce"] * 2,
                "layer": ["input", "layer 1"] * 2,
                "probe": 0.7,
                "ratio": 1.0,
            }
        ).assign(ratio_low=0.9, ratio_high=1.1),
        {"probe": "accuracy (0 to 1)", "ratio": "distance (count of times)"},
        "t",
        scene.label,
    ),
    "ratios": lambda scene, queries, tiles, metrics: figures.ratios(
        pd.DataFrame({"metric": ["sliced", "mmd"] * 2, "encoder": ["infonce"] * 2 + ["one sample"] * 2}).assign(
            ratio=1.2, low=1.1, high=1.4
        ),
        "t",
        scene.label,
    ),
    "estimates": lambda scene, queries, tiles, metrics: figures.estimates(
        pd.DataFrame({"points": [10, 10, 100], "exact": [2.0, 1.5, 1.0], "critic": [0.5, 0.6, 0.8]}), "t", scene.label
    ),
    "apart_and_found": lambda scene, queries, tiles, metrics: figures.apart_and_found(
        ARMS.assign(ratio=1.2), scene.label
    ),
    "forest": lambda scene, queries, tiles, metrics: figures.forest(
        ARMS.assign(control="c", measure="recall@1", difference=0.1, low=0.05, high=0.2), "recall@1", scene.label
    ),
    "levels": lambda scene, queries, tiles, metrics: figures.levels(
        ARMS.assign(**{"recall@10_chance": 0.1}), "recall@10", "t", scene.label
    ),
    "what_if_curve": lambda scene, queries, tiles, metrics: figures.what_if_curve(
        pd.DataFrame({"changed": ["nothing", "looks 1.0"], "looks": [4.0, 1.0], "recall@1": [0.3, 0.2]}).assign(
            **{"recall@1_low": 0.1, "recall@1_high": 0.4, "recall@1_chance": 0.01}
        ),
        "looks",
    ),
    "by_weight": lambda scene, queries, tiles, metrics: figures.by_weight(
        pd.DataFrame(
            {"network": ["a", "a", "b", "b"], "weight": [0, 1.0] * 2, "recall@10": [0.3, 0.4, 0.5, 0.6]}
        ).assign(ratio=1.2, ratio_low=1.1, ratio_high=1.4),
        {"ratio": "distance (count of times)", "recall@10": "recall@10 (fraction of queries)"},
        "network",
        "t",
        scene.label,
    ),
    "groups": lambda scene, queries, tiles, metrics: figures.groups(
        pd.DataFrame(
            {"mean": [0.5, 0.1], "low": [0.4, 0.0], "high": [0.6, 0.2], "queries": 9, "blocks": 3}, index=["a", "b"]
        ),
        "recall@1",
        "t",
        scene.label,
    ),
    "list_on_map": lambda scene, queries, tiles, metrics: figures.list_on_map(
        scene,
        queries[:1],
        tiles,
        {"a": candidates(queries[:1], tiles)[0], "b": candidates(queries[:1], tiles)[0][::-1]},
        np.array([[0, 1], [1, 2]]),
        first=2,
    ),
    "length_of_lists": lambda scene, queries, tiles, metrics: figures.length_of_lists(
        {"arbitrary": np.arange(20), "aligned": np.arange(20) // 4}, 5, 100, scene.label
    ),
    "similarity_by_overlap": lambda scene, queries, tiles, metrics: figures.similarity_by_overlap(
        np.linspace(0, 1, 200), np.linspace(0, 0.8, 200), scene.label
    ),
    "metre_curves": lambda scene, queries, tiles, metrics: figures.metre_curves(
        {"coarse": np.array([10.0, 90, 300]), "ceiling": np.array([5.0, 20, 60])}, scene.label
    ),
    "calibration": lambda scene, queries, tiles, metrics: figures.calibration(
        {"a": reliability(np.linspace(0, 1, 30), np.arange(30) % 2)},
        {"G1": risk_coverage(np.linspace(0, 1, 30), np.arange(30) % 2)},
        scene.label,
    ),
    "messages": lambda scene, queries, tiles, metrics: figures.messages(
        np.array([[0, 0], [1, 0]]), {"a": np.eye(2) > 0}, {"a": np.array([0.5, 0.6])}, 0, "t", scene.label
    ),
    "lengths": lambda scene, queries, tiles, metrics: figures.lengths(
        {
            name: pd.DataFrame(
                {
                    "arm": ["coarse"] * 2 + ["G1"] * 2,
                    "k": [10, 30] * 2,
                    "recall@1": [0.2, 0.2, 0.25, 0.3],
                    "oracle": [0.5, 0.7] * 2,
                }
            )
            for name in ("easy", "standard")
        },
        {
            name: pd.DataFrame(
                {"arm": "G1", "control": "whitened", "k": [10, 30], "difference": 0.1, "low": 0.0, "high": 0.2}
            )
            for name in ("easy", "standard")
        },
        scene.label,
        "t",
    ),
    "strides": lambda scene, queries, tiles, metrics: figures.strides(
        pd.DataFrame(
            {
                "stride": [200, 100] * 2,
                "gallery": [100, 400] * 2,
                "method": ["coarse"] * 2 + ["correlation"] * 2,
                "median_m": [90.0, 40, 20, 10],
                "within_25m": [0.1, 0.2, 0.3, 0.4],
                "ceiling_m": [40.0, 20] * 2,
            }
        ),
        scene.label,
        "t",
    ),
    "feature_colours": lambda scene, queries, tiles, metrics: figures.feature_colours(
        {"SAR": NOISE[0], "map": np.repeat(NOISE[1][..., None], 3, -1)},
        {"learned": [NOISE[:4, :8, :8], NOISE[4:, :8, :8]]},
        "t",
        scene.label,
    ),
    "score_surfaces": lambda scene, queries, tiles, metrics: figures.score_surfaces(
        {"CFOG": NOISE[0]},
        (100.0, 900.0),
        2.0,
        np.array([120.0, 880.0]),
        {"CFOG": np.array([[130.0, 870.0]])},
        "t",
        scene.label,
    ),
    "recall_with_intervals": lambda scene, queries, tiles, metrics: figures.recall_with_intervals(
        DENSE_ROWS.rename(columns={"queries_of": "task"}), "recall@1", f"t ({scene.label})"
    ),
    "by_contrast": lambda scene, queries, tiles, metrics: figures.by_contrast(DENSE_ROWS, f"t ({scene.label})"),
    "answers": lambda scene, queries, tiles, metrics: figures.answers(
        [[NOISE[0], *(np.repeat(NOISE[i][..., None], 3, -1) for i in (1, 2))]], ["query 3"], 2.0, f"t ({scene.label})"
    ),
    "located_strip": lambda scene, queries, tiles, metrics: figures.located_strip(
        PHOTO,
        (0, 800, 0, 800),
        np.log(NOISE[0] + 1e-3),
        (0, 800, 0, 800),
        "t",
        scene.label,
        np.array([[100.0, 100], [200, 100], [200, 700], [100, 700]]),
        np.array([[150.0, 200], [150, 600]]),
        np.array([[600.0, 600, 0.1]]),
        NOISE[:1, :, :10] + 0.1,
        "intensity",
        PHOTO[:, :10],
        2.0,
        np.array([150.0, 400]),
    ),
    "sharpening": lambda scene, queries, tiles, metrics: figures.sharpening(
        [("1 window: 0.10", np.log(NOISE[0] + 1e-3)), ("2 windows: 0.90", np.log(NOISE[1] + 1e-3))],
        (0, 800, 0, 800),
        np.array([150.0, 400]),
        "t",
        scene.label,
    ),
    "by_windows": lambda scene, queries, tiles, metrics: figures.by_windows(
        pd.DataFrame({"method": "dense", "windows": [1, 2], "within_25m": [0.5, 0.9]}).assign(
            within_25m_low=0.4, within_25m_high=1.0
        ),
        {"within_25m": "within 25 m"},
        f"t ({scene.label})",
    ),
    "ambiguity": lambda scene, queries, tiles, metrics: figures.ambiguity(
        PHOTO,
        (0, 800, 0, 800),
        np.array([[x, y] for x in (200.0, 600) for y in (200.0, 600)]),
        np.arange(4) / 4,
        "t",
        scene.label,
    ),
    "drift_of": lambda scene, queries, tiles, metrics: figures.drift_of({"truth": NOISE[0, :4, :2]}, "t", scene.label),
    "attended": lambda scene, queries, tiles, metrics: figures.attended(
        [np.random.default_rng(0).random((16, 16, 3))] * 2, {"TransGeo": [np.eye(4)] * 2}, 0.5, "simulated"
    ),
    "panorama_on_tiles": lambda scene, queries, tiles, metrics: panorama(),
    "robustness": lambda scene, queries, tiles, metrics: figures.robustness(
        ARMS.assign(change="looks (count)", value=[1, 1, 4, 4], seed=0, **{"recall@10_chance": 0.05}), scene.label
    ),
    "scatter_map": lambda scene, queries, tiles, metrics: figures.scatter_map(
        dict.fromkeys("abcd", NOISE[0, :, :2]),
        np.repeat(["x", "y"], 20),
        {"x": "red", "y": "blue"},
        "t",
        scene.label,
        lines=5,
    ),
    "outcome_map": lambda scene, queries, tiles, metrics: figures.outcome_map(
        {"a": NOISE[0, :20, :2]}, {"a": NOISE[0, :, :2]}, {"a": np.arange(20) < 5}, "t", scene.label
    ),
    "material_statistics": lambda scene, queries, tiles, metrics: figures.material_statistics(
        pd.DataFrame({"material": ["water"] * 5 + ["grass"] * 5, "HH": range(10), "brightness": np.linspace(0, 1, 10)}),
        "t",
        scene.label,
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_draws_and_names_its_units_and_its_data(name, tiny_scene, task, metrics):
    figure = FIGURES[name](tiny_scene, *task, metrics)
    assert np.ptp(drawn(figure)) > 100, "an empty picture"
    titles = [figure.get_suptitle(), *(ax.get_title() for ax in figure.axes)]
    assert any("simulated" in title for title in titles)
    for ax in figure.axes:
        axes = (("x", ax.xaxis), ("y", ax.yaxis))
        for direction, axis in axes:
            text = axis.get_label_text()
            place = ax.get_subplotspec()  # None for a colour bar
            below = direction == "x" and place is not None and not place.is_last_row()
            shared = name in SHARED and (below or ax is not figure.axes[0])
            categories = (
                name in {"material_statistics", "ratios", "forest", "groups", "levels", "recall_with_intervals"}
                and direction == "y"
            )
            colour_bar = not text and ax.get_label() == "<colorbar>"
            if not (shared and not text) and not categories and not colour_bar:
                assert UNIT.search(text), f"{name}: the {direction} axis says {text!r}"


def test_all_public_figures_are_drawn_here():
    others = {
        "to_display",
        "decibels",
        "method_line",
        "overview",
        "place_of",
        "fractions_within",
        "method_about",
        "method_words",
        "use_style",
    }
    makers = {name for name in figures.__all__ if name.islower()} - others
    assert makers == set(FIGURES) | {"pipeline", "retrieval_rows", "systems_flow"}


class TestDisplay:
    def test_intensity_and_amplitude_of_one_power_are_one_picture(self):
        power = np.random.default_rng(0).uniform(0.01, 1, (1, 20, 20))
        np.testing.assert_allclose(
            figures.to_display(power, "intensity"), figures.to_display(np.sqrt(power), "amplitude"), atol=1e-5
        )

    def test_decibels_are_ten_logarithms_of_power(self):
        np.testing.assert_allclose(figures.decibels(np.array([1.0, 0.1, 100.0]), "intensity"), [0, -10, 20], atol=1e-5)
        np.testing.assert_allclose(figures.decibels(np.array([1.0, 0.1]), "amplitude"), [0, -20], atol=1e-5)

    def test_zero_power_stays_finite(self):
        assert np.isfinite(figures.to_display(np.zeros((1, 4, 4)), "intensity")).all()

    def test_limits_are_black_and_white(self):
        pixels = np.array([[[1e-2, 1e-1, 1.0, 1e2]]])
        np.testing.assert_allclose(figures.to_display(pixels, "intensity", (-20, 0)), [[0, 0.5, 1, 1]], atol=1e-5)

    def test_percentiles_clip_one_value_in_a_hundred_at_each_end(self):
        pixels = np.random.default_rng(0).permutation(np.linspace(1, 100, 10_000)).reshape(1, 100, 100)
        image = figures.to_display(pixels, "intensity")
        assert (image == 0).mean() == pytest.approx(0.01, abs=1e-3)
        assert (image == 1).mean() == pytest.approx(0.01, abs=1e-3)

    def test_optical_is_clipped_and_nothing_else(self):
        pixels = np.array([-0.5, 0.25, 1.5], np.float32)[:, None, None] * np.ones((3, 2, 2), np.float32)
        np.testing.assert_array_equal(figures.to_display(pixels, "reflectance")[0, 0], [0, 0.25, 1])

    def test_an_unknown_scale_is_named(self):
        with pytest.raises(ValueError, match="'dB', expected one of"):
            figures.to_display(np.ones((1, 2, 2)), "dB")


class TestOverview:
    def raster(self, *tiles):
        return Raster(
            "map",
            tuple(Tile(*corner, *a.shape[1:], lambda r, c, a=a: a[:, r, c]) for corner, a in tiles),
            ("r", "g", "b"),
            "reflectance",
        )

    def test_blocks_are_averaged_and_bytes_scaled(self):
        pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 24), np.uint8)
        small = figures.overview(self.raster(((0, 0), pixels)), longest=10)
        expected = [
            [[block.mean() / 255 for block in np.split(row, 6, 1)] for row in np.split(c, 10, 0)] for c in pixels
        ]
        np.testing.assert_allclose(small, expected, rtol=1e-5)

    def test_ground_without_a_tile_is_nan_and_tiles_keep_their_place(self):
        one, two = np.full((3, 8, 8), 0.25, np.float32), np.full((3, 8, 8), 0.75, np.float32)
        small = figures.overview(self.raster(((0, 0), one), ((8, 8), two)), longest=8)
        assert small.shape == (3, 8, 8)
        assert (small[:, :4, :4] == 0.25).all()
        assert (small[:, 4:, 4:] == 0.75).all()
        assert np.isnan(small[:, :4, 4:]).all()


class TestPlaces:
    def test_what_a_tile_is_to_its_query(self):
        assert [figures.place_of(tile, 3, (4, 5)) for tile in (3, 5, 6)] == ["true", "overlaps", "wrong"]

    def test_frames_tell_places_apart_by_colour_and_line(self, tiny_scene, task):
        queries, tiles = task
        found = candidates(queries[:2], tiles)
        figure = figures.retrieval_rows(
            tiny_scene, queries[:2], tiles, found, np.ones(found.shape), np.ones(found.shape)
        )
        drawn(figure)
        first = figure.axes[:6]
        colours = [to_hex(ax.spines["left"].get_edgecolor()).upper() for ax in first[2:]]
        lines = [ax.spines["left"].get_linestyle() for ax in first[2:]]
        assert colours == [GREEN, GREEN, RED, RED]
        assert lines[0] != lines[-1]
        assert [ax.get_title().split("\n")[0] for ax in first[2:4]] == ["1: true tile", "2: overlaps"]
        assert "1 m, score 1.000" in first[2].get_title()
        assert "simulated" in figure.get_suptitle()

    def test_places_and_methods_never_differ_in_colour_alone(self):
        methods = {id(m): m.line for m in METHOD_STYLES.values() if m.line}  # two names of one method look the same
        for values in (list(PLACES.values()), list(methods.values())):
            lines, markers = ({v[what] for v in values} for what in ("linestyle", "marker"))
            assert len(values) in (len(lines), len(markers))

    def test_a_method_looks_the_same_everywhere(self):
        assert figures.method_line("resnet18") == figures.method_line("resnet18")
        assert figures.method_line("hog") == METHOD_STYLES["hog"].line

    def test_a_map_shows_one_area(self, tiny_scene):
        queries = sm.queries(tiny_scene, "aligned")
        with pytest.raises(ValueError, match=r"a map shows one area, but the table has \['one', 'two', 'unseen'\]"):
            figures.map_of_outcomes(tiny_scene, queries, np.ones(len(queries), bool))

    def test_a_tile_found_in_another_area_is_not_drawn(self, tiny_scene):
        tiles = sm.references(tiny_scene)
        queries = sm.match(sm.queries(tiny_scene, "aligned"), tiles, tiny_scene)
        query, elsewhere = queries[queries.area == "one"][:1], tiles.index[tiles.area == "two"][0]
        figure = figures.map_with_places(tiny_scene, query, tiles, [elsewhere, query.positive.iloc[0]])
        assert [t.get_text() for t in figure.axes[0].texts] == ["2"]


class TestSplitMap:
    def test_the_guard_band_is_hatched_where_it_lies(self, tiny_scene):
        guard = 64
        figure = figures.split_map(tiny_scene, {"cross_area": regions(tiny_scene, "cross_area", guard)}, "t")
        hatched = [p for ax in figure.axes for p in ax.patches if p.get_hatch()]
        assert len(hatched) == 2, "one in each town that has training and validation ground"
        heights = {round(float(np.ptp(p.get_xy()[:, 1])) * 1000 / tiny_scene.pixel_size) for p in hatched}
        assert heights == {guard}

    def test_nothing_is_hatched_without_a_guard_band(self, tiny_scene):
        figure = figures.split_map(tiny_scene, {"same_area": regions(tiny_scene, "same_area", 64)}, "t")
        assert not [p for ax in figure.axes for p in ax.patches if p.get_hatch()]


class TestCharts:
    def test_pipeline_highlights_its_stages_and_refuses_others(self):
        figure = figures.pipeline("patches")
        filled = [to_hex(b.get_facecolor()) != "#ffffff" for b in figure.axes[0].patches if hasattr(b, "get_boxstyle")]
        assert filled == [name == "patches" for name in figures.STAGES]
        assert figure.axes[0].get_title() == "This notebook: patches (1 of 6 stages)"
        with pytest.raises(ValueError, match="no stage is called"):
            figures.pipeline("paches")

    def test_recall_curves_plot_the_table(self, metrics):
        lines = {line.get_label(): line.get_ydata() for line in figures.recall_curves(metrics).axes[0].lines}
        np.testing.assert_allclose(lines["trained encoder"], [0.05, 0.25, 0.5])
        np.testing.assert_allclose(lines["chance"], [0.01, 0.05, 0.1])

    def test_the_mean_overlaps_stand_in_the_title(self):
        figure = figures.overlap_by_stride({8: np.array([0.5, 1.0]), 4: np.array([0.9, 1.0])}, 8, "simulated")
        assert "mean overlap 75%, 95% at strides of 8, 4 px" in figure.get_suptitle()

    def test_an_error_of_zero_shows_on_the_logarithmic_axis(self):
        (line,) = figures.error_cdf({"plain": np.zeros(4)}, {}, "a", "real").axes[0].lines
        assert line.get_xdata().max() == 1
        assert line.get_ydata().max() == 1

    def test_curves_over_metres_are_means_of_seeds_and_have_no_point_at_nothing(self):
        rows = [
            ("plain", s, m, f)
            for s, of in enumerate([(0.0, 0.2), (0.0, 0.4)])
            for m, f in zip((5, 50), of, strict=True)
        ]
        known = pd.DataFrame([*rows, ("chance", 0, 5, 0.01)], columns=["arm", "seed", "metres", "fraction"])
        unseen = pd.DataFrame([("plain", 0, 5, 0.1)], columns=known.columns)
        curves = pd.concat([known.assign(protocol="same_area"), unseen.assign(protocol="cross_area")])
        one, other = figures.within_metres(curves, "t", "real").axes
        assert (one.get_title(), other.get_title()) == ("same area", "unseen area")
        assert [line.get_ydata().tolist() for line in other.lines] == [[0.1]]
        plain, chance = one.lines
        assert (plain.get_label(), chance.get_label()) == ("trained encoder", "chance")
        assert plain.get_xdata().tolist() == [5, 50]
        np.testing.assert_allclose(plain.get_ydata(), [np.nan, 0.3])

    def test_points_of_a_distribution_come_from_a_summary(self):
        summary = error_summary(np.arange(1, 101), (10, 50))
        row = {f"chance_{k}": v for k, v in summary.items()} | {"chance_within_99m": float("nan")}
        points = figures.fractions_within(row, "chance_")
        assert points[10] == 0.1
        assert points[summary["median_m"]] == 0.5
        assert list(points) == sorted(points)
        assert 99 not in points

    def test_thresholds_relative_to_a_tile_are_no_metres(self):
        points = figures.fractions_within(error_summary(np.arange(1, 101), (10,), tile_m=40.0))
        assert list(points) == pytest.approx([10, 50.5, 90.1])

    def test_old_columns_of_one_scene_are_still_read(self):
        assert figures.fractions_within({"within_27m": 0.3, "median_m": 40.0, "p90_m": 90.0})[27] == 0.3


def recorded() -> Iterator[tuple[Path, list[str]]]:
    """Each recorded comparison and its methods."""
    for path in (ROOT / "data/results").glob("*/table.csv"):
        table = pd.read_csv(path)
        yield path, list(dict.fromkeys(table["arm" if "arm" in table else "method"]))


#: Methods that stand in one figure without being recorded together.
DRAWN_TOGETHER = [
    ("infonce", "triplet", "wasserstein", "clipped", "class_adversary", "sliced", "sinkhorn", "untrained"),
    ("shared", "two_branches"),
    ("plain", "hog", "chance", "ceiling"),
    ("cfog", "dense", "registered", "vector"),
    ("coarse", "whitened", "gnn", "interpolated_map", "correlation", "coarse_to_fine", "vector", "ceiling"),
    ("panorama", "vigor_vgg16", "transgeo", "saig_s_smd", "saig_d_smd", "sample4geo", "chance", "ceiling"),
]
#: Seen without the cones for long and for middle waves, in linear RGB: Machado, Oliveira and Fernandes, 2009.
BLIND = {
    "no long": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "no middle": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
}


def seen(colours, eyes) -> np.ndarray:
    """CIELAB of colours."""
    rgb = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = (linear @ np.transpose(eyes)).clip(0, 1) @ np.transpose(to_xyz) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


class TestColours:
    def test_a_method_has_the_colour_of_a_family_and_none_that_means_something_else(self):
        assert {method.line["color"] for method in METHOD_STYLES.values()} == set(FAMILIES.values())
        assert len(set(FAMILIES.values())) == len(FAMILIES)
        others = (figures.MODALITY_COLOURS, figures.LAND_COVER_COLOURS, figures.TOWN_COLOURS, figures.SPLIT_COLOURS)
        taken = [colour for colours in (*others, EFFECTS, MATERIAL_COLOURS) for colour in colours.values()]
        taken += [*SLATES, YELLOW, PURPLE, PALE, *{place["color"] for place in PLACES.values()}]
        assert not set(FAMILIES.values()) & set(taken)
        assert len(set(taken)) == len(taken)

    @pytest.mark.parametrize(("eyes", "least"), [("all", 20), ("no long", 14), ("no middle", 14)])
    def test_families_are_told_apart_by_every_kind_of_eyes(self, eyes, least):
        colours = seen(FAMILIES.values(), BLIND.get(eyes, np.eye(3)))
        apart = np.linalg.norm(colours[:, None] - colours, axis=-1)
        assert apart[np.triu_indices(len(apart), 1)].min() > least

    @pytest.mark.parametrize("name", ["optical", "SAR", "true", "wrong"])
    def test_no_family_looks_like_a_modality_or_a_verdict(self, name):
        colour = (MODALITIES | PLACES)[name]["color"]
        for eyes in (np.eye(3), *BLIND.values()):
            method, other = seen(list(FAMILIES.values())[1:], eyes), seen([colour], eyes)
            assert np.linalg.norm(method - other, axis=-1).min() > 7.5

    def test_two_methods_of_one_figure_differ_in_colour_or_in_line_style_and_marker(self):
        for where, arms in [*recorded(), *(("notebook", arms) for arms in DRAWN_TOGETHER)]:
            for one, other in combinations(arms, 2):
                first, second = figures.method_line(one), figures.method_line(other)
                if first["color"] != second["color"]:
                    continue
                assert first["marker"] != second["marker"], (where, one, other)
                if not re.search(r"_[\d.]+$", one):  # whose line says to which network an alignment belongs
                    assert first["linestyle"] != second["linestyle"], (where, one, other)

    def test_a_method_with_something_behind_it_keeps_its_colour_and_has_a_line_of_its_own(self):
        whitened = figures.method_line("plain + whitened")
        assert whitened["color"] == figures.method_line("plain")["color"]
        assert whitened["linestyle"] not in [method.line["linestyle"] for method in METHOD_STYLES.values()]

    def test_an_unlisted_method_is_grey_with_a_mark_by_its_name(self):
        lines = [figures.method_line(name) for name in ("mine", "mine", "my other one")]
        assert {line["color"] for line in lines} == {PALE}
        assert lines[0] == lines[1]
        assert lines[0]["marker"] != lines[2]["marker"]


class TestOrder:
    def test_every_forest_of_several_methods_has_groups(self):
        compared = ("questions", "systems_", "alignment", "one_look_direction", "refinement_", "lengths_", "peaks_")
        for path, arms in recorded():
            if path.parent.name.startswith(compared):
                assert "" not in grouped(arms), path

    def test_systems_and_their_published_numbers_stand_in_one_order(self):
        text = (ROOT / "data/results/systems.md").read_text()
        for name, arms in recorded():
            if name.parent.name in ("systems_standard", "systems_ablations_saig"):
                block = re.search(rf"<!-- {name.parent.name}: .*?<!-- end", text, re.DOTALL)[0]
                rows = re.findall(r"^\| ([^|]+) \|", block, re.MULTILINE)[1:]
                assert rows == [figures.method_words(arm) for arm in in_order(arms)]

    def test_a_recorded_comparison_is_loaded_in_the_order_of_the_figures(self):
        for table in sm.load_sweep("systems_standard"):
            assert list(dict.fromkeys(table["arm"])) == in_order(table["arm"])

    def test_names_without_a_group_stay_as_they_are(self):
        assert grouped(["G1", "mine", "G0", "mine"]) == {"": ["G1", "mine", "G0"]}


class TestWords:
    def test_a_known_method_is_told_in_words_and_an_unknown_one_as_it_is(self):
        assert figures.method_words("G1") == figures.method_words("gnn") == "graph network, edges in metres"
        assert figures.method_words("mine") == "mine"

    def test_methods_of_the_recorded_comparisons_are_all_told_in_words(self):
        for table, arms in recorded():
            assert not set(arms) - set(METHOD_STYLES), table

    def test_no_two_methods_of_one_comparison_have_the_same_words(self):
        for table, arms in recorded():
            assert len({figures.method_words(arm) for arm in arms}) == len(arms), table

    def test_a_figure_says_words_and_no_codes(self):
        arms = ["G0", "G1", "M2", "coarse"]
        gaps = pd.DataFrame({"arm": arms, "control": "coarse", "protocol": "cross_area", "kind": "aligned"})
        figure = figures.forest(
            gaps.assign(measure="recall@1", difference=0.1, low=0.0, high=0.2), "recall@1", "simulated"
        )
        texts = [t.get_text() for ax in figure.axes for t in (*ax.get_yticklabels(), ax.title)]
        texts.append(figure.get_suptitle())
        assert not [t for t in texts if re.search(r"\b[GM]\d\b|coarse|cross_area", t)]


class TestForest:
    def gaps(self, arms):
        gaps = pd.DataFrame({"arm": arms, "control": "whitened", "protocol": "cross_area", "kind": "arbitrary"})
        gaps = gaps.assign(measure="recall@1", difference=0.1, low=0.0, high=0.2)
        return pd.concat([gaps, gaps.assign(measure="recall@10")])

    def lines(self, arms) -> list[tuple[str, str]]:
        figure = figures.forest(self.gaps(arms), ["recall@1", "recall@10"], "simulated", "found")
        assert len(figure.axes) == 2
        assert figure.get_suptitle().startswith("found\nDifference to search with whitened embeddings")
        return [(t.get_text(), t.get_fontweight()) for t in figure.axes[0].get_yticklabels()]

    def test_refiners_stand_in_one_order_under_what_they_have_in_common(self):
        lines = self.lines(["G1", "coarse", "M2"])
        assert lines == self.lines(["M2", "G1", "coarse"])
        assert [words for words, weight in lines if weight == "bold"] == [
            *("training-free, from embeddings", "learned, without edges", "learned, with edges")
        ]
        words = [words for words, weight in lines if weight != "bold"]
        assert words == [figures.method_words(arm) for arm in ("coarse", "M2", "G1")]

    def test_alignments_stand_under_their_network_by_weight(self):
        lines = self.lines(["two_branches_wasserstein_10", "shared_sinkhorn_1", "two_branches_wasserstein_0.1"])
        assert [words for words, weight in lines if weight == "bold"] == ["shared network", "two branches"]
        own = [words for words, weight in lines if weight != "bold"]
        critic = "Wasserstein critic of weight"
        assert own == ["Sinkhorn divergence of weight 1", f"{critic} 0.1", f"{critic} 10"]

    def test_where_one_has_no_group_none_has_a_heading(self):
        assert [words for words, _ in self.lines(["G1", "mine"])] == [figures.method_words("G1"), "mine"]

    def test_every_refiner_of_the_comparison_has_one_group_and_says_what_it_does(self):
        grouped = [arm for members in REFINER_GROUPS.values() for arm in members]
        assert sorted(grouped) == sorted(studies.ARMS)
        assert all(figures.method_about(arm) for arm in studies.ARMS)
        assert figures.method_about("mine") == ""


def test_edges_lie_where_the_image_has_them():
    """A step to the right of column 20, under noise: a line there, and next to nothing elsewhere."""
    step = np.where(np.arange(40) < 20, 0.2, 0.8) + 0.05 * NOISE[0]
    figure = figures.edges_over(
        [step], [np.ones((40, 40, 3))], [np.zeros((40, 40), bool)], ["a"], 0.5, "t", "simulated"
    )
    drawn_over = np.asarray(figure.axes[0].images[1].get_array())[..., 3] > 0
    assert drawn_over[:, 18:22].any(axis=1).mean() > 0.9
    assert drawn_over[5:-5, 25:].mean() < 0.1


def test_a_panel_of_messages_has_the_edges_of_its_own_network():
    place, score = np.array([[0, 0], [1, 0], [5, 0]]), np.ones(3)
    loops, near = np.eye(3) > 0, np.abs(np.subtract.outer(place[:, 0], place[:, 0])) < 2
    receives = {"loops": loops, "near": near & ~loops}
    figure = figures.messages(place, receives, dict.fromkeys(("none", *receives), score), 0, "t", "simulated")
    found = [
        (
            [segment.tolist() for segment in ax.collections[0].get_segments()],
            sum(isinstance(p, Circle) for p in ax.patches),
        )
        for ax in figure.axes[1:]
    ]
    assert found == [([], 0), ([], 3), ([[[0, 0], [1, 0]]], 0)]


def test_the_first_tile_after_messages_is_in_bold():
    figure = figures.messages(
        np.array([[0, 0], [1, 0]]), {"a": np.ones((2, 2), bool)}, {"a": np.array([0.5, 0.6])}, 0, "t", "simulated"
    )
    bold = [t.get_text() for t in figure.axes[1].texts if t.get_fontweight() == "bold"]
    assert bold == ["tile 2\n0.60"]


SMALL = {
    "image_size": 16,
    "epochs": 1,
    "pairs_per_epoch": 16,
    "batch_size": 8,
    "val_queries": 8,
    "test_queries": 20,
    "baseline_options": {"cells": 4},
    "encoder_options": {"widths": (8, 8, 8, 8, 8), "feature_dim": 8},
}


class TestReport:
    def page(self, scene: Scene, folder, monkeypatch, **changes) -> str:
        from sarmatch.datasets import registry

        monkeypatch.setitem(registry.SIMULATED, "tiny", lambda profile, bands: scene)
        run = sm.run(sm.recipe("demo", scene="tiny", **(SMALL | changes)), folder)
        path = write_report(run)
        assert path == run.report == folder / "report.html"
        assert not list(folder.glob("*.part"))
        return path.read_text()

    def pictures(self, page: str) -> list[Image.Image]:
        return [Image.open(io.BytesIO(base64.b64decode(b))) for b in re.findall(r'base64,([^"]+)"', page)]

    def test_a_scene_with_coordinates(self, tiny_scene, tmp_path, monkeypatch):
        page = self.page(tiny_scene, tmp_path, monkeypatch)
        assert "simulated data" in page
        assert not re.search(r'(src|href)="(?!data:)', page), "the page needs something beside it"
        assert "<h2>Metres</h2>" in page
        assert "On the map" in page
        for text in ("chance", "ceiling", "HOG, training-free", "gallery of 100 tiles", "20 test queries", "median_m"):
            assert text in page
        assert 'alt=""' not in page
        assert all(min(picture.size) > 150 for picture in self.pictures(page))

    def test_the_table_states_the_metrics(self, tiny_scene, tmp_path, monkeypatch):
        page = self.page(tiny_scene, tmp_path, monkeypatch)
        run = sm.load_run(tmp_path)
        value = run.summary.xs(("cross_area", "arbitrary", "recall@10"), level=["protocol", "kind", "measure"])["plain"]
        rows = re.search(r"unseen area, arbitrary: .*?</table>", page).group(0)
        assert f"<td>recall@10</td><td class=ours>{value.iloc[0]:.4f}</td>" in rows

    def test_a_set_without_coordinates_has_no_metres(self, pairs_folder, tmp_path):
        settings = SMALL | {"baseline_options": {"cells": 2}}
        run = sm.run(sm.recipe("own", scene=str(pairs_folder), **settings), tmp_path)
        page = write_report(run).read_text()
        assert "real data" in page
        assert "no coordinates" in page
        assert "<h2>Metres</h2>" not in page
        assert "median_m" not in page
        assert "On the map" not in page

    def test_a_map_with_gaps(self, tmp_path, monkeypatch):
        def raster(name, corners, channels, scale):
            rng = np.random.default_rng(len(corners))
            tiles = [(r, c, rng.random((channels, 160, 160), np.float32) + 0.1) for r, c in corners]
            return Raster(
                name,
                tuple(Tile(r, c, 160, 160, lambda r, c, a=a: a[:, r, c]) for r, c, a in tiles),
                default_bands(channels, scale),
                scale,
            )

        corners = [(0, 0), (160, 160), (320, 160)]  # the rest of the rectangle is no map at all
        area = Area(
            "gaps",
            raster("map", corners, 3, "reflectance"),
            tuple(raster(f"00{i}", [corner], 1, "amplitude") for i, corner in enumerate(corners)),
            ("train", "val", "test"),
        )
        page = self.page(Scene("gappy", (area,), 8.3, 32), tmp_path, monkeypatch, protocols=("same_area",))
        assert "real data" in page
        assert "On the map" in page

    def test_names_cannot_break_the_page(self, tiny_scene, tmp_path, monkeypatch):
        scene = Scene("<b>&", tiny_scene.areas, 0.5, 32, tiny_scene.test_areas, credit="<script>alert(1)</script>")
        page = self.page(scene, tmp_path, monkeypatch)
        assert "<script>" not in page
        assert "&lt;b&gt;&amp;" in page


def test_the_look_is_what_seaborn_calls_ticks():
    """Only its colours differ: every figure names its own."""
    ours, theirs = {}, {}
    with mpl.rc_context():
        mpl.rcdefaults()
        figures.use_style()
        ours.update(mpl.rcParams)
        mpl.rcdefaults()
        seaborn.set_theme(context="notebook", style="ticks", font_scale=0.85)
        theirs.update(mpl.rcParams)
    assert {name for name, value in ours.items() if value != theirs[name]} == {"axes.prop_cycle", "image.cmap"}


class TestEmbedding:
    """What a notebook keeps of a figure."""

    def kinds(self, figure) -> dict[str, tuple[bytes, dict[str, str]]]:
        return {kind: found for kind in ("png", "jpeg") if (found := embedded(figure, kind))}

    def test_line_art_is_png_and_images_are_jpeg(self):
        line_art = figures.ratios(
            pd.DataFrame([{"metric": "mmd", "encoder": "infonce", "ratio": 1.2, "low": 1, "high": 2}]), "t", "simulated"
        )
        photographs = figures.image_grid([[NOISE[0]]], ["a"], 2.0, "t", "simulated")
        for figure, kind in ((line_art, "png"), (photographs, "jpeg")):
            ((only, (content, _)),) = self.kinds(figure).items()
            assert only == kind
            assert Image.open(io.BytesIO(content)).format == kind.upper()

    def test_the_alternative_text_says_titles_panels_and_axes(self):
        figure = figures.image_grid([[NOISE[0], NOISE[1]]], ["SAR", "map"], 2.0, "Two images", "simulated")
        (_, metadata) = self.kinds(figure)["jpeg"]
        assert metadata == {"alt": "Two images (simulated). SAR; map. Horizontal: east (m). Vertical: north (m)."}

    def test_a_diagram_says_its_own_words(self):
        (_, metadata) = self.kinds(figures.pipeline("search"))["png"]
        assert metadata["alt"].startswith("This notebook: search (1 of 6 stages); scenes; map, strips; patches;")


def test_a_class_without_a_colour_is_named():
    with pytest.raises(ValueError, match=r"no colour for the classes \['y'\]; there are colours for \['x'\]"):
        figures.scatter_map({"a": NOISE[0, :, :2]}, np.repeat(["x", "y"], 20), {"x": "red"}, "t", "simulated")
