"""Records under `data/`: what runs and comparisons found, where each came from, and the pages that are made of them."""

import copy
import json
import shutil
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from sarmatch.atomic_io import read_json, write, write_json
from sarmatch.encoders import create_encoder
from sarmatch.evaluation import localization_errors
from sarmatch.experiments.provenance import commits_of, with_commits
from sarmatch.experiments.sweeps import load_sweep
from sarmatch.figures import method_words, score_surfaces, use_style
from sarmatch.patches import PatchImages, positions
from sarmatch.paths import ROOT
from sarmatch.search import surface
from sarmatch.simulation.simulate import PRESETS
from sarmatch.training.checkpoints import OFFSET_HEAD, WEIGHTS, describe_environment, save_weights
from sarmatch.training.config import recipe
from sarmatch.training.runs import (
    DISCREPANCY,
    QUERY_MEAN,
    WHITENING,
    Run,
    baseline_rows,
    choose_whitening,
    dense_search,
    load_run,
    map_of,
)

#: Recorded runs, the first of which makes README's picture.
RECORDS = (
    "data/dense",
    "data/demo",
    "data/results/dense_sentinel",
    "data/results/sentinel",
    "data/results/sentinel_shuffled",
)
SHOWN, NEAR_M, FAR_M = 60, 15.0, 200.0  # of README's picture: queries to choose from, a hit, and a clear miss
BASELINES = "data/results/baselines.json"
PICTURE = "data/results/located.jpg"


class Comparison(NamedTuple):
    """A recorded comparison: its rows, what differs, and the commits of the whole, where rows do not say theirs."""

    table: pd.DataFrame
    gaps: pd.DataFrame
    commit: str


def keep_run(run: Run, folder: Path, weights: bool = False) -> None:
    """Keep what a run found under `folder`: config, metrics, history and environment, and its weights if asked.

    Weights are kept in half precision, which is half the size and changes no rank but by a rounding.
    The scene's folder is shortened to its name: where the data lay on one machine is of no use on another.
    """
    write_json(folder / "config.json", run.config.model_dump(mode="json") | {"scene": Path(run.config.scene).name})
    for name in ("metrics.json", "history.csv", "environment.json"):
        if not (run.path / name).is_file():
            raise FileNotFoundError(f"{run.path / name}: not there, so that this run cannot be recorded")
        write(folder / name, partial(shutil.copyfile, run.path / name))
    for name in (DISCREPANCY, QUERY_MEAN, WHITENING):  # older runs have none
        if (run.path / name).is_file():
            write(folder / name, partial(shutil.copyfile, run.path / name))
    if weights:
        for name, part in {WEIGHTS: run.encoder, OFFSET_HEAD: run.offset_head}.items():
            if part is not None:
                write(folder / name, partial(save_weights, copy.deepcopy(part).half()))


def record_whitening(run: Run) -> Run:
    """Choose whether the vectors of a finished run are whitened, for one that is older than that choice.

    Raises
    ------
    ValueError
        For a run of dense search, or of a cross-view set.
    """
    if run.config.search != "vector":
        raise ValueError(f"{run.path}: search is {run.config.search!r}, and only vectors can be whitened")
    chosen = choose_whitening(run.config, map_of(run.config), run.encoder, run.query_mean)
    write_json(run.path / WHITENING, chosen)
    return load_run(run.path)


def record_baselines(root: Path = ROOT) -> pd.DataFrame:
    """Measure the training-free baseline of every simulated scene and keep it, with the commit of each row."""
    rows = pd.concat([baseline_rows(recipe("demo", scene=name)) for name in PRESETS], ignore_index=True)
    rows["commit"] = describe_environment()["commit"]
    write_json(root / BASELINES, rows.to_dict("records"))
    return rows


def record_commits(folder: Path) -> None:
    """Write the commits of a recorded table into what was computed from it, for records that are older than that.

    These are `differences.csv`, `curves.csv` and `robustness.csv` of a comparison, and a `calibration.json`; what is
    there else, numbers as well, stays as it is.
    """
    table = pd.read_csv(folder / "table.csv", dtype=str, keep_default_na=False)
    for name in ("differences.csv", "curves.csv", "robustness.csv") if "arm" in table else ():
        if (folder / name).is_file():
            made = pd.read_csv(folder / name, dtype=str, keep_default_na=False)
            write(folder / name, partial(with_commits(made, table).to_csv, index=False))
    if (path := folder / "calibration.json").is_file():
        known = {
            name: fields | {"commit": ", ".join(commits_of(table[table["method"] == name], ""))}
            for name, fields in read_json(path, dict).items()
        }
        write_json(path, known)


def load_baselines(root: Path = ROOT) -> pd.DataFrame:
    """The recorded baselines: a row per scene, protocol and kind of query."""
    return pd.DataFrame(json.loads((root / BASELINES).read_text()))


def load_comparison(name: str, root: Path = ROOT) -> Comparison:
    """A comparison of recipes or refiners as recorded.

    Raises
    ------
    FileNotFoundError
        Where it is not recorded.
    """
    return Comparison(*load_sweep(name, root), _environment_commit(root / "data" / "results" / name))


def run_commit(folder: Path) -> list[str]:
    """Commits that a run was made at."""
    return commits_of(pd.DataFrame(), _environment_commit(folder))


def picture(run: Run) -> Figure:
    """README's picture: the score of every place for a query that the run finds and its baseline does not."""
    use_style()
    scene, config = run.scene(), run.config
    asked, tiles = run.task(scene, "cross_area", "arbitrary")
    asked = asked[:SHOWN]
    images, xy = torch.stack(list(PatchImages(scene, asked, None))), positions(asked)
    baseline = create_encoder(config.baseline, config.image_size, config.sar_bands, **config.baseline_options)
    searches = {m: dense_search(e, scene, tiles) for m, e in (("dense", run.encoder), (config.baseline, baseline))}
    features = {name: search.encode([images]) for name, search in searches.items()}
    found = {name: search.search(features[name], 5).xy for name, search in searches.items()}
    errors = {name: localization_errors(places[:, 0], xy) for name, places in found.items()}
    right = errors["dense"] < NEAR_M
    query = int(np.flatnonzero(right & (errors[config.baseline] > FAR_M))[0])
    maps = {
        name: next(m for a, m in s.gallery.maps.items() if a == asked["area"][query]) for name, s in searches.items()
    }
    scores = {method_words(name): surface(maps[name], features[name][query]).numpy() for name in searches}
    corner = maps["dense"].metres_of(*(np.array(features["dense"].shape[2:]) / 2))
    places = {method_words(name): found[name][query] for name in searches}
    off = {name: f"{of_query[query]:,.0f} m" for name, of_query in errors.items()}
    title = f"{config.baseline.upper()} is {off[config.baseline]} off, learned features {off['dense']}"
    return score_surfaces(scores, tuple(corner), maps["dense"].metres, xy[query], places, title, scene.label)


def update_readme(root: Path = ROOT) -> None:
    """Write README's picture, and the tables of README and of the pages under `data/results`."""
    from sarmatch.experiments.pages import PAGES, with_tables  # pages read records

    figure = picture(load_run(root / RECORDS[0]))
    write(root / PICTURE, lambda p: figure.savefig(p, format="jpeg", bbox_inches="tight", pil_kwargs={"quality": 85}))
    for page in PAGES:
        text = with_tables((root / page).read_text(), root)
        write(root / page, partial(Path.write_text, data=text))


def _environment_commit(folder: Path) -> str:
    path = folder / "environment.json"
    return json.loads(path.read_text()).get("commit", "") if path.is_file() else ""


def baseline_of(gaps: pd.DataFrame) -> str:
    """What a recorded comparison of refiners is read against: the search, by embeddings as they are or whitened.

    It is the one that finds more at first, of arbitrary queries of an unseen area, so that no refiner gains by what it
    is given to see; in older comparisons, which have no row of whitened embeddings, the search as it is.
    """
    if not (gaps["control"] == "whitened").any():
        return "coarse"
    asked = "arm == 'coarse' and control == 'whitened' and protocol == 'cross_area' and kind == 'arbitrary'"
    plain = gaps.query(f"{asked} and measure == 'recall@1'")["difference"] if "arm" in gaps else pd.Series(dtype=float)
    return "coarse" if (plain > 0).any() else "whitened"
