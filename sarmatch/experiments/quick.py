"""Quick experiments: change one thing about a small simulated town, and search it again in under a minute on a CPU.

Every answer is a row of a table that is kept from one day to the next, and that any spreadsheet opens.
"""

import html
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import ipywidgets as widgets
import numpy as np
import pandas as pd
from pydantic import Field

from sarmatch.atomic_io import write
from sarmatch.checks import Count, Positive, checked_options
from sarmatch.encoders import Encoder
from sarmatch.evaluation import candidate_report, list_ranks, tiles_of_places
from sarmatch.experiments.provenance import digest_of, made_with
from sarmatch.explorer.finders import ALONE, DenseFinder, VectorFinder
from sarmatch.explorer.sources import Disturbance, Source, asked
from sarmatch.figures import what_if_curve
from sarmatch.figures.charts import one_change
from sarmatch.figures.style import embedded, method_words
from sarmatch.patches import positions, search_task
from sarmatch.paths import runs_dir, shipped
from sarmatch.scenes import Area, Raster, Scene, Tile
from sarmatch.simulation import PRESETS
from sarmatch.simulation.optical import SEASONS
from sarmatch.simulation.sar import POLARISATIONS
from sarmatch.simulation.simulate import PIXEL_SIZE, simulate
from sarmatch.training import Run, load_run
from sarmatch.training.loop import train
from sarmatch.training.runs import baseline_of, blocks, intervals

EXTENT_PX = 2000  # side of a town: 1 km
QUERIES = 80
SEED = 2
SHIPPED = {"vector": "data/demo", "hog": "data/demo", "dense": "data/dense", "cfog": "data/dense"}
TRAINING = {"epochs": 2, "pairs_per_epoch": 1024, "protocols": ("cross_area",), "val_queries": 60}
Search = Literal["vector", "hog", "dense", "cfog"]
Whole = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Setting:
    """A quick experiment: everything that may be changed, one thing at a time.

    Attributes
    ----------
    patch_size, stride : int
        Side of a query and of a tile, and the step of the grid of tiles, in pixels of 0.5 m.
    pixel_size : float
        Metres that a pixel shows, of SAR and of the map: averaged to it on the same grid.
    looks : float
        Of the speckle.
    polarisation : str
        `HH`, `VV` or `HV`.
    incidence_shift : float
        Degrees added to the incidence angle of every pass.
    season : str
        Of the photograph.
    k : int
        Length of the lists that a refiner is given.
    search, refiner : str
        `vector` and `dense` are the shipped encoders, `hog` and `cfog` what needs no training. Vectors are compared as
        they are in every setting: some galleries are too small to whiten, and answers are to be compared.
    train_fraction : float
        Of the training areas, for an encoder trained here and now for two short epochs; 0 takes the shipped weights.
    """

    patch_size: int = 200
    pixel_size: float = 0.5
    stride: int = 200
    looks: float = 4.0
    polarisation: str = "HH"
    incidence_shift: float = 0.0
    season: str = "summer"
    k: int = 10
    search: str = "vector"
    refiner: str = ALONE
    train_fraction: float = 0.0


FIELDS = tuple(field.name for field in fields(Setting))

#: What the panel offers to change each thing to.
CHOICES: dict[str, tuple] = {
    "patch_size": (100, 150, 200, 300),
    "pixel_size": (0.5, 1.0, 2.0, 4.0),
    "stride": (50, 100, 200),
    "looks": (1.0, 2.0, 4.0, 16.0),
    "polarisation": tuple(POLARISATIONS),
    "incidence_shift": (-10.0, -5.0, 0.0, 5.0, 10.0),
    "season": tuple(SEASONS),
    "k": (5, 10, 30),
    "search": get_args(Search),
    "refiner": (ALONE, "geographic_vote", "interpolated_map", "correlation"),
    "train_fraction": (0.0, 0.25, 0.5, 1.0),
}


def _checked(
    patch_size: Count = 200,
    pixel_size: Positive = 0.5,
    stride: Count = 200,
    looks: Positive = 4.0,
    polarisation: str = "HH",
    incidence_shift: float = 0.0,
    season: str = "summer",
    k: Count = 10,
    search: Search = "vector",
    refiner: str = ALONE,
    train_fraction: Whole = 0.0,
) -> None:
    """Only its annotations count."""


def what_if(folder: Path | None = None, **changes: Any) -> pd.DataFrame:
    """Ask what happens if something is changed, and keep the answer.

    Parameters
    ----------
    folder
        Where the table is kept; `what_if` among the runs by default.
    changes
        Fields of `Setting`; without any, how it is when nothing is changed.

    Returns
    -------
    The table with all that was asked so far, the latest last: the fields of `Setting`, `changed` (what differs from the
    default, in words), recall with its 95 % interval over spatial blocks and chance, metres, and what made the row. The
    same question of the same code is not computed again.

    Raises
    ------
    ValueError
        Names the field that is unknown or out of range, or what does not go together.
    """
    setting = Setting(**checked_options("what_if", _checked, changes))
    folder = folder or runs_dir() / "what_if"
    table, key = kept(folder), digest_of([vars(setting), made_with()["commit"]])
    if not table.empty and key in set(table["key"]):
        return pd.concat([table[table["key"] != key], table[table["key"] == key]], ignore_index=True)
    began = time.perf_counter()
    numbers = measured(setting, folder)
    changed = ", ".join(f"{n} {getattr(setting, n)}" for n in FIELDS if getattr(setting, n) != getattr(Setting(), n))
    made = {"seconds": time.perf_counter() - began, "data": "simulated", "seed": SEED, **made_with(), "key": key}
    row = pd.DataFrame([{**vars(setting), "changed": changed or "nothing", **numbers, **made}])
    table = row if table.empty else pd.concat([table, row], ignore_index=True)
    write(folder / "table.csv", partial(table.to_csv, index=False))
    return table


def kept(folder: Path | None = None) -> pd.DataFrame:
    """All that was asked so far; empty where nothing was. A ValueError names a table that is damaged."""
    path = (folder or runs_dir() / "what_if") / "table.csv"
    if not path.is_file():
        return pd.DataFrame()
    try:
        table = pd.read_csv(path, dtype={"key": str, "commit": str})
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as a table ({error}); move it away, and a new one is begun") from error
    if missing := {*FIELDS, "changed", "key", "recall@1"} - set(table):
        raise ValueError(f"{path}: has no column {sorted(missing)[0]!r}; move it away, and a new one is begun")
    return table


def measured(setting: Setting, folder: Path) -> dict[str, float]:
    """Recall and metres of a setting on a town that no encoder has seen."""
    scene = town_of(setting)
    queries, tiles = search_task(
        scene,
        "arbitrary",
        setting.patch_size,
        "test",
        protocol="cross_area",
        stride=setting.stride,
        count=QUERIES,
        seed=SEED,
    )
    finder = _finder(setting, scene, tiles, folder)
    if setting.refiner not in finder.refiners:
        raise ValueError(f"refiner is {setting.refiner!r}: {setting.search!r} takes one of {sorted(finder.refiners)}")
    sources = [
        Source(str(i), scene.strip(q.area, q.strip), q.row, q.col, q.size, q.area)
        for i, q in enumerate(queries.itertuples(index=False))
    ]
    found = finder.find([asked(source, Disturbance()) for source in sources], setting.k, setting.refiner)
    side, positive = setting.patch_size * PIXEL_SIZE, queries["positive"].to_numpy()
    report = candidate_report(found, positive, tiles, side, positions(queries))
    rank = list_ranks(tiles_of_places(found, tiles, side), found.scores, positive, len(tiles))
    return {**report, **intervals(rank, blocks(scene, queries), ks=(1,))}


def town_of(setting: Setting) -> Scene:
    """The small towns of a setting: one unseen, and two to learn from that are rendered only where that is done."""
    preset = PRESETS["easy"]._replace(looks=setting.looks, season=setting.season)
    shift = setting.incidence_shift
    towns = tuple(
        t._replace(passes=tuple(p._replace(incidence_deg=p.incidence_deg + shift) for p in t.passes))
        for t in preset.towns
    )
    scene = simulate("easy", preset._replace(towns=towns), EXTENT_PX, (setting.polarisation,), test_areas=("unseen",))
    return scene if setting.pixel_size == PIXEL_SIZE else coarser(scene, setting.pixel_size)


def coarser(scene: Scene, pixel_size: float) -> Scene:
    """The same scene seen by pixels of another size, on the same grid: blocks of pixels are averaged.

    Raises
    ------
    ValueError
        Where a pixel would not be a whole number of the scene's own.
    """
    factor = round(pixel_size / scene.pixel_size)
    if factor < 1 or abs(factor * scene.pixel_size - pixel_size) > 1e-6:
        raise ValueError(
            f"pixel_size is {pixel_size:g} m, expected a multiple of the {scene.pixel_size:g} m of the scene"
        )

    def changed(raster: Raster) -> Raster:
        tiles = tuple(replace(t, read=partial(_averaged, t, factor), digest=None) for t in raster.tiles)
        return replace(raster, tiles=tiles)

    def area(of: Area) -> Area:
        return replace(of, map=changed(of.map), strips=tuple(map(changed, of.strips)))

    return replace(scene, areas=tuple(map(area, scene.areas)))


def _averaged(tile: Tile, factor: int, rows: slice, cols: slice) -> np.ndarray:
    """A part of a tile, every pixel the mean of its block; blocks count from the tile's top left."""
    first = [s.start // factor * factor for s in (rows, cols)]
    last = [-(-s.stop // factor) * factor for s in (rows, cols)]
    inside = [slice(a, min(b, n)) for a, b, n in zip(first, last, (tile.height, tile.width), strict=True)]
    part = tile.read(*inside)
    values = part.astype(np.float32) / (255 if part.dtype == np.uint8 else 1)
    short = [(0, b - s.stop) for b, s in zip(last, inside, strict=True)]
    values = np.pad(values, [(0, 0), *short], mode="edge")
    bands, high, wide = values.shape
    mean = values.reshape(bands, high // factor, factor, wide // factor, factor).mean((2, 4))
    whole = mean.repeat(factor, 1).repeat(factor, 2)
    return whole[:, rows.start - first[0] : rows.stop - first[0], cols.start - first[1] : cols.stop - first[1]]


def _finder(setting: Setting, scene: Scene, tiles: pd.DataFrame, folder: Path) -> DenseFinder | VectorFinder:
    run = load_run(shipped(SHIPPED[setting.search]))
    if setting.train_fraction and setting.search != "vector":
        raise ValueError(f"train_fraction is {setting.train_fraction:g}: only search 'vector' is trained here")
    if setting.search in ("dense", "cfog"):
        return DenseFinder("dense", run.encoder if setting.search == "dense" else run.baseline, scene, tiles)
    if setting.search == "hog":
        return VectorFinder(baseline_of(run.config), scene, tiles)
    return VectorFinder(_trained(setting, run, scene, folder) if setting.train_fraction else run.encoder, scene, tiles)


def _trained(setting: Setting, run: Run, scene: Scene, folder: Path) -> Encoder:
    """The encoder of a run, trained anew on the towns of a setting for a moment."""
    config = run.config.model_copy(
        update=TRAINING | {"train_fraction": setting.train_fraction, "patch_size": setting.patch_size}
    )
    return train(config, scene, folder / f"training-{digest_of(vars(setting))}", report=lambda history: None)


class WhatIfPanel(widgets.VBox):
    """Choose one thing and its value, press run: a row more in the table, and the curve drawn again.

    Parameters
    ----------
    folder
        Where the table is kept, see `what_if`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.field = widgets.Dropdown(options=list(CHOICES), description="change")
        self.value = widgets.Dropdown(options=CHOICES[self.field.value], description="to")
        self.run = widgets.Button(description="run", icon="play", button_style="primary")
        self.table, self.curve, self.status = widgets.HTML(), widgets.Image(format="png"), widgets.HTML()
        self.field.observe(lambda change: setattr(self.value, "options", CHOICES[change["new"]]), "value")
        self.run.on_click(lambda _: self._ask({self.field.value: self.value.value}))
        super().__init__([widgets.HBox([self.field, self.value, self.run]), self.status, self.table, self.curve])
        self._show(kept(folder))

    def _ask(self, changes: Mapping[str, Any]) -> None:
        self.status.value, self.run.disabled = "at work, up to a minute ...", True
        try:
            self._show(what_if(self.folder, **changes))
            self.status.value = ""
        except (ValueError, OSError) as error:
            self.status.value = html.escape(str(error))
        finally:
            self.run.disabled = False

    def _show(self, table: pd.DataFrame) -> None:
        if table.empty:
            return
        self.table.value = short(table).to_html(index=False, float_format=lambda x: f"{x:.3g}")
        self.curve.value = embedded(what_if_curve(table, self.field.value), "png")[0]


def short(table: pd.DataFrame, field: str | None = None) -> pd.DataFrame:
    """The columns to read first, of all rows or of those in which nothing but a field was changed."""
    table = table if field is None else one_change(table, field)
    names = ["changed", "queries", "gallery", "recall@1", "recall@1_low", "recall@1_high", "recall@1_chance"]
    table = table.assign(changed=table["changed"].map(_in_words))
    return table[[n for n in (*names, "recall@10", "median_m", "seconds") if n in table]].round(3)


def _in_words(changed: str) -> str:
    """What was changed, methods by their words: "patch size 100; dense search, learned"."""
    parts = [part.partition(" ") for part in changed.split(", ")]
    words = [method_words(value) for _, _, value in parts]
    named = [w if w != v else f"{n.replace('_', ' ')} {v}".strip() for w, (n, _, v) in zip(words, parts, strict=True)]
    return "; ".join(named)
