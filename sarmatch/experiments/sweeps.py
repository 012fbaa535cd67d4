"""Comparisons that need many runs: a list of configs, one table out, and what differs beyond chance."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sarmatch.atomic_io import check_writable, read_json, write, write_json
from sarmatch.evaluation import bootstrap_difference, chance_errors, error_summary, localization_errors
from sarmatch.experiments import systems
from sarmatch.experiments.provenance import with_commits
from sarmatch.figures.style import in_order
from sarmatch.patches import positions
from sarmatch.paths import ROOT, runs_dir
from sarmatch.progress import progress
from sarmatch.simulation.simulate import with_acquisition
from sarmatch.training.comparison import APART, alignment_effects, seedless_key
from sarmatch.training.config import Config, recipe
from sarmatch.training.runs import METRICS, Run, blocks, evaluate, run, run_folder

SEEDS = (0, 1, 2)
LOOK_DIRECTION = "look direction (no unit)"
METRES = (5, 10, 15, 20, 25, 30, 50, 100, 200, 500, 1000)  # of the curves of a comparison
#: Columns of a run's metrics that a table of many runs keeps.
KEPT = (
    "protocol",
    "kind",
    "data",
    "queries",
    "gallery",
    *(f"recall@{k}" for k in (1, 5, 10)),
    *(f"recall@{k}_chance" for k in (1, 5, 10)),
    "median_m",
    "chance_median_m",
    "ceiling_median_m",
    *(f"recall@1%{end}" for end in ("", "_chance")),
    *(f"hit_rate{end}" for end in ("", "_chance")),
    *(f"{start}within_10m" for start in ("", "chance_", "ceiling_")),
    *(f"centre_{name}" for name in ("median_m", "within_10m")),  # of answers that an offset head has moved
)


class Sweep(NamedTuple):
    """A comparison: configs by method.

    The control is the first of them, or with `by_network` for each network its own first: methods whose configs are
    equal but for the alignment are of one network.
    """

    about: str
    arms: Callable[[str], dict[str, Config]]  # folder of real data, where it needs any, to methods
    seeds: Sequence[int] = SEEDS
    robust: Sequence[str] = ()  # methods that are also tested on other acquisitions
    shipped: Sequence[str] = ()  # methods whose first run goes to data/checkpoints with its weights
    by_network: bool = False
    needs_data: bool = False  # a folder, given as scene
    baselines: bool = False  # the training-free encoders beside the methods are rows too


def _recipes(*names: str) -> Callable[[str], dict[str, Config]]:
    return lambda scene: {name: recipe(name) for name in names}


def _changes(start: str, **arms: dict[str, Any]) -> Callable[[str], dict[str, Config]]:
    return lambda scene: {name: recipe(start, **change) for name, change in arms.items()}


#: Training of the sweeps that ask many questions: a minute on one CPU core each, dense search three.
SHORT = {"epochs": 4, "pairs_per_epoch": 1536, "test_queries": 600, "protocols": ("cross_area",)}
_SHORT_DENSE = SHORT | {"epochs": 3, "pairs_per_epoch": 480, "test_queries": 300, "kinds": ("arbitrary",)}
#: What an alignment is joined with, as (recipe, changes).
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "shared": ("infonce", SHORT),
    "two_branches": ("infonce", SHORT | {"encoder_options": {"shared": False}}),
    "triplet": ("triplet", SHORT),
    "dense": ("dense", _SHORT_DENSE),
    "dense_sentinel": ("dense_sentinel", _SHORT_DENSE),
}
#: Alignments, the critic of more steps beside the default one, as (alignment, options, weights that are tried).
ALIGNED: dict[str, tuple[str, dict[str, Any], tuple[float, ...]]] = {
    "wasserstein": ("wasserstein", {"critic_rate": 1e-3}, (0.1, 1.0, 10.0)),
    "wasserstein_20_steps": ("wasserstein", {"critic_rate": 1e-3, "critic_steps": 20}, (1.0, 10.0)),
    "class_adversary": ("class_adversary", {"critic_rate": 1e-3}, (1.0, 10.0)),
    "sinkhorn": ("sinkhorn", {}, (1.0, 10.0)),
}
#: What else is asked of a search by vectors, one field at a time.
ASKED: dict[str, dict[str, Any]] = {
    "infonce": {},
    "neighbours_as_negatives": {"neighbours": "negatives"},
    "semi_positive": {"auxiliary": {"iou_semi_positive": 0.1}},
    "two_branches": {"encoder_options": {"shared": False}},
    "large_batches": {"batch_size": 128},
    "three_polarisations": {"bands": ("HH", "VV", "HV")},
    "quarter_of_the_ground": {"train_fraction": 0.25},
    "quarter_with_wasserstein": {
        "train_fraction": 0.25,
        "alignment": "wasserstein",
        "alignment_options": {"critic_rate": 1e-3},
        "alignment_weight": 1.0,
    },
}
#: What dense search may learn from, and by: losses by name, false peaks of the whole map, other towns, networks.
DENSE_TRIED: dict[str, dict[str, Any]] = {
    "dense_cross_entropy": {},
    "dense_circle": {"loss": "shift_circle"},
    "dense_hinge": {"loss": "disc_hinge"},
    "dense_mined": {"mined": 240},
    "dense_towns": {"towns": 3},
    "dense_confidence": {"encoder_options": {"stride": 4, "confidence": True}},
    "dense_vectors": {"encoder_options": {"stride": 4, "pooling": "gem"}, "auxiliary": {"infonce": 0.1}},
    "dense_resnet": {"encoder": "dense_timm", "encoder_options": {"backbone": "resnet18", "stride": 4}},
}
#: Other networks beside its orientation channels: a small U-Net, one trunk for both modalities, a scale more.
DENSE_NETWORKS: dict[str, dict[str, Any]] = {
    "dense_cross_entropy": {},
    "dense_unet": {"encoder_options": {"stride": 4, "width": 12, "depth": 2}},
    "dense_shared": {"encoder_options": {"stride": 4, "shared": True}},
    "dense_scales": {"encoder_options": {"stride": 4, "scales": (0.8, 1.6, 3.2, 6.4, 12.8)}},
}
#: What is cheap to change in a search by vectors: larger images, and a network that begins with ImageNet's weights.
LITE0, OF_IMAGENET = {"encoder": "tf_efficientnet_lite0"}, {"shared": True, "pretrained": True}
VECTORS_TRIED: dict[str, dict[str, Any]] = {
    "infonce": {},
    "infonce_96": {"image_size": 96},
    "infonce_128": {"image_size": 128},
    "lite0": LITE0,
    "lite0_imagenet": LITE0 | {"encoder_options": OF_IMAGENET},
    "lite0_imagenet_slow": LITE0 | {"encoder_options": OF_IMAGENET, "learning_rate": 5e-4},
}
_DENSE_LITE0 = {"backbone": LITE0["encoder"], "stride": 4}
DENSE_PRETRAINED: dict[str, dict[str, Any]] = {
    "dense_cross_entropy": {},
    "dense_lite0": {"encoder": "dense_timm", "encoder_options": _DENSE_LITE0},
    "dense_lite0_imagenet": {"encoder": "dense_timm", "encoder_options": _DENSE_LITE0 | {"pretrained": True}},
}


def _aligned(
    networks: Sequence[str], alignments: Sequence[str], weights: Sequence[float] = (), **changes: Any
) -> Callable[[str], dict[str, Config]]:
    """Each network without an alignment, then with each of them under every weight, or those of `weights` alone."""

    def arms(scene: str) -> dict[str, Config]:
        found = {}
        for network in networks:
            start, short = NETWORKS[network]
            fields = short | changes | ({"scene": scene} if scene else {})
            found[f"{network}_0"] = recipe(start, **fields)
            for name in alignments:
                alignment, options, tried = ALIGNED[name]
                for weight in weights or tried:
                    which = {"alignment": alignment, "alignment_options": options, "alignment_weight": weight}
                    found[f"{network}_{name}_{weight:g}"] = recipe(start, **fields, **which)
        return found

    return arms


SWEEPS: dict[str, Sweep] = {
    "checkpoints": Sweep(
        "the vector encoders that notebooks load: ten epochs on `standard`, one seed each",
        _recipes("infonce", "triplet", "wasserstein"),
        seeds=(0,),
        shipped=("infonce", "triplet", "wasserstein"),
    ),
    "alignment": Sweep(
        "what an alignment moves and what that is worth, by weight, in networks of one vector per tile",
        lambda scene: {
            **_aligned(("shared", "two_branches"), tuple(ALIGNED))(scene),
            **_aligned(("triplet",), ("wasserstein",), (1.0, 10.0))(scene),
        },
        by_network=True,
    ),
    "alignment_dense": Sweep(
        "the same of dense feature maps",
        _aligned(("dense",), ("wasserstein", "wasserstein_20_steps"), (1.0, 10.0)),
        by_network=True,
    ),
    "alignment_sentinel": Sweep(
        "the same of dense feature maps on real Sentinel-1/2 tiles, region A to B",
        _aligned(("dense_sentinel",), ("wasserstein",), (1.0, 10.0)),
        by_network=True,
        needs_data=True,
    ),
    "questions": Sweep(
        "one field changed at a time",
        _changes("infonce", **{arm: SHORT | change for arm, change in ASKED.items()}),
    ),
    "systems_standard": Sweep(
        "published systems at one budget, on `standard`",
        systems.on_standard,
        baselines=True,
    ),
    "systems_sentinel": Sweep(
        "the same on real Sentinel-1/2 tiles, region A to B",
        systems.on_sentinel,
        seeds=(0, 1),
        needs_data=True,
        baselines=True,
    ),
    **{
        f"systems_panorama_{protocol}": Sweep(
            f"published systems at one budget, street panoramas against aerial tiles, {words}",
            systems.on_panoramas(protocol),
            needs_data=True,
            baselines=True,
        )
        for protocol, words in (("same_area", "towns that training knows"), ("cross_area", "other towns"))
    },
    "systems_heading": Sweep(
        "SAIG-S on street panoramas whose heading is known, and where nobody knows it, in towns that training knows",
        systems.on_headings,
        needs_data=True,
    ),
    **{
        f"systems_ablations_{of}": Sweep(f"{words}, on `standard`", systems.ablations(of), seeds=(0, 1))
        for of, words in systems.ABLATION_WORDS.items()
    },
    "dense_choices": Sweep(
        "choices of dense search: losses, false peaks mined over the whole map, other towns, networks",
        _changes("dense", **{arm: NETWORKS["dense"][1] | change for arm, change in DENSE_TRIED.items()}),
        seeds=(0, 1),
    ),
    "dense_networks": Sweep(
        "networks of dense search: a small U-Net, a trunk that both modalities share, a scale more",
        _changes("dense", **{arm: NETWORKS["dense"][1] | change for arm, change in DENSE_NETWORKS.items()}),
        seeds=(0, 1),
    ),
    "pretrained": Sweep(
        "one vector per tile lifted by what is cheap: image size, and weights from ImageNet (extra `pretrained`)",
        _changes("infonce", **{arm: SHORT | change for arm, change in VECTORS_TRIED.items()}),
        seeds=(0, 1),
    ),
    "pretrained_dense": Sweep(
        "dense search from weights of ImageNet (extra `pretrained`)",
        _changes("dense", **{arm: NETWORKS["dense"][1] | change for arm, change in DENSE_PRETRAINED.items()}),
        seeds=(0, 1),
    ),
    "one_look_direction": Sweep(
        "trained on passes that all head north and look right, tested on those, on left-looking and on other ones",
        _aligned(("shared", "two_branches"), ("wasserstein",), (1.0,), scene="easy"),
        robust=("shared_0", "shared_wasserstein_1", "two_branches_0", "two_branches_wasserstein_1"),
        by_network=True,
    ),
}


def grid(start: Config, **fields: Iterable[Any]) -> list[Config]:
    """All combinations of some fields.

    Examples
    --------
    >>> from sarmatch import recipe
    >>> [c.seed for c in grid(recipe("demo"), loss=["infonce", "soft_margin_triplet"], seed=[0, 1])]
    [0, 1, 0, 1]
    """
    # not model_copy: it would not check the values
    return [
        Config(**start.model_dump() | dict(zip(fields, values, strict=True))) for values in product(*fields.values())
    ]


def sweep(configs: Sequence[Config], names: Sequence[str] | None = None) -> pd.DataFrame:
    """Run many configs, each once; a second call goes on where the first was cut off.

    Parameters
    ----------
    configs
        What is run, in this order.
    names
        Of the methods, the column `arm` of the table; the name of the recipe by default.

    Returns
    -------
    One row per run, protocol and kind: `arm`, `seed`, `run` (its folder's name), the columns of `KEPT`; of the epoch
    that was kept the `validation_recall@10` and the exact `wasserstein_1` between the modalities on validation areas;
    that distance over its null, `ratio` with `ratio_low` and `ratio_high`, and in words the `effect` of the alignment,
    where the runs know them (see `sarmatch.compare`); `alignment`, its `weight`, and `network`, letters that stand for
    all but the alignment and the seed; the encoder's `parameters` and the training `pairs` that it has seen; and the
    `commit` it was run from.
    """
    if not configs:
        raise ValueError("configs is empty: give at least one config to run")
    runs = [run(config) for config in progress(configs, desc="runs", unit="run")]
    return table_of(runs, names or [config.name for config in configs])


def table_of(runs: Sequence[Run], names: Sequence[str]) -> pd.DataFrame:
    """The table of finished runs, see `sweep`."""
    effects = alignment_effects(runs)
    return pd.concat(map(_summary, runs, names, effects), ignore_index=True)


def with_baselines(table: pd.DataFrame, runs: Sequence[Run]) -> pd.DataFrame:
    """The table of a sweep with a row for each training-free encoder, task and seed: nothing learned, 0 parameters."""
    rows = []
    for finished in runs:
        config = finished.config
        own = finished.metrics[finished.metrics["method"] == config.baseline]
        commit = read_json(finished.path / "environment.json", dict).get("commit", "unknown")
        names = {"arm": config.baseline, "seed": config.seed, "parameters": 0, "pairs": 0, "commit": commit}
        rows.append(own[[c for c in KEPT if c in own]].assign(**names))
    known = pd.concat(rows).drop_duplicates(["arm", "seed", "protocol", "kind"])
    return pd.concat([table, known], ignore_index=True)[list(table)]


def _summary(finished: Run, arm: str, effect: str) -> pd.DataFrame:
    """A run's own rows of the table of a sweep."""
    own = finished.metrics[finished.metrics["method"] == finished.config.encoder]
    columns = [c for c in KEPT if c in own]
    kept = finished.kept
    names = {"arm": arm, "seed": finished.config.seed, "run": finished.path.name}
    commit = read_json(finished.path / "environment.json", dict).get("commit", "unknown")
    config = finished.config
    apart = {"validation_recall@10": kept["recall@10"], "wasserstein_1": kept["wasserstein_1"]}
    if finished.discrepancy:
        apart |= {name: finished.discrepancy[name] for name in APART} | {"effect": effect}
    which = {
        "alignment": config.alignment if config.aligned else "none",
        "weight": config.alignment_weight if config.aligned else 0.0,
        "network": seedless_key(finished, aligned=False),
        "parameters": sum(weights.numel() for weights in finished.encoder.parameters()),
        "pairs": config.pairs,
    }
    return own[columns].assign(**names, **apart, **which, commit=commit)[[*names, *columns, *apart, *which, "commit"]]


def choose_weights(table: pd.DataFrame, measure: str = "validation_recall@10") -> pd.DataFrame:
    """The weight of each alignment in each network, chosen on validation areas by a rule that is stated beforehand.

    Among the methods of one alignment, which differ in its weight and options, that of the largest weight whose recall,
    as a mean over seeds, is not below the worst seed of the control: it brings the modalities as close as it can
    without a loss that is more than chance. Of equal weights the one with the smaller ratio to the null. Where none
    qualifies the control is chosen, which is a weight of 0. Test areas are not looked at.

    Parameters
    ----------
    table
        Of `sweep`: `arm`, `seed`, `network`, `alignment`, `weight`, `ratio` and the measure.
    measure
        A column; larger is better.

    Returns
    -------
    One row per network and alignment: `network`, `alignment`, `arm`, `weight`, the measure, `least` (that of the worst
    seed of the control), `ratio`, `ratio_without`, and the number of `seeds`.

    Raises
    ------
    ValueError
        For a network without a control.
    """
    names = ["network", "alignment", "arm", "weight"]
    runs = table.drop_duplicates([*names, "seed"])  # a run has a row per protocol and kind, its validation only one
    rows = []
    for network, group in runs.groupby("network", sort=False):
        control = group[group["weight"] == 0]
        if control.empty:
            raise ValueError(f"network {network!r} has no run without an alignment, by which a weight could be chosen")
        least, without = control[measure].min(), control["ratio"].mean()
        for alignment, of_alignment in group[group["weight"] > 0].groupby("alignment", sort=False):
            means = of_alignment.groupby(names, sort=False)[[measure, "ratio"]].mean().reset_index()
            seeds = of_alignment["seed"].nunique()
            fit = means[means[measure] >= least].sort_values(["weight", "ratio"], ascending=[False, True])
            none = {"arm": control["arm"].iloc[0], "weight": 0.0, measure: control[measure].mean(), "ratio": without}
            chosen = fit.iloc[0].to_dict() if len(fit) else {"network": network, "alignment": alignment} | none
            rows.append(chosen | {"least": least, "ratio_without": without, "seeds": seeds})
    return pd.DataFrame(rows, columns=[*names, measure, "least", "ratio", "ratio_without", "seeds"])


def differences(arms: dict[str, list[Run]], measure: str = "recall@1") -> pd.DataFrame:
    """Each method against the first one, paired query by query within each seed.

    Queries of all seeds that both have are pooled. Spatial blocks are the same for all seeds, and stand or fall
    together.

    Parameters
    ----------
    arms
        Runs by method, of the same seeds in the same order.
    measure
        `recall@K`.

    Returns
    -------
    One row per method (`arm`), protocol and kind: `difference`, `low`, `high` (95 %, paired bootstrap over spatial
    blocks), and `seeds_better`, the number of seeds in which the method is better.
    """
    k = int(measure.partition("@")[2])
    control, *others = arms
    rows = []
    first = arms[control][0]
    scene = first.scene()
    for protocol, kind in product(first.config.protocols, first.config.kinds):
        hits: dict[str, list[np.ndarray]] = {}
        group: dict[str, np.ndarray] = {}
        for arm, runs in arms.items():
            tables = [r.results(protocol, kind) for r in runs]
            hits[arm] = [(t["rank"] < k).to_numpy(float) for t in tables]
            group[arm] = blocks(scene, pd.concat(tables))
        for arm in others:
            both = list(zip(hits[arm], hits[control], strict=False))  # a later seed of the control may have no partner
            ours, theirs = (np.concatenate(side) for side in zip(*both, strict=True))
            value, low, high = bootstrap_difference(ours, theirs, group[arm])
            better = sum(a.mean() > b.mean() for a, b in both)
            names = {"arm": arm, "control": control, "protocol": protocol, "kind": kind, "measure": measure}
            rows.append({**names, "difference": value, "low": low, "high": high, "seeds_better": better})
    return pd.DataFrame(rows)


def curves(arms: dict[str, list[Run]]) -> pd.DataFrame:
    """Fraction of test queries whose first answer lies within so many metres of the truth, for each run.

    `chance` answers with any tile of the gallery, `ceiling` with the centre of the right one; both are of the queries
    of the first method.

    Parameters
    ----------
    arms
        Runs by method, as for `differences`.

    Returns
    -------
    One row per method (`arm`), `seed`, `protocol`, `kind` and number of `metres` of `METRES`, with the `fraction`; none
    for a scene without coordinates.
    """
    first = next(iter(arms.values()))
    scene, config = first[0].scene(), first[0].config
    rows: list[dict[str, Any]] = []
    for protocol, kind in product(config.protocols, config.kinds) if scene.has_coordinates else ():
        found = {
            (arm, r.config.seed): error_summary(r.results(protocol, kind)["error_m"], METRES)
            for arm, runs in arms.items()
            for r in runs
        }
        for r in first:
            asked, tiles = r.task(scene, protocol, kind)
            truth, centres = positions(asked), positions(tiles)
            right = localization_errors(centres[asked["positive"]], truth)
            found["ceiling", r.config.seed] = error_summary(right, METRES)
            found["chance", r.config.seed] = chance_errors(truth, centres, METRES)
        for (arm, seed), numbers in found.items():
            names = {"arm": arm, "seed": seed, "protocol": protocol, "kind": kind}
            rows += [names | {"metres": m, "fraction": numbers[f"within_{m}m"]} for m in METRES]
    return pd.DataFrame(rows, columns=["arm", "seed", "protocol", "kind", "metres", "fraction"])


def run_sweep(name: str, scene: str = "", folder: Path | None = None, finished: bool = False) -> pd.DataFrame:
    """Run a named comparison and keep its table and differences.

    Parameters
    ----------
    name
        A key of `SWEEPS`.
    scene
        Folder of the real data, where the comparison needs it.
    folder
        Where `table.csv`, `differences.csv`, `curves.csv`, `environment.json` and, where methods are tested on other
        acquisitions, `robustness.csv` go, each row with its `commit`; `data/results/NAME` by default.
    finished
        Train nothing, and record the runs that are finished.

    Returns
    -------
    The table, see `sweep`.

    Raises
    ------
    ValueError
        For an unknown name, missing data, or where nothing is finished.
    """
    if name not in SWEEPS:
        raise ValueError(f"no comparison is called {name!r}; there are {sorted(SWEEPS)}")
    if SWEEPS[name].needs_data and not scene:
        raise ValueError(f"comparison {name!r} needs data: give their folder as scene")
    plan, folder = SWEEPS[name], folder or ROOT / "data" / "results" / name
    check_writable(folder)
    arms = plan.arms(scene)
    # seed by seed: what is there after an interruption is a whole comparison
    todo = [(arm, Config(**config.model_dump() | {"seed": s})) for s in plan.seeds for arm, config in arms.items()]
    if finished:
        todo = [(arm, config) for arm, config in todo if (run_folder(config) / METRICS).is_file()]
        if not todo:
            raise ValueError(f"comparison {name!r}: none of its runs is finished under {runs_dir()}")
    table = sweep([config for _, config in todo], [arm for arm, _ in todo])
    runs = {arm: [run(config) for a, config in todo if a == arm] for arm in dict.fromkeys(a for a, _ in todo)}
    families = [runs]
    if plan.by_network:
        members = table.groupby("network", sort=False)["arm"].unique()
        families = [{arm: runs[arm] for arm in of_network} for of_network in members]
    gaps = [differences(family, f"recall@{k}") for family in families for k in (1, 10)]
    if plan.baselines:
        table = with_baselines(table, [r for of_arm in runs.values() for r in of_arm])
    made = {"differences.csv": pd.concat(gaps, ignore_index=True), "curves.csv": curves(runs)}
    if plan.robust:
        robust = {arm: runs[arm] for arm in plan.robust if arm in runs}
        made["robustness.csv"] = robustness(robust)
    for file, content in {"table.csv": table, **{name: with_commits(m, table) for name, m in made.items()}}.items():
        write(folder / file, partial(content.to_csv, index=False, float_format="%.6g"))
    write_json(folder / "environment.json", environment_of([r for arm in runs.values() for r in arm]))
    return table


#: Acquisitions that depart from training: what changes, and to which value; an empty change is the scene itself.
ACQUISITIONS: dict[str, dict[str, dict[str, Any]]] = {
    "looks (count)": {"1": {"looks": 1.0}, "2": {"looks": 2.0}, "4": {}, "16": {"looks": 16.0}},
    "incidence angle (degrees from its own)": {
        "-8": {"incidence_shift": -8.0},
        "-4": {"incidence_shift": -4.0},
        "0": {},
        "+4": {"incidence_shift": 4.0},
        "+8": {"incidence_shift": 8.0},
    },
    LOOK_DIRECTION: {"its own": {}, "the other": {"opposite_look": True}},
}


def robustness(arms: Mapping[str, Sequence[Run]], kind: str = "arbitrary", changes: Sequence[str] = ()) -> pd.DataFrame:
    """What trained encoders find on the unseen town in other acquisitions.

    Parameters
    ----------
    arms
        Runs by method.
    kind
        Of the queries.
    changes
        Keys of `ACQUISITIONS`; all of them where none is named.

    Returns
    -------
    One row per change, value, method (`arm`) and seed, with `recall@k`, its chance and `median_m`.
    """
    rows, known = [], {}
    asked = changes or tuple(ACQUISITIONS)
    values = [(change, value, options) for change in asked for value, options in ACQUISITIONS[change].items()]
    jobs = list(product(values, [(arm, finished) for arm, of_arm in arms.items() for finished in of_arm]))
    for (change, value, options), (arm, finished) in progress(jobs, desc="acquisitions", unit="search"):
        config, key = finished.config, (finished.path, json.dumps(options))
        if key not in known:  # the scene itself stands in every panel
            bands = ("HH",) if config.bands == "first" else config.bands
            scene = with_acquisition(config.scene, config.profile, bands, **options)
            known[key] = evaluate(finished.encoder, scene, config, "cross_area", kind, head=finished.offset_head)[0]
        names = {"change": change, "value": value, "arm": arm, "seed": config.seed, "data": "simulated", "kind": kind}
        rows.append(names | {k: v for k, v in known[key].items() if k in KEPT})
    return pd.DataFrame(rows)


def environment_of(runs: Sequence[Run]) -> dict[str, str]:
    """What the runs were made with; where they differ, all values."""
    files = pd.DataFrame([read_json(r.path / "environment.json", dict) for r in runs])
    return {name: ", ".join(sorted(files[name].dropna().astype(str).unique())) for name in files}


def load_sweep(name: str, root: Path = ROOT) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table and differences of a recorded comparison, methods in the order of every figure."""
    folder = root / "data" / "results" / name
    if not (folder / "table.csv").is_file():
        raise FileNotFoundError(f"{folder}: no comparison is recorded here; `sarmatch sweep {name}` makes it")
    table, gaps = (pd.read_csv(folder / f"{part}.csv", dtype={"commit": str}) for part in ("table", "differences"))
    place = {arm: number for number, arm in enumerate(in_order(table["arm"]))}
    return tuple(part.sort_values("arm", key=lambda arms: arms.map(place), kind="stable") for part in (table, gaps))


def load_curves(name: str, root: Path = ROOT) -> pd.DataFrame:
    """The curves over metres of a recorded comparison, see `curves`."""
    path = root / "data" / "results" / name / "curves.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not recorded; `sarmatch sweep {name} --finished` makes it of finished runs")
    return pd.read_csv(path, dtype={"commit": str})


def load_robustness(name: str, root: Path = ROOT) -> pd.DataFrame:
    """What the encoders of a recorded comparison find in other acquisitions, see `robustness`."""
    path = root / "data" / "results" / name / "robustness.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not recorded; `sarmatch sweep {name}` makes it of its `robust` methods")
    return pd.read_csv(path, dtype={"value": str, "commit": str})
