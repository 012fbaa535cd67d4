"""The comparison of refiners: the same lists for all, several seeds, one table out, and what differs beyond chance."""

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from sarmatch.atomic_io import write, write_json
from sarmatch.evaluation import (
    bootstrap_difference,
    bootstrap_mean,
    list_ranks,
    localization_errors,
    tiles_of_places,
)
from sarmatch.experiments.lists import cross_fitted, fold_config, peak_lists, peaks_of
from sarmatch.experiments.provenance import code_version, digest_of, identity_of, made_with, with_commits
from sarmatch.paths import ROOT, runs_dir
from sarmatch.progress import progress
from sarmatch.refinement import LabelledLists, LearnedRefiner, Refiner, create_refiner
from sarmatch.scenes import Scene
from sarmatch.search import Candidates
from sarmatch.training.checkpoints import describe_environment
from sarmatch.training.runs import LIST_LENGTH, Run, blocks, load_run, run

SEEDS = (0, 1, 2)
K = LIST_LENGTH  # about nine lists in ten hold the truth on `easy`
#: Rooms and modules whose code shapes a result.
SHAPING = (
    *("scenes", "simulation", "datasets", "patches", "encoders", "search", "refinement", "evaluation"),
    *("training/runs", "experiments/lists", "experiments/studies"),
)
LEARNING = {"epochs": 8, "batch_size": 64}  # the same for all that learn
TRAINING_LISTS = 2700  # a quarter of them, and a strip between, only to choose by


def shuffled_at_test(refiner: LearnedRefiner) -> LearnedRefiner:
    """The same trained network with its edges randomly permuted: does it use them?"""
    other = copy.deepcopy(refiner)
    other.network.edges = "shuffled"
    return other


class Arm(NamedTuple):
    """A row of the table: which refiner, and what is done to it after it has learned."""

    refiner: str
    about: str
    after: Callable[[Refiner], Refiner] | None = None


#: The rows of the fair table, in its order.
ARMS: dict[str, Arm] = {
    "coarse": Arm("coarse", "the search alone"),
    "whitened": Arm("whitened", "training-free, the cosine in the gallery's own axes"),
    "query_expansion": Arm("query_expansion", "training-free"),
    "k_reciprocal": Arm("k_reciprocal", "training-free"),
    "super_global": Arm("super_global", "training-free"),
    "diffusion": Arm("diffusion", "training-free"),
    "graph_reranking": Arm("graph_reranking", "training-free"),
    "geographic_vote": Arm("geographic_vote", "training-free, the map's neighbours"),
    "matched_filter": Arm("matched_filter", "training-free, overlap as the query would have it"),
    "interpolated_map": Arm("interpolated_map", "training-free, embeddings between the tiles"),
    "correlation": Arm("correlation", "training-free, pixels"),
    "M1": Arm("mlp_without_xy", "MLP"),
    "M2": Arm("mlp", "MLP with coordinates"),
    "M3": Arm("deepsets", "MLP with mean and maximum of the list"),
    "G0": Arm("gnn_self_loops", "graph network, self-loops only"),
    "G1": Arm("gnn", "graph network, edges in metres"),
    "G1e": Arm("gnn_without_xy", "edges in metres, nodes without coordinates"),
    "G2": Arm("gnn_features", "graph network, edges by features"),
    "G3": Arm("attention", "graph network, all edges"),
    "G1s": Arm("gnn_shuffled", "edges shuffled in training and test"),
    "G1t": Arm("gnn", "edges shuffled at test only", shuffled_at_test),
    "G1x": Arm("gnn_permuted", "coordinates permuted"),
    "angle": Arm("gnn_angle", "edges by the published angle"),
    "cmpc": Arm("cmpc", "the published network, as wide as the embeddings"),
    "cmpc_metres": Arm("cmpc_metres", "the published network, edges in metres"),
    "cmpc_shortcut": Arm("cmpc_shortcut", "the same, and to its score the search's"),
    "surface": Arm("surface", "small CNN on correlation of pixels"),
}


#: Rows that others are compared with.
CONTROLS = ("coarse", "whitened", "G0")

#: What is compared query by query, from what `judge` gives.
COMPARED: dict[str, Callable[[dict[str, np.ndarray]], np.ndarray]] = {
    "recall@1": lambda found: (found["rank"] < 1).astype(float),
    "recall@10": lambda found: (found["rank"] < 10).astype(float),
    # mean of the curve over 0 to 100 m, in closed form
    "area_100m": lambda found: np.clip(1 - found["error_m"] / 100, 0, None),
}


class Task(NamedTuple):
    """Test lists of one protocol and kind, and what is needed to judge them."""

    protocol: str
    kind: str
    lists: LabelledLists
    positive: np.ndarray
    query_xy: np.ndarray
    block: np.ndarray
    tiles: pd.DataFrame | None = None  # by which answers are counted, where the gallery's rows are no tiles

    @property
    def counted_by(self) -> pd.DataFrame:
        """Tiles among which an answer is one."""
        return self.lists.context.gallery.tiles if self.tiles is None else self.tiles


def tasks(run_of: Run, kind: str, k: int = K) -> list[Task]:
    """Test lists of a run, one for each of its protocols."""
    scene = run_of.scene()
    found = []
    for protocol in run_of.config.protocols:
        test, queries, _ = run_of.lists(protocol, kind, "test", k, scene=scene)
        found.append(task_of(scene, protocol, kind, test, queries))
    return found


def task_of(
    scene: Scene,
    protocol: str,
    kind: str,
    lists: LabelledLists,
    asked: pd.DataFrame,
    tiles: pd.DataFrame | None = None,
) -> Task:
    """Lists and the table of their queries as a task; see `Task` for `tiles`."""
    positive, xy = asked["positive"].to_numpy(), asked[["x", "y"]].to_numpy()
    return Task(protocol, kind, lists, positive, xy, blocks(scene, asked), tiles)


def judge(refined: Candidates, task: Task) -> dict[str, np.ndarray]:
    """Per query: `rank`, `error_m`, and `in_list`, whether the list holds the truth at all."""
    tile, listed = (
        tiles_of_places(c if task.tiles is None else replace(c, tile=None), task.counted_by, task.lists.context.tile_m)
        for c in (refined, task.lists.candidates)
    )
    return {
        "rank": list_ranks(tile, refined.scores, task.positive, len(task.counted_by)),
        "error_m": localization_errors(refined.xy[:, 0], task.query_xy),
        "in_list": (listed == task.positive[:, None]).any(1),
    }


def compare_refiners(
    run_of: Run,
    folds: Sequence[Run],
    kinds: Sequence[str] = ("arbitrary", "aligned"),
    arms: Sequence[str] = tuple(ARMS),
    seeds: Sequence[int] = SEEDS,
    k: int = K,
    count: int = TRAINING_LISTS,
    folder: Path | None = None,
    known: pd.DataFrame | None = None,
    **learning: int | float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every refiner on the same lists.

    Those that learn do so on cross-fitted lists of training areas, and choose their epoch and temperature by others of
    the same distribution; those that do not choose their options on the lists that others learn from. Each kind of
    query has lists and refiners of its own. With a `folder`, what is done is kept there under everything that shaped
    it, the weights and the code included, and a second call goes on where the first was cut off. With a table that is
    `known` nothing is done but read again what is kept under its keys.

    Returns
    -------
    table
        One row per method (`arm`), seed, protocol and kind: `recall@1`, `@5`, `@10` (the first and the last with their
        95 % interval over spatial blocks, `_low` and `_high`), `recall@1_in_list` (of the queries whose list holds the
        truth), `oracle` (their fraction), `median_m`, `within_10m`, `within_25m`, `within_50m`,
        `area_100m` (under the curve of metres up to 100), `ms_per_query`, `parameters`, and what it was made with:
        `commit`, `machine`, `torch`, and `key`, which stands for everything that shaped the row.
    differences
        Recall@1, recall@10 and area under the metre curve of every method against `coarse` and `whitened`, and of those
        that learn against `G0`, with their paired 95 % intervals over spatial blocks, queries of all seeds pooled.
    """
    parts = []
    for kind in kinds:
        lists = partial(cross_fitted, run_of, folds, kind, k, count)
        shaped = {"run": identity_of(run_of), "folds": [identity_of(f) for f in folds], "kind": kind, "k": k}
        shaped |= {"count": count, "code": code_version(SHAPING)}
        parts.append(compare_on(lists, tasks(run_of, kind, k), shaped, arms, seeds, folder, known, **learning))
    table, gaps = (pd.concat(part, ignore_index=True) for part in zip(*parts, strict=True))
    return table, gaps


def compare_on(
    lists: Callable[[], tuple[Sequence[LabelledLists], Sequence[LabelledLists]]],
    tests: Sequence[Task],
    shaped: dict[str, Any],
    arms: Sequence[str] = tuple(ARMS),
    seeds: Sequence[int] = SEEDS,
    folder: Path | None = None,
    known: pd.DataFrame | None = None,
    **learning: int | float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same of lists that somebody else has made.

    Parameters
    ----------
    lists
        Makes what is learned from, and what epochs and temperatures are chosen by; called where something must learn.
    tests
        Tasks of one kind of query.
    shaped
        Everything that shaped the lists, for the key of what is kept in `folder`.
    arms, seeds, folder, known, learning
        As for `compare_refiners`.

    Raises
    ------
    FileNotFoundError
        Where a row of the `known` table was kept elsewhere.
    """
    rows, gaps = [], []
    lists, kind = cache(lists), tests[0].kind
    gains: dict[tuple[str, str, str], list[np.ndarray]] = {}
    fitted: dict[tuple[str, int], Refiner] = {}
    jobs = [(arm, seed) for arm in arms for seed in (seeds if create_refiner(ARMS[arm].refiner).learns else [0])]
    for arm, seed in progress(jobs, desc=f"refiners, {kind}", unit="refiner"):
        name, _, after = ARMS[arm]
        about = {"learning": LEARNING | learning, "refiner": name, "after": after and after.__name__, "seed": seed}
        key = digest_of(shaped | about) if known is None else _key_of(known, kind, arm, seed, tests[0])
        kept = folder / f"{kind}-{arm}-{seed}-{key}.json" if folder else None
        if kept is None or not kept.is_file():
            if known is not None:
                raise FileNotFoundError(f"{kept}: what made the recorded row is not kept here; refine anew")
            if (name, seed) not in fitted:
                fitted[name, seed] = create_refiner(name).fit(*lists(), seed=seed, **LEARNING | learning)
            refiner = after(fitted[name, seed]) if after else fitted[name, seed]
            done = {"made": made_with() | {"key": key}, "tasks": [_judged(refiner, seed, task) for task in tests]}
            if kept is not None:
                write_json(kept, done)
        else:
            done = json.loads(kept.read_text())
        for task, (numbers, single) in zip(tests, done["tasks"], strict=True):
            row = {"arm": arm, "seed": seed, "protocol": task.protocol, "kind": kind}
            rows.append(row | numbers | recall_intervals(single, task.block) | done["made"])
            for measure, values in single.items():
                gains.setdefault((task.protocol, measure, arm), []).append(np.array(values))
    for task, measure in product(tests, COMPARED):
        of = {a: values for (p, m, a), values in gains.items() if (p, m) == (task.protocol, measure)}
        gaps += _differences(of, measure, task)
    return pd.DataFrame(rows), pd.DataFrame(gaps)


def _key_of(known: pd.DataFrame, kind: str, arm: str, seed: int, task: Task) -> str:
    """What a row of a recorded table was kept under."""
    rows = known.query("kind == @kind and arm == @arm and seed == @seed and k == @task.lists.overlap.shape[1]")
    return rows["key"].iloc[0] if len(rows) else "unknown"


def _judged(refiner: Refiner, seed: int, task: Task) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Numbers of a refiner on a task, and for every query what is compared."""
    started = time.perf_counter()
    refined = refiner.refine(task.lists.candidates, task.lists.context, seed=seed)
    spent = time.perf_counter() - started
    found = judge(refined, task)
    single = {name: np.round(of(found), 4).tolist() for name, of in COMPARED.items()}
    return measures(found, task) | cost(refiner, spent, len(task.positive)), single


def measures(found: dict[str, np.ndarray], task: Task) -> dict[str, float]:
    """Numbers of one refined task."""
    rank, error, held = found["rank"], found["error_m"], found["in_list"]
    numbers = {f"recall@{n}": float((rank < n).mean()) for n in (1, 5, 10)}
    numbers |= {"recall@1_in_list": float((rank < 1)[held].mean()), "oracle": float(held.mean())}
    numbers |= {"median_m": float(np.median(error))}
    numbers |= {f"within_{d}m": float((error <= d).mean()) for d in (10, 25, 50)}
    numbers["area_100m"] = float(COMPARED["area_100m"](found).mean())
    return numbers | {"queries": len(rank), "gallery": len(task.counted_by), "k": task.lists.overlap.shape[1]}


def recall_intervals(values: Mapping[str, ArrayLike], block: np.ndarray) -> dict[str, float]:
    """Ends of the 95 % intervals over spatial blocks of recall@1 and recall@10, from the `COMPARED` of every query."""
    ends = {m: bootstrap_mean(np.asarray(values[m], float), block)[1:] for m in COMPARED if m.startswith("recall")}
    return {f"{m}_{end}": value for m, pair in ends.items() for end, value in zip(("low", "high"), pair, strict=True)}


def cost(refiner: Refiner, seconds: float, queries: int) -> dict[str, float]:
    """Time per query and size."""
    size = sum(p.numel() for p in refiner.network.parameters()) if isinstance(refiner, LearnedRefiner) else 0
    return {"ms_per_query": 1000 * seconds / queries, "parameters": size}


def _differences(values: dict[str, list[np.ndarray]], measure: str, task: Task) -> list[dict[str, float | str]]:
    """Rows of paired differences, from one array per seed and method."""
    rows = []
    for control in CONTROLS:
        for arm in values:
            learns = create_refiner(ARMS[arm].refiner).learns
            if control not in values or arm == control or (control == "G0" and not learns):
                continue
            count = max(len(values[arm]), len(values[control]))  # who does not learn has one seed
            pairs = [
                (values[arm][i % len(values[arm])], values[control][i % len(values[control])]) for i in range(count)
            ]
            ours, theirs = (np.concatenate(side) for side in zip(*pairs, strict=True))
            value, low, high = bootstrap_difference(ours, theirs, np.tile(task.block, count))
            rows.append(
                {
                    "arm": arm,
                    "control": control,
                    "protocol": task.protocol,
                    "kind": task.kind,
                    "k": task.lists.overlap.shape[1],
                    "measure": measure,
                    "difference": value,
                    "low": low,
                    "high": high,
                    "seeds_better": sum(a.mean() > b.mean() for a, b in pairs),
                    "seeds": count,
                }
            )
    return rows


class Study(NamedTuple):
    """A recorded comparison: whose lists, of what length, in which order they are put."""

    about: str
    run: str
    folds: tuple[str, ...] = ()  # runs that leave out the folds of its areas; where there are none they are trained
    lengths: Sequence[int] = (K,)
    arms: Sequence[str] = tuple(ARMS)
    kinds: Sequence[str] = ("arbitrary", "aligned")
    others: str | None = None  # lists of dense search: the preset whose other towns are learned from


_EASY = "data/demo", ("data/checkpoints/demo_fold0", "data/checkpoints/demo_fold1")
_STANDARD = "data/checkpoints/infonce", ("data/checkpoints/infonce_fold0", "data/checkpoints/infonce_fold1")
_LENGTHS = {
    "lengths": (10, 30, 100),
    "arms": ("coarse", "whitened", "geographic_vote", "interpolated_map", "G0", "G1", "correlation"),
    "kinds": ("arbitrary",),
}

STUDIES: dict[str, Study] = {
    "refinement_easy": Study("every refiner, on `easy`", *_EASY),
    "refinement_standard": Study("every refiner, on `standard`", *_STANDARD),
    "lengths_easy": Study("how long a list should be, on `easy`", *_EASY, **_LENGTHS),
    "lengths_standard": Study("how long a list should be, on `standard`", *_STANDARD, **_LENGTHS),
    "peaks_standard": Study(
        "refiners on the lists of dense search, on `standard`",
        "data/dense",
        arms=("coarse", "whitened", "M2", "G0", "G1", "G1s"),
        kinds=("arbitrary",),
        others="standard",
    ),
}


def study_of(name: str) -> Study:
    """The recorded comparison of a name, or one of every refiner on the run whose folder `name` is."""
    if name in STUDIES:
        return STUDIES[name]
    if (Path(name) / "metrics.json").is_file():
        return Study("every refiner, on a run of your own", str(Path(name).resolve()))
    raise ValueError(f"{name!r} is neither a finished run's folder nor one of the comparisons {sorted(STUDIES)}")


def run_study(
    study: Study, folder: Path, root: Path = ROOT, finished: bool = False, arms: Sequence[str] = ()
) -> pd.DataFrame:
    """Make a comparison: `table.csv`, `differences.csv` and `environment.json` in `folder`.

    What is done is kept beside the runs, and shared by comparisons of the same run; a second call goes on from there.
    One that is `finished` is not done again, whatever the code has become: its table is made of what was kept. With
    `arms` those rows alone are made, compared with controls that are made beside them, and join the table that is
    there.

    Raises
    ------
    FileNotFoundError
        Where a table is asked for that is not recorded.
    ValueError
        Where the study has no such arm, or its controls come out otherwise than recorded: see `check_controls`.
    """
    if unknown := sorted(set(arms) - set(study.arms)):
        raise ValueError(f"arms are {unknown}, expected some of {list(study.arms)}")
    run_of = load_run(root / study.run)
    recorded = {name: folder / f"{name}.csv" for name in ("table", "differences")}
    if (finished or arms) and not recorded["table"].is_file():
        raise FileNotFoundError(f"{recorded['table']}: no comparison is recorded here; refine without options first")
    known = pd.read_csv(recorded["table"], dtype=_AS_TEXT) if finished or arms else None
    made = study._replace(arms=[arm for arm in study.arms if not arms or arm in (*arms, *CONTROLS)])
    kept = runs_dir() / f"{run_of.config.name}-{run_of.config.key}-refined"
    parts = [_compared(made, run_of, k, root, kept / f"k{k}", known if finished else None) for k in study.lengths]
    table, gaps = (pd.concat(part, ignore_index=True) for part in zip(*parts, strict=True))
    table["data"] = run_of.scene().label
    gaps = with_commits(gaps, table)
    if arms:
        check_controls(known, table, recorded["table"])
        beside = pd.read_csv(recorded["differences"], dtype=_AS_TEXT)
        table, gaps = (
            pd.concat([old[~old["arm"].isin(arms)], new[new["arm"].isin(arms)]], ignore_index=True)
            for old, new in ((known, table), (beside, gaps))
        )
    for name, content in {"table": table, "differences": gaps}.items():
        write(recorded[name], partial(content.to_csv, index=False, float_format="%.6g"))
    commits = {"commit": ", ".join(sorted(table["commit"].unique()))}
    write_json(folder / "environment.json", describe_environment() | commits)
    return table


_AS_TEXT: dict[Any, Any] = {"key": str, "commit": str}
#: How far a recall of the control that learns may lie from its record: machines round differently, and it learns on.
ROUNDING = 0.01


def check_controls(recorded: pd.DataFrame, made: pd.DataFrame, path: Path) -> None:
    """That the controls find today what is recorded of them; if they do not, no row of the record stands beside others.

    Those that learn nothing within what a table is rounded to, the one that learns within `ROUNDING`.

    Raises
    ------
    ValueError
        Where they do not; names the table and the row.
    """
    at = ["protocol", "kind", "k", "arm", "seed"]
    controls = made[made["arm"].isin(CONTROLS)].merge(recorded, "left", at, suffixes=("", "_recorded"))
    for name in ("recall@1", "recall@5", "recall@10", "area_100m"):
        now, then = controls[name], controls[f"{name}_recorded"]
        within = controls["arm"].map(lambda arm: ROUNDING if create_refiner(ARMS[arm].refiner).learns else 1e-4)
        for row in controls[~((now - then).abs() <= within)].to_dict("records"):
            raise ValueError(
                f"{path}: {name} of {row['arm']!r} is {row[f'{name}_recorded']} there and {row[name]:.6g} now; "
                "refine anew, without arms"
            )


def _compared(
    study: Study, run_of: Run, k: int, root: Path, kept: Path, known: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The comparison at one length of the lists."""
    if study.others is not None:
        shaped = {"run": identity_of(run_of), "k": k, "others": study.others, "code": code_version(SHAPING)}
        lists, tests = cache(partial(peak_lists, run_of, study.others, k)), []
        scene = run_of.scene()
        for protocol in run_of.config.protocols:
            found, asked, tiles = peaks_of(run_of, scene, k, protocol=protocol)
            tests.append(task_of(scene, protocol, "arbitrary", found, asked, tiles))
        return compare_on(lists, tests, shaped, study.arms, folder=kept, known=known)
    if run_of.config.search != "vector":
        raise ValueError(f"{run_of.path}: search is {run_of.config.search!r}; refiners compare lists of 'vector' alone")
    folds = [load_run(root / f) for f in study.folds] or [run(fold_config(run_of, i)) for i in range(2)]
    return compare_refiners(run_of, folds, study.kinds, study.arms, k=k, folder=kept, known=known)
