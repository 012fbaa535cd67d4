"""Numbers that stand in README come from the records of runs under `data/`, through here, and a test compares them."""

import copy
import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sarmatch.atomic_io import write, write_json
from sarmatch.experiments.report import result_rows
from sarmatch.experiments.studies import ARMS
from sarmatch.experiments.sweeps import load_sweep
from sarmatch.figures import use_style
from sarmatch.paths import ROOT
from sarmatch.simulation.simulate import PRESETS
from sarmatch.training.checkpoints import WEIGHTS, save_weights
from sarmatch.training.config import recipe
from sarmatch.training.runs import Run, evaluate, floor, load_run

#: Recorded runs, in the order of README's table.
RECORDS = ("data/demo", "data/results/sentinel")
FLOORS = "data/results/floors.json"
PICTURE = "data/results/located.jpg"
#: Where in README what is written: a comment before and one after it.
RESULTS = ("<!-- results: written by `sarmatch readme` -->\n", "<!-- end of results -->")
PRESETS_TABLE = ("<!-- presets: written by `sarmatch readme` -->\n", "<!-- end of presets -->")
#: Comparisons whose tables stand in README.
COMPARISONS = ("alignment", "alignment_sentinel", "questions")
#: Comparisons of refiners whose tables stand in README.
REFINEMENTS = ("refinement_easy", "refinement_standard", "refinement_sentinel")
#: Comparisons of the length of lists, in one table of README.
LENGTHS = ("lengths_easy", "lengths_standard")
LENGTHS_TABLE = ("<!-- lengths: written by `sarmatch readme` -->\n", "<!-- end of lengths -->")
#: Rows of the table of edges.
EDGES = ("G1", "G1e", "G1s", "G1t", "G1x", "angle", "G2", "G3")
EDGES_TABLE = ("<!-- edges: written by `sarmatch readme` -->\n", "<!-- end of edges -->")
PROTOCOL_WORDS = {"same_area": "same area, held-out pass", "cross_area": "unseen ground"}


def record(run: Run, folder: Path, weights: bool = False) -> None:
    """Keep what a run found under `folder`: config, metrics, history and environment, and its weights if asked.

    Weights are kept in half precision, which is half the size and changes no rank but by a rounding.
    The scene's folder is shortened to its name: where the data lay on one machine is of no use on another.
    """
    write_json(folder / "config.json", run.config.model_dump(mode="json") | {"scene": Path(run.config.scene).name})
    for name in ("metrics.json", "history.csv", "environment.json"):
        write(folder / name, partial(shutil.copyfile, run.path / name))
    if weights:
        write(folder / WEIGHTS, partial(save_weights, copy.deepcopy(run.encoder).half()))


def results_table(runs: list[Run]) -> str:
    """README's table in Markdown: a row per run, protocol and kind of query.

    Recall in percent with its 95 % interval (bootstrap over spatial blocks), beside the training-free floor and chance.
    """
    head = [
        "data",
        "test on",
        "queries",
        "gallery",
        "recall@1",
        "recall@10",
        "HOG @1 / @10",
        "chance @1 / @10",
        "median error",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for run in runs:
        for (protocol, kind), group in run.metrics.groupby(["protocol", "kind"], sort=False):
            ours, floor = (group[group.method == m].iloc[0] for m in (run.config.encoder, run.config.baseline))
            cells = [
                f"{run.config.name}, **{ours['data']}**",
                f"{PROTOCOL_WORDS[protocol]}, {kind}",
                f"{ours['queries']:,}",
                f"{ours['gallery']:,}",
                *(_with_interval(ours, k) for k in (1, 10)),
                _both(floor, "recall@1", "recall@10"),
                _both(ours, "recall@1_chance", "recall@10_chance"),
                "{median_m:,.0f} m (ceiling {ceiling_median_m:,.0f}, chance {chance_median_m:,.0f})".format(**ours),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def sweep_table(table: pd.DataFrame, gaps: pd.DataFrame) -> str:
    """README's table of a comparison in Markdown: a row per arm.

    Recall in percent, mean over seeds with the worst and the best; last, the difference to the control on arbitrary
    queries of unseen ground with its paired 95 % interval over blocks of ground.
    """
    groups = [(p, k) for k in ("arbitrary", "aligned") for p in PROTOCOL_WORDS if p in set(table["protocol"])]
    head = ["recipe", *(f"{PROTOCOL_WORDS[p].partition(',')[0]}, {k}: @1 / @10" for p, k in groups)]
    control = gaps["control"].iloc[0]
    lines = [" | ".join(["", *head, f"@10 against {control}, {PROTOCOL_WORDS['cross_area']}", ""]).strip()]
    lines.append("|" + "---|" * (len(head) + 1))
    last = gaps.query("protocol == 'cross_area' and kind == 'arbitrary' and measure == 'recall@10'").set_index("arm")
    for arm, rows in table.groupby("arm", sort=False):
        cells = []
        for protocol, kind in groups:
            part = rows[(rows["protocol"] == protocol) & (rows["kind"] == kind)]
            cells.append(" / ".join(_over_seeds(part[f"recall@{k}"]) for k in (1, 10)))
        gap = last.loc[arm] if arm in last.index else None
        against = (
            ""
            if gap is None
            else "{difference:+.1f} ({low:+.1f} to {high:+.1f})".format(
                **{k: 100 * gap[k] for k in ("difference", "low", "high")}
            )
        )
        lines.append("| " + " | ".join([f"`{arm}`", *cells, against]) + " |")
    chance = table.groupby(["protocol", "kind"])[["recall@1_chance", "recall@10_chance"]].first().iloc[0]
    lines.append(
        f"\n**{table['data'].iloc[0]}**, {table['seed'].nunique()} seeds, gallery {table['gallery'].iloc[0]:,}, "
        f"chance {100 * chance.iloc[0]:.2g} / {100 * chance.iloc[1]:.2g}."
    )
    return "\n".join(lines) + "\n"


def refinement_table(table: pd.DataFrame, gaps: pd.DataFrame) -> str:
    """README's table of a comparison of refiners in Markdown: a row per arm, on unseen ground.

    Recall and area under the metre curve in percent, mean over seeds; the difference to the search alone with its
    paired 95 % interval over blocks of ground, bold where it leaves zero out.
    """
    unseen = table[table["protocol"] == "cross_area"]
    gaps = gaps.query("protocol == 'cross_area' and control == 'coarse'").set_index(["arm", "kind", "measure"])
    means = unseen.groupby(["kind", "arm"], sort=False).mean(numeric_only=True)
    lines = [
        "| | refiner | arbitrary: @1 / @10 | @1 against the search | @1 if in the list "
        "| median error | area to 100 m | aligned: @1 | @1 against the search | ms per query |",
        "|" + "---|" * 10,
    ]
    for arm in dict.fromkeys(unseen["arm"]):
        row, aligned = means.loc[("arbitrary", arm)], means.loc[("aligned", arm)]
        compared = [(arm, kind, "recall@1") for kind in ("arbitrary", "aligned")]
        against = [_gap(gaps.loc[key]) if key in gaps.index else "" for key in compared]
        cells = [
            f"{arm}" if arm != ARMS[arm].refiner else "",
            f"`{ARMS[arm].refiner}`: {ARMS[arm].about}",
            f"{100 * row['recall@1']:.1f} / {100 * row['recall@10']:.1f}",
            against[0],
            f"{100 * row['recall@1_in_list']:.1f}",
            f"{row['median_m']:,.0f} m" if row["median_m"] >= 100 else f"{row['median_m']:.3g} m",
            f"{100 * row['area_100m']:.1f}",
            f"{100 * aligned['recall@1']:.1f}",
            against[1],
            f"{row['ms_per_query']:.2g}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    arbitrary, aligned = (100 * means.loc[(kind, "coarse"), "oracle"] for kind in ("arbitrary", "aligned"))
    first, seeds = unseen.iloc[0], unseen["seed"].nunique()
    lines.append(
        f"\n**{first['data']}**, gallery {first['gallery']:,}, lists of K = {first['k']}, {seeds} seeds; the oracle of "
        f"the lists is {arbitrary:.1f} on arbitrary and {aligned:.1f} on aligned queries."
    )
    return "\n".join(lines) + "\n"


def edges_table(gaps: dict[str, pd.DataFrame]) -> str:
    """README's table of what edges are worth in Markdown: a row per kind of edge, against the same network without.

    `gaps` are the differences of each comparison, by the name of its scene; all on unseen ground.
    """
    asked = [("arbitrary", "recall@1"), ("arbitrary", "recall@10"), ("aligned", "recall@1")]
    head = [f"`{scene}`, {kind} @{measure[7:]}" for scene in gaps for kind, measure in asked]
    lines = ["| | " + " | ".join(["edges", *head]) + " |", "|" + "---|" * (len(head) + 2)]
    unseen = "protocol == 'cross_area' and control == 'G0'"
    found = {scene: g.query(unseen).set_index(["arm", "kind", "measure"]) for scene, g in gaps.items()}
    for arm in EDGES:
        cells = [_gap(g.loc[(arm, *pair)]) for g in found.values() for pair in asked]
        lines.append(f"| {arm} | " + " | ".join([ARMS[arm].about, *cells]) + " |")
    return "\n".join(lines) + "\n"


def lengths_table(studies: dict[str, tuple[pd.DataFrame, pd.DataFrame]]) -> str:
    """README's table of how long a list should be in Markdown: a row per refiner, arbitrary queries, unseen ground.

    Recall@1 in percent, mean over seeds, with the difference to the search; `studies` are table and differences of each
    comparison, by the name of its scene. The oracle is what a perfect refiner would make of the list.
    """
    unseen = "protocol == 'cross_area' and kind == 'arbitrary'"
    columns, oracle, rows = [], [], {}
    for scene, (table, gaps) in studies.items():
        means = table.query(unseen).groupby(["k", "arm"], sort=False)[["recall@1", "oracle"]].mean()
        against = gaps.query(f"{unseen} and control == 'coarse' and measure == 'recall@1'").set_index(["k", "arm"])
        for k, part in means.groupby(level="k"):
            columns.append(f"`{scene}`, K = {k}")
            oracle.append(f"{100 * part['oracle'].iloc[0]:.1f}")
            for (_, arm), row in part.iterrows():
                gap = f", {_gap(against.loc[k, arm])}" if arm != "coarse" else ""
                rows.setdefault(arm, []).append(f"{100 * row['recall@1']:.1f}{gap}")
    lines = ["| | " + " | ".join(["refiner", *columns]) + " |", "|" + "---|" * (len(columns) + 2)]
    lines.append("| | " + " | ".join(["the oracle of the list", *oracle]) + " |")
    for arm, cells in rows.items():
        name = f"`{ARMS[arm].refiner}`: {ARMS[arm].about}"
        lines.append(f"| {arm if arm != ARMS[arm].refiner else ''} | " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _gap(row: pd.Series) -> str:
    text = "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * row[k] for k in ("difference", "low", "high")))
    return f"**{text}**" if row["low"] > 0 or row["high"] < 0 else text


def record_floors(root: Path = ROOT) -> pd.DataFrame:
    """Measure the training-free floor of every simulated scene and keep it."""
    rows = pd.concat([floor(recipe("demo", scene=name)) for name in PRESETS], ignore_index=True)
    write_json(root / FLOORS, rows.to_dict("records"))
    return rows


def load_floors(root: Path = ROOT) -> pd.DataFrame:
    """The recorded floors: a row per scene, protocol and kind of query."""
    return pd.DataFrame(json.loads((root / FLOORS).read_text()))


def presets_table(floors: pd.DataFrame) -> str:
    """README's table of the simulated scenes in Markdown: what makes each hard, and its floor on unseen ground."""
    head = ["scene", "what differs between map and flight", "gallery", "HOG aligned @1 / @10", "HOG arbitrary @1 / @10"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    rows = floors[floors.protocol == "cross_area"].set_index(["scene", "kind"])
    for name, preset in PRESETS.items():
        pairs = [_both(rows.loc[(name, kind)], "recall@1", "recall@10") for kind in ("aligned", "arbitrary")]
        lines.append(f"| `{name}` | {preset.about} | {rows.loc[(name, 'aligned')].gallery} | {' | '.join(pairs)} |")
    return "\n".join(lines) + "\n"


def readme_with_results(readme: str, root: Path = ROOT) -> str:
    """README's text with its tables made anew from the records that exist."""
    runs = [load_run(root / path) for path in RECORDS if (root / path).is_dir()]
    parts = [(RESULTS, results_table(runs)), (PRESETS_TABLE, presets_table(load_floors(root)))]
    recorded = partial(_recorded, root=root)
    parts += [(_marks(name), sweep_table(*both)) for name, both in recorded(COMPARISONS).items()]
    refined = recorded(REFINEMENTS)
    parts += [(_marks(name), refinement_table(*both)) for name, both in refined.items()]
    parts += [(EDGES_TABLE, edges_table({_scene(n): gaps for n, (_, gaps) in refined.items()}))]
    parts += [(LENGTHS_TABLE, lengths_table({_scene(n): both for n, both in recorded(LENGTHS).items()}))]
    for (begin, end), table in parts:
        before, rest = readme.split(begin)
        readme = before + begin + "\n" + table + "\n" + end + rest.split(end)[1]
    return readme


def picture(run: Run) -> Figure:
    """README's picture: the first two queries found and the first one missed, on ground never seen."""
    use_style()
    scene = run.scene()
    _, results = evaluate(run.encoder, scene, run.config, "cross_area", "arbitrary")
    right = results["rank"] == 0
    chosen = pd.concat([results[right].head(2), results[~right].head(1)])
    _, tiles = run.task(scene, "cross_area", "arbitrary")
    return result_rows(scene, chosen, tiles, "Two queries found and one missed")


def update_readme(root: Path = ROOT) -> None:
    """Write the table and the picture that stand in README."""
    figure = picture(load_run(root / RECORDS[0]))
    write(root / PICTURE, lambda p: figure.savefig(p, format="jpeg", bbox_inches="tight", pil_kwargs={"quality": 85}))
    path = root / "README.md"
    text = readme_with_results(path.read_text(), root)
    write(path, lambda p: p.write_text(text))


def _recorded(names: Sequence[str], root: Path) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Table and differences of those comparisons that are there."""
    return {n: load_sweep(n, root) for n in names if (root / "data" / "results" / n / "table.csv").is_file()}


def _scene(name: str) -> str:
    """`easy` of `refinement_easy`."""
    return name.partition("_")[2]


def _marks(name: str) -> tuple[str, str]:
    """Comments in README around the table of a comparison."""
    return f"<!-- {name}: written by `sarmatch readme` -->\n", f"<!-- end of {name} -->"


def _over_seeds(values: pd.Series) -> str:
    low, middle, high = (100 * v for v in (values.min(), values.mean(), values.max()))
    return f"**{middle:.1f}** ({low:.1f} to {high:.1f})"


def _with_interval(row, k: int) -> str:
    middle, low, high = (100 * row[f"recall@{k}{end}"] for end in ("", "_low", "_high"))
    return f"**{middle:.1f}** ({low:.1f} to {high:.1f})"


def _both(row, first: str, second: str) -> str:
    return f"{100 * row[first]:.3g} / {100 * row[second]:.3g}"
