"""Tables of README and of the pages under `data/results`, in Markdown, from the records of runs.

A page is written by hand but for its tables. Each stands between two comments that name it, and `sarmatch readme`
makes all of them anew. A method stands in words, and every row says at which commits it was made.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from sarmatch.experiments.provenance import commits_of
from sarmatch.experiments.records import (
    Comparison,
    baseline_of,
    load_baselines,
    load_comparison,
    run_commit,
)
from sarmatch.experiments.sweeps import SWEEPS, load_robustness
from sarmatch.experiments.systems import PUBLISHED
from sarmatch.figures.style import PROTOCOL_WORDS, REFINER_GROUPS, in_order, method_words, task_words
from sarmatch.paths import ROOT
from sarmatch.simulation.simulate import PRESETS
from sarmatch.training.runs import Run, load_run

#: Files whose tables are written from the records.
PAGES = ("README.md", *(f"data/results/{name}.md" for name in ("scenes", "alignment", "questions", "refinement")))
PAGES += (
    "data/results/lengths.md",
    "data/results/sentinel.md",
    "data/results/dense.md",
    "data/results/localization.md",
    "data/results/systems.md",
)
#: What README's table shows: queries as an acquisition gives them, in an area never seen.
HARDEST = "protocol == 'cross_area' and kind == 'arbitrary'"
#: Rows of the table of edges, each against the same network with self-loops only.
EDGE_ARMS = (*REFINER_GROUPS["learned, with edges"], *REFINER_GROUPS["controls of the edges"])
ABLATIONS = "systems_ablations_"
#: Runs of the table of joint training.
JOINT = {
    "encoder, batches drawn at random": "data/demo",
    "encoder, batches of neighbours": "data/results/joint_without",
    "encoder that learns with a graph network": "data/results/joint",
}
STRIPS = ("localization", "localization_sentinel")  # simulated, then real
BASELINE_WORDS = {"hog": "HOG", "cfog": "CFOG"}
CONTROL_WORDS = {"none": "", "shuffled_pairs": ", trained with shuffled pairs"}
DAGGER = "†"


def with_tables(text: str, root: Path = ROOT) -> str:
    """A page with its tables made anew.

    Raises
    ------
    ValueError
        Where the page names a table that nobody makes.
    """

    def made(block: re.Match[str]) -> str:
        begin, name, end = block.groups()
        if name not in TABLES:
            raise ValueError(f"no table is called {name!r}; there are {sorted(TABLES)}")
        return f"{begin}\n{TABLES[name](root)}\n{end}"

    pattern = r"(<!-- (\w+): written by `sarmatch readme` -->\n).*?(<!-- end of \2 -->)"
    return re.sub(pattern, made, text, flags=re.DOTALL)


def results_table(runs: Sequence[Run], refined: Sequence[tuple[Run, Comparison]] = (), only: str = "") -> str:
    """A row per run, protocol and kind of query, and one per run whose lists a correlation of pixels has refined.

    Recall in percent with its 95 % interval (bootstrap over spatial blocks), beside the training-free baseline and
    chance. Refined lists are those of arbitrary queries in an unseen area; their baseline is that of `runs`. `only` is
    a query that chooses among protocols and kinds.
    """
    head = ["data", "test", "method", "gallery", "recall@1", "recall@10", "training-free @1 / @10", "chance @1 / @10"]
    rows, commits = [], []
    for run in runs:
        words = method_words("dense") if run.config.search == "dense" else "search by one vector per tile"
        words += CONTROL_WORDS[run.config.control]
        chosen = run.metrics.query(only) if only else run.metrics
        for (protocol, kind), group in chosen.groupby(["protocol", "kind"], sort=False):
            of = group.set_index("method")
            for then, also in (("", ""), (" + whitened", ", whitened")):
                if run.config.encoder + then not in of.index:
                    continue
                ours, free = of.loc[run.config.encoder + then], run.config.baseline
                baseline = of.loc[free + then if free + then in of.index else free]  # one of dense search has no axes
                error = "{median_m:,.0f} m (ceiling {ceiling_median_m:,.0f}, chance {chance_median_m:,.0f})".format(
                    **ours
                )
                if run.config.search == "dense":
                    error = error.replace("ceiling 0, ", "")  # there is no grid
                rows.append(_result(run, ours, baseline, task_words(protocol, kind), words + also, error))
                commits.append(run_commit(run.path))
    for run, comparison in refined:
        task = run.metrics.query(HARDEST).set_index("method")
        baseline, table = task.loc[run.config.baseline], comparison.table
        chosen = table.query("protocol == 'cross_area' and kind == 'arbitrary' and arm == 'correlation'")
        ours = chosen.iloc[0]
        words = f"one vector per tile, then {method_words('correlation')} in its first {ours['k']}"
        error = f"{ours['median_m']:,.3g} m" if ours["median_m"] < 100 else f"{ours['median_m']:,.0f} m"
        error += f" (chance {baseline['chance_median_m']:,.0f})"
        rows.append(_result(run, ours, baseline, task_words("cross_area", "arbitrary"), words, error))
        commits.append(commits_of(chosen, comparison.commit))
    return _markdown([*head, "median error"], rows, commits)


def dense_table(folders: Sequence[Path]) -> str:
    """Dense search in several scenes and with queries of several sizes, beside CFOG on the same queries."""
    head = ["data", "query", "method", "recall@1", "recall@10", "against CFOG, @1", "median error"]
    head += ["within 10 / 25 / 100 m", "strips registered: median, within 10 m"]
    rows, commits = [], []
    for folder in folders:
        gaps = pd.read_csv(folder / "differences.csv").set_index(["scene", "size"])
        for row in pd.read_csv(folder / "table.csv").query("queries_of == 'all'").to_dict("records"):
            gap = _gap(gaps.loc[(row["scene"], row["size"])]) if row["method"] == "dense" else ""
            within = " / ".join(f"{100 * row[f'within_{m}m']:.1f}" for m in (10, 25, 100))
            own = f"{row['registered_median_m']:,.1f} m, {100 * row['registered_within_10m']:.1f}"
            what = [f"{row['scene']}, **{row['data']}**", f"{row['size']} px", method_words(row["method"])]
            recall = [_with_interval(pd.Series(row), k) for k in (1, 10)]
            rows.append([*what, *recall, gap, f"{row['median_m']:,.1f} m", within, own])
            commits.append([row["commit"]])
    return _markdown(head, rows, commits)


def poses_table(folder: Path) -> str:
    """Dense search for queries of unknown heading and scale, beside the same queries north up."""
    head = ["data", "method", "recall@1", "recall@10", "median error", "strips registered: within 10 m"]
    head += ["heading off", "scale off", "ms per query"]
    rows, commits = [], []
    for row in pd.read_csv(folder / "table.csv").to_dict("records"):
        recall = [_with_interval(pd.Series(row), k) for k in (1, 10)]
        looked_for = pd.notna(row["heading_median_deg"])
        off = [f"{row['heading_median_deg']:.1f}°", f"{100 * row['scale_median']:.1f} %"] if looked_for else ["", ""]
        what = [f"{row['scene']}, **{row['data']}**", method_words(row["method"]), *recall]
        found = [f"{row['median_m']:,.1f} m", f"{100 * row['registered_within_10m']:.1f}"]
        rows.append([*what, *found, *off, f"{row['ms_per_query']:,.0f}"])
        commits.append([row["commit"]])
    return _markdown(head, rows, commits)


def powers_table(path: Path) -> str:
    """The scale found by the power of it that scores are multiplied by, on validation areas: recall@1 and its bias."""
    table = pd.read_csv(path)
    rows, commits = [], []
    for power, of_power in table.groupby("power"):
        cells = [f"{100 * r['recall@1']:.0f} / {100 * r['bias']:+.1f} %" for r in of_power.to_dict("records")]
        rows.append([f"{power:g}", *cells, f"{100 * of_power['bias'].mean():+.1f} %"])
        commits.append(commits_of(of_power, ""))
    head = ["power", *(f"{scene}: @1 / scale too large by" for scene in table["scene"].unique()), "mean"]
    return _markdown(
        head, rows, commits, f"**{table['data'].iloc[0]}**, validation areas, {table['queries'].iloc[0]} queries each."
    )


def strips_table(folders: Sequence[Path]) -> str:
    """Strips located, against the number of windows fused."""
    within = (10, 25, 50, 100)
    head = ["data", "method", "windows", "strips", *(f"within {m} m" for m in within), "median error"]
    head += ["called 90 % sure", "right of those", "truth in the 90 % area", "called absent: on the map / strangers"]
    rows, commits = [], []
    for row in pd.concat([pd.read_csv(folder / "table.csv") for folder in folders]).to_dict("records"):
        ends = [[100 * row[f"within_{m}m{end}"] for end in ("", "_low", "_high")] for m in within]
        texts = ["**{:.1f}** ({:.1f} to {:.1f})".format(*values) for values in ends]
        sure = f"{100 * row['sure']:.0f} %", f"{100 * row['sure_right']:.1f} %" if row["sure"] else "-"
        absent = f"{100 * row['called_absent']:.1f} / {100 * row['strangers_called_absent']:.1f} %"
        what = [f"{row['scene']}, **{row['data']}**", method_words(row["method"]), f"{row['windows']}"]
        counts = f"{row['strips']} + {row['strangers']} strangers"
        rows.append([*what, counts, *texts, f"{row['median_m']:.1f} m", *sure, f"{100 * row['in_area']:.1f} %", absent])
        commits.append([row["commit"]])
    return _markdown(head, rows, commits)


def joint_table(runs: dict[str, Run]) -> str:
    """A row per run and method that found places: encoders, and refiners trained along with them.

    Arbitrary queries in the unseen area; recall in percent with its 95 % interval over spatial blocks. `runs` by what
    their encoder is, in words.
    """
    rows, commits = [], []
    for words, run in runs.items():
        task = run.metrics.query("protocol == 'cross_area' and kind == 'arbitrary'").set_index("method")
        for method, row in task.iterrows():
            first, _, then = method.partition(" + ")
            if first != run.config.encoder:
                continue
            what = words + {"": "", "whitened": ", whitened"}.get(then, ", then its refiner")
            rows.append([what, *(_with_interval(row, k) for k in (1, 10)), f"{row['median_m']:,.0f} m"])
            commits.append(run_commit(run.path))
    first = next(iter(runs.values())).metrics.query("protocol == 'cross_area' and kind == 'arbitrary'").iloc[0]
    chance = _pair(first, "recall@1_chance", "recall@10_chance")
    note = f"**{first['data']}**, one seed, gallery {first['gallery']:,}, chance {chance}."
    return _markdown(["method", "recall@1", "recall@10", "median error"], rows, commits, note)


def whitening_table(run: Run) -> str:
    """What whitening is worth to a run of vectors and to its training-free baseline: a row per task and method."""
    rows, commits = [], []
    for (protocol, kind), group in run.metrics.groupby(["protocol", "kind"], sort=False):
        of = group.set_index("method")
        for method in (run.config.encoder, run.config.baseline):
            plain, whitened = (of.loc[name] for name in (method, f"{method} + whitened"))
            recall = [f"{100 * plain[f'recall@{k}']:.1f} → {_with_interval(whitened, k)}" for k in (1, 10)]
            rows.append([task_words(protocol, kind), method_words(method), *recall])
            commits.append(run_commit(run.path))
    first = run.metrics.iloc[0]
    note = f"**{first['data']}**, `{Path(run.config.scene).name}`, one seed, gallery {first['gallery']:,}."
    return _markdown(["test", "vectors of", "recall@1", "recall@10"], rows, commits, note)


def presets_table(baselines: pd.DataFrame) -> str:
    """The simulated scenes: what makes each hard, and its training-free baseline in an unseen area."""
    head = ["scene", "what differs between map and acquisition", "gallery", "chance @1 / @10"]
    rows, commits = [], []
    unseen = baselines[baselines["protocol"] == "cross_area"]
    for name, preset in PRESETS.items():
        here = unseen[unseen["scene"] == name]
        of = here.set_index("kind")
        pairs = [_pair(of.loc[kind], "recall@1", "recall@10") for kind in ("aligned", "arbitrary")]
        chance = _pair(of.loc["aligned"], "recall@1_chance", "recall@10_chance")
        rows.append([f"`{name}`", preset.about, f"{of.loc['aligned'].gallery}", chance, *pairs])
        commits.append(commits_of(here, ""))
    return _markdown([*head, "HOG, aligned @1 / @10", "HOG, arbitrary @1 / @10"], rows, commits)


def sweep_table(comparison: Comparison) -> str:
    """A comparison of recipes: recall in percent, mean over seeds with the worst and the best.

    Before the commits, the difference to the control on arbitrary queries of an unseen area with its paired 95 %
    interval over spatial blocks.
    """
    table, gaps, commit = comparison
    tested = set(zip(table["protocol"], table["kind"], strict=True))
    groups = [(p, k) for k in ("arbitrary", "aligned") for p in PROTOCOL_WORDS if (p, k) in tested]
    head = ["method", *(f"{task_words(p, k)}: @1 / @10" for p, k in groups)]
    control = method_words(gaps["control"].iloc[0])
    last = gaps.query("protocol == 'cross_area' and kind == 'arbitrary' and measure == 'recall@10'").set_index("arm")
    rows, commits = [], []
    for arm, of_arm in table.groupby("arm", sort=False):
        cells = [method_words(arm)]
        for protocol, kind in groups:
            part = of_arm[(of_arm["protocol"] == protocol) & (of_arm["kind"] == kind)]
            cells.append(" / ".join(_over_seeds(part[f"recall@{k}"]) for k in (1, 10)))
        rows.append([*cells, _gap(last.loc[arm]) if arm in last.index else ""])
        commits.append(commits_of(of_arm, commit))
    first, seeds = table.iloc[0], table["seed"].nunique()
    return _markdown(
        [*head, f"unseen area, arbitrary: @10 against {control}"],
        rows,
        commits,
        f"**{first['data']}**, {_count(seeds)}, gallery {first['gallery']:,}, "
        f"chance {_pair(first, 'recall@1_chance', 'recall@10_chance')}.",
    )


def systems_table(comparison: Comparison) -> str:
    """Systems at one budget: a row per system and training-free encoder, arbitrary queries, means over seeds.

    Recall in percent with the worst and the best seed; a row of fewer seeds than others says so. In an unseen area,
    where that was tested: whether the right tile is among the first hundredth, whether the first covers the query (hit
    rate), and the difference in recall@10 to the first row with its paired 95 % interval over spatial blocks.
    """
    table, gaps, commit = comparison
    table = table.query("kind == 'arbitrary'")
    protocols = [p for p in PROTOCOL_WORDS if p in set(table["protocol"])]
    last = gaps.query("protocol == @protocols[-1] and kind == 'arbitrary' and measure == 'recall@10'").set_index("arm")
    head = ["system", "parameters", "pairs", *(f"{PROTOCOL_WORDS[p]}: @1 / @5 / @10" for p in protocols)]
    head += [f"{what}, {PROTOCOL_WORDS[protocols[-1]]}" for what in ("top 1 %", "hit rate")]
    head += ["within 10 m", "median error"]
    rows, commits, seeds = [], [], table["seed"].nunique()
    for arm, of_arm in table.groupby("arm", sort=False):
        own = of_arm["seed"].nunique()
        name = method_words(arm) + (f" ({_count(own)})" if own < seeds else "")
        cells = [name, f"{of_arm['parameters'].iloc[0]:,.0f}", f"{of_arm['pairs'].iloc[0]:,.0f}"]
        for protocol in protocols:
            part = of_arm[of_arm["protocol"] == protocol]
            cells.append(" / ".join(_over_seeds(part[f"recall@{k}"]) for k in (1, 5, 10)))
        for measure in ("recall@1%", "hit_rate"):  # dense search has a list of places, not of all tiles
            top = part[measure].mean()
            cells.append("-" if pd.isna(top) else f"{100 * top:.1f}")
        cells += [f"{100 * part['within_10m'].mean():.1f} %", f"{part['median_m'].mean():,.0f} m"]
        rows.append([*cells, _gap(last.loc[arm]) if arm in last.index else ""])
        commits.append(commits_of(of_arm, commit))
    first = table[table["protocol"] == protocols[-1]].iloc[0]
    note = f"**{first['data']}**, {_count(seeds)}, {first['queries']:,} queries, gallery {first['gallery']:,}, "
    note += f"chance {_pair(first, 'recall@1_chance', 'recall@10_chance')}, {first['chance_median_m']:,.0f} m."
    return _markdown([*head, f"@10 against {method_words(gaps['control'].iloc[0])}"], rows, commits, note)


def published_table() -> str:
    """What publications state of their systems on their own data: recall@1 in percent."""
    lines = ["| system | CVUSA | VIGOR, same area | VIGOR, unseen area | stated in |", "|" + "---|" * 5]
    for name in in_order(PUBLISHED):
        theirs = PUBLISHED[name]
        numbers = ["-" if value is None else f"{value:.2f}" for value in theirs[:3]]
        lines.append("| " + " | ".join([method_words(name), *numbers, theirs.source]) + " |")
    return "\n".join(lines) + "\n"


def weights_table(comparison: Comparison) -> str:
    """What alignments moved, and what is found beside that: a row per network, alignment and weight.

    Means over seeds: the distance between the modalities on validation areas over its null, with the mean of the bands
    of single runs; whether `sarmatch.compare` calls the alignment effective; recall in percent. The last difference is
    to the same network without an alignment, with its paired 95 % interval over spatial blocks.
    """
    table, gaps, commit = comparison
    table = table.query("protocol == 'cross_area' and kind == 'arbitrary'")
    last = gaps.query("protocol == 'cross_area' and kind == 'arbitrary' and measure == 'recall@10'").set_index("arm")
    head = ["network and alignment", "seeds", "distance over its null", "effect", "validation @10", "unseen area @10"]
    rows, commits = [], []
    for _, network in table.groupby("network", sort=False):
        for arm, of_arm in network.groupby("arm", sort=False):
            ratio = "{:.2f} ({:.2f} to {:.2f})".format(*of_arm[["ratio", "ratio_low", "ratio_high"]].mean())
            effect = of_arm["effect"].iloc[0].partition(":")[0]
            recall = [_over_seeds(of_arm[c]) for c in ("validation_recall@10", "recall@10")]
            gap = _gap(last.loc[arm]) if arm in last.index else ""
            rows.append([method_words(arm), f"{of_arm['seed'].nunique()}", ratio, effect, *recall, gap])
            commits.append(commits_of(of_arm, commit))
    first = table.iloc[0]
    note = f"**{first['data']}**, gallery {first['gallery']:,}, chance @10 {100 * first['recall@10_chance']:.3g}."
    return _markdown([*head, "against no alignment, @10"], rows, commits, note)


def acquisitions_table(robustness: pd.DataFrame, commit: str) -> str:
    """Recall@10 in percent as the acquisition departs from what training saw, mean over seeds with worst and best."""
    columns = list(robustness.groupby(["change", "value"], sort=False))
    head = ["method", "seeds", *(f"{change.partition(' (')[0]} {value}" for (change, value), _ in columns)]
    rows, commits = [], []
    for arm, of_arm in robustness.groupby("arm", sort=False):
        cells = [_over_seeds(part.loc[part["arm"] == arm, "recall@10"]) for _, part in columns]
        rows.append([method_words(arm), f"{of_arm['seed'].nunique()}", *cells])
        commits.append(commits_of(of_arm, commit))
    first = robustness.iloc[0]
    note = f"**{first['data']}**, gallery {first['gallery']:,}, chance @10 {100 * first['recall@10_chance']:.3g}."
    return _markdown(head, rows, commits, note)


def refinement_table(comparison: Comparison) -> str:
    """A comparison of refiners in an unseen area: recall and area under the metre curve in percent, mean over seeds.

    The difference to the search, by embeddings as they are or whitened, see `baseline_of`, has its paired 95 % interval
    over spatial blocks, bold where it excludes zero.
    """
    table, gaps, commit = comparison
    control = baseline_of(gaps)
    against_it = f"@1 against the {method_words(control)}".replace("search alone", "search")
    unseen = table[table["protocol"] == "cross_area"]
    gaps = gaps.query("protocol == 'cross_area' and control == @control").set_index(["arm", "kind", "measure"])
    means = unseen.groupby(["kind", "arm"], sort=False).mean(numeric_only=True)
    head = ["method", "arbitrary: @1 / @10", against_it, "@1 if in the list", "median error"]
    head += ["area to 100 m", "aligned: @1", against_it, "ms per query"]
    rows, commits = [], []
    for arm, of_arm in unseen.groupby("arm", sort=False):
        row, aligned = means.loc[("arbitrary", arm)], means.loc[("aligned", arm)]
        compared = [(arm, kind, "recall@1") for kind in ("arbitrary", "aligned")]
        against = [_gap(gaps.loc[key]) if key in gaps.index else "" for key in compared]
        cells = [
            method_words(arm),
            f"{100 * row['recall@1']:.1f} / {100 * row['recall@10']:.1f}",
            against[0],
            f"{100 * row['recall@1_in_list']:.1f}",
            f"{row['median_m']:,.0f} m" if row["median_m"] >= 100 else f"{row['median_m']:.3g} m",
            f"{100 * row['area_100m']:.1f}",
            f"{100 * aligned['recall@1']:.1f}",
            against[1],
            f"{row['ms_per_query']:.2g}",
        ]
        rows.append(cells)
        commits.append(commits_of(of_arm, commit))
    arbitrary, aligned = (100 * means.loc[(kind, "coarse"), "oracle"] for kind in ("arbitrary", "aligned"))
    first, seeds = unseen.iloc[0], unseen["seed"].nunique()
    return _markdown(
        head,
        rows,
        commits,
        f"**{first['data']}**, gallery {first['gallery']:,} (chance {100 / first['gallery']:.2g} / "
        f"{1000 / first['gallery']:.2g}), lists of K = {first['k']}, {_count(seeds)}; the oracle of the lists is "
        f"{arbitrary:.1f} on arbitrary and {aligned:.1f} on aligned queries.",
    )


def peaks_table(comparison: Comparison) -> str:
    """A comparison of refiners on the lists of dense search, arbitrary queries of an unseen area, mean over seeds.

    Differences in recall@1 are to the search, and of those that learn to the same network with self-loops only, with
    their paired 95 % intervals over spatial blocks.
    """
    table, gaps, commit = comparison
    unseen = table[table["protocol"] == "cross_area"]
    gaps = gaps.query("protocol == 'cross_area' and measure == 'recall@1'").set_index(["arm", "control"])
    head = ["method", "@1 / @10", "@1 against the search", "@1 against self-loops only", "median error", "within 10 m"]
    rows, commits = [], []
    for arm, of_arm in unseen.groupby("arm", sort=False):
        row = of_arm.mean(numeric_only=True)
        against = [_gap(gaps.loc[arm, c]) if (arm, c) in gaps.index else "" for c in ("coarse", "G0")]
        recall = f"{100 * row['recall@1']:.1f} / {100 * row['recall@10']:.1f}"
        metres = [f"{row['median_m']:.2g} m", f"{100 * row['within_10m']:.1f}"]
        rows.append([method_words(arm), recall, *against, *metres, f"{row['parameters']:,.0f}"])
        commits.append(commits_of(of_arm, commit))
    first = unseen.iloc[0]
    seeds = _count(unseen["seed"].nunique())
    note = f"**{first['data']}**, gallery {first['gallery']:,}, lists of K = {first['k']}, {seeds}"
    return _markdown(
        [*head, "parameters"], rows, commits, f"{note}; the oracle of the lists is {100 * first['oracle']:.1f}."
    )


def edges_table(comparisons: dict[str, Comparison]) -> str:
    """What edges are worth: a row per kind of edge, against the same network with self-loops only.

    Differences in percentage points with their paired 95 % intervals; `comparisons` by the name of the scene.
    """
    asked = [("arbitrary", "recall@1"), ("arbitrary", "recall@10"), ("aligned", "recall@1")]
    head = [f"`{scene}`, {kind} @{measure[7:]}" for scene in comparisons for kind, measure in asked]
    unseen = "protocol == 'cross_area' and control == 'G0'"
    found = [c.gaps.query(unseen).set_index(["arm", "kind", "measure"]) for c in comparisons.values()]
    rows, commits = [], []
    for arm in EDGE_ARMS:
        rows.append([method_words(arm), *(_gap(g.loc[(arm, *pair)]) for g in found for pair in asked)])
        of_arm = [c.table[c.table["arm"].isin([arm, "G0"])] for c in comparisons.values()]
        commits.append([x for t, c in zip(of_arm, comparisons.values(), strict=True) for x in commits_of(t, c.commit)])
    return _markdown(["method", *head], rows, commits)


def lengths_table(comparisons: dict[str, Comparison]) -> str:
    """How long a list should be: a row per method, arbitrary queries of an unseen area.

    Recall@1 in percent, mean over seeds, with the difference to the search, by embeddings as they are or whitened, see
    `baseline_of`; `comparisons` by the name of the scene. The oracle is what a perfect refiner would make of the list.
    """
    unseen = "protocol == 'cross_area' and kind == 'arbitrary'"
    head, oracle = [], []
    cells: dict[str, dict[str, str]] = {}
    commits: dict = {}
    for scene, (table, gaps, commit) in comparisons.items():
        means = table.query(unseen).groupby(["k", "arm"], sort=False)[["recall@1", "oracle"]].mean()
        control = baseline_of(gaps)
        against = gaps.query(f"{unseen} and control == @control and measure == 'recall@1'").set_index(["k", "arm"])
        for k, part in means.groupby(level="k"):
            head.append(f"`{scene}`, K = {k}")
            oracle.append(f"{100 * part['oracle'].iloc[0]:.1f}")
            for (_, arm), row in part.iterrows():
                gap = f", {_gap(against.loc[k, arm])}" if arm != control else ""
                cells.setdefault(arm, {})[head[-1]] = f"{100 * row['recall@1']:.1f}{gap}"
        for arm, of_arm in table.groupby("arm", sort=False):
            commits.setdefault(arm, []).extend(commits_of(of_arm, commit))
    rows = [["the oracle of the list", *oracle]]
    rows += [[method_words(arm), *(of_arm.get(column, "-") for column in head)] for arm, of_arm in cells.items()]
    return _markdown(["method", *head], rows, [commits["coarse"], *(commits[arm] for arm in cells)])


def _results(root: Path) -> str:
    demo, sentinel = (load_run(root / path) for path in ("data/demo", "data/results/sentinel"))
    dense = [load_run(root / path) for path in ("data/dense", "data/results/dense_sentinel")]
    scenes = ((demo, "refinement_easy"), (sentinel, "refinement_sentinel"))
    refined = [(run, load_comparison(name, root)) for run, name in scenes]
    return results_table([*dense, demo, sentinel], refined, HARDEST)


def _of_comparison(table: Callable[..., str], name: str, root: Path) -> str:
    return table(load_comparison(name, root))


def _by_scene(start: str, scenes: Sequence[str], root: Path) -> dict[str, Comparison]:
    return {scene: load_comparison(f"{start}_{scene}", root) for scene in scenes}


#: Every table by the name that stands in its comments.
TABLES: dict[str, Callable[[Path], str]] = {
    "results": _results,
    "demo": lambda root: results_table([load_run(root / "data/demo")]),
    "demo_whitened": lambda root: whitening_table(load_run(root / "data/demo")),
    "dense": lambda root: results_table([load_run(root / p) for p in ("data/dense", "data/results/dense_sentinel")]),
    "dense_tasks": lambda root: dense_table([root / "data/results" / name for name in ("dense", "dense_sentinel")]),
    "poses": lambda root: poses_table(root / "data/results/poses"),
    "powers": lambda root: powers_table(root / "data/results/poses/powers.csv"),
    "strips": lambda root: strips_table([root / "data/results" / name for name in STRIPS]),
    "presets": lambda root: presets_table(load_baselines(root)),
    "sentinel": lambda root: results_table(
        [load_run(root / "data/results" / name) for name in ("sentinel", "sentinel_shuffled")]
    ),
    "sentinel_whitened": lambda root: whitening_table(load_run(root / "data/results/sentinel_short")),
    "sentinel_lists": lambda root: whitening_table(load_run(root / "data/results/sentinel_lists")),
    **{
        name: partial(_of_comparison, sweep_table, name)
        for name in (*("questions", "dense_choices", "dense_networks", "pretrained", "pretrained_dense"),)
    },
    **{
        name: partial(_of_comparison, systems_table, name)
        for name in SWEEPS
        if name.startswith("systems_") and not name.startswith(ABLATIONS)
    },
    **{name: partial(_of_comparison, sweep_table, name) for name in SWEEPS if name.startswith(ABLATIONS)},
    "systems_published": lambda root: published_table(),
    **{
        name: partial(_of_comparison, weights_table, name)
        for name in ("alignment", "alignment_dense", "alignment_sentinel", "one_look_direction")
    },
    "acquisitions": lambda root: acquisitions_table(
        load_robustness("one_look_direction", root), load_comparison("one_look_direction", root).commit
    ),
    **{
        name: partial(_of_comparison, refinement_table, name)
        for name in ("refinement_easy", "refinement_standard", "refinement_sentinel")
    },
    "peaks": partial(_of_comparison, peaks_table, "peaks_standard"),
    "joint": lambda root: joint_table({words: load_run(root / path) for words, path in JOINT.items()}),
    "edges": lambda root: edges_table(_by_scene("refinement", ("easy", "standard", "sentinel"), root)),
    "lengths": lambda root: lengths_table(_by_scene("lengths", ("easy", "standard"), root)),
}


def _markdown(
    head: Sequence[str], rows: Sequence[Sequence[str]], commits: Sequence[Sequence[str]], note: str = ""
) -> str:
    """A table whose last column says at which commits each row was made; long lists of them stand below it."""
    lines = ["| " + " | ".join([*head, "commit"]) + " |", "|" + "---|" * (len(head) + 1)]
    long: list[str] = []
    for row, made_at in zip(rows, commits, strict=True):
        clean = {c.removesuffix("-dirty") for c in made_at}
        mark = DAGGER if any(c == "unknown" or c.endswith("-dirty") for c in made_at) else ""
        text = ", ".join(f"{c}{DAGGER}" if {f"{c}-dirty", "unknown"} & {*made_at, c} else c for c in sorted(clean))
        if len(clean) > 3:
            long += [text] if text not in long else []
            text = f"({'abcdefgh'[long.index(text)]}){mark}"
        lines.append("| " + " | ".join([*row, text]) + " |")
    notes = [note] if note else []
    notes += [f"({letter}) {text}" for letter, text in zip("abcdefgh", long, strict=False)]
    if DAGGER in "".join(lines):
        notes.append(f"{DAGGER} made from a tree with uncommitted changes, or at a commit that was not recorded")
    return "\n\n".join(["\n".join(lines), *notes]) + "\n"


def _result(run: Run, ours: pd.Series, baseline: pd.Series, test: str, method: str, error: str) -> list[str]:
    """A row of `results_table` but for its commit."""
    return [
        f"{Path(run.config.scene).name}, **{ours['data']}**",
        test,
        method,
        f"{ours['gallery']:,}",
        *(_with_interval(ours, k) for k in (1, 10)),
        f"{BASELINE_WORDS[run.config.baseline]} {_pair(baseline, 'recall@1', 'recall@10')}",
        _pair(baseline, "recall@1_chance", "recall@10_chance"),
        error,
    ]


def _gap(row: pd.Series) -> str:
    text = "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * row[k] for k in ("difference", "low", "high")))
    return f"**{text}**" if row["low"] > 0 or row["high"] < 0 else text


def _over_seeds(values: pd.Series) -> str:
    low, middle, high = (100 * v for v in (values.min(), values.mean(), values.max()))
    return f"**{middle:.1f}** ({low:.1f} to {high:.1f})" if len(values) > 1 else f"**{middle:.1f}**"


def _with_interval(row: pd.Series, k: int) -> str:
    if f"recall@{k}_low" not in row:
        return f"**{100 * row[f'recall@{k}']:.1f}**"
    middle, low, high = (100 * row[f"recall@{k}{end}"] for end in ("", "_low", "_high"))
    return f"**{middle:.1f}** ({low:.1f} to {high:.1f})"


def _pair(row: pd.Series, first: str, second: str) -> str:
    return f"{100 * row[first]:.3g} / {100 * row[second]:.3g}"


def _count(seeds: int) -> str:
    return f"{seeds} seeds" if seeds > 1 else "1 seed"
