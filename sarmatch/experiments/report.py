"""One page per run: numbers, pictures and what they were made with, in a file that needs nothing beside it."""

import base64
import io
import json
from collections.abc import Iterator
from html import escape
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sarmatch.atomic_io import read_json, write
from sarmatch.datasets import CrossView
from sarmatch.evaluation import localization_errors
from sarmatch.figures import (
    error_cdf,
    fractions_within,
    map_of_outcomes,
    map_with_places,
    method_words,
    panorama_on_tiles,
    recall_curves,
    retrieval_rows,
    training_curve,
    use_style,
)
from sarmatch.figures.localization import located_strip
from sarmatch.figures.style import task_words
from sarmatch.localization import Location, picture, save
from sarmatch.patches import positions
from sarmatch.scenes import Scene
from sarmatch.training import Run
from sarmatch.training.checkpoints import ENVIRONMENT
from sarmatch.training.views import Views

SHOWN = 3  # queries found and queries missed in the gallery
FIRST = 5  # tiles shown for each

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1060px; margin: 2em auto; padding: 0 1em }
h1 { margin-bottom: 0 } h2 { margin-top: 2em; border-bottom: 1px solid #ccc } img { max-width: 100% }
table { border-collapse: collapse; margin: 1em 0 } caption { text-align: left; font-weight: bold; padding: .3em 0 }
th, td { padding: .25em .9em; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
td.ours { font-weight: bold } .tag { background: #eee; padding: 0 .5em }
p.read { color: #444 } pre { background: #f6f6f6; padding: .8em; overflow-x: auto; font-size: 13px }
"""


def write_report(run: Run) -> Path:
    """Write `report.html` into the run folder.

    Parameters
    ----------
    run
        A finished run.

    Returns
    -------
    The file. Every picture is inside it, so it can be mailed or moved.
    """
    use_style()
    scene = run.scene()
    page = "\n".join(_page(run, scene))
    title = f"{escape(run.config.name)}: {escape(scene.name)} ({scene.label})"
    html = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>\n{page}\n</body></html>\n"
    )
    write(run.report, lambda p: p.write_text(html, encoding="utf-8"))
    return run.report


def save_location(found: Location, path: Path) -> list[Path]:
    """Write a located strip as `sarmatch.localization.save` does, and beside it a picture, `NAME.png`; returns the
    files."""
    use_style()
    files = save(found, path)
    figure = located_strip(**picture(found))
    write(path.with_suffix(".png"), lambda p: figure.savefig(p, format="png", bbox_inches="tight"))
    return [*files, path.with_suffix(".png")]


def better_baseline(run: Run) -> list[str]:
    """A sentence for each task in which the training-free baseline finds more than the trained encoder.

    It names the method that is best on validation areas, where the run has compared them there.
    """
    ours, baseline, sentences = run.config.encoder, run.config.baseline, []
    recall = run.metrics.set_index(["protocol", "kind", "method"])["recall@1"]
    for protocol, kind in product(run.config.protocols, run.config.kinds):
        own, free = recall[protocol, kind, ours], recall[protocol, kind, baseline]
        if not own < free:
            continue
        text = (
            f"{task_words(protocol, kind)}: the trained encoder finds {own:.1%} of the queries first, "
            f"{method_words(baseline)} without any training {free:.1%}."
        )
        if not run.validation.empty:
            known = run.validation.query("protocol == @protocol and kind == @kind").set_index("method")["recall@1"]
            best = known.idxmax()
            attribute = "encoder" if best == ours else "baseline"
            text += (
                f" On validation areas {method_words(best)} is best ({known[ours]:.1%} and {known[baseline]:.1%}): "
                f"search with `sm.load_run({str(run.path)!r}).{attribute}`."
            )
        sentences.append(text)
    return sentences


def comparison_words(run: Run) -> list[str]:
    """A sentence on how a run compares vectors by default, and by which numbers; none where it has not chosen."""
    if not (known := run.whitening):
        return []
    how = "whitened" if known["whitened"] > known["plain"] else "as they are"
    return [
        f"Vectors are compared {how}: on validation areas {known['measure']} is {known['plain']:.1%} as they are and "
        f"{known['whitened']:.1%} whitened (among 100 tiles or more)."
    ]


def _page(run: Run, scene: Scene | Views) -> Iterator[str]:
    config, metrics = run.config, run.metrics
    # the hardest question asked: an unseen area where it was, at arbitrary offsets where it was
    protocol, kind = min(
        metrics[["protocol", "kind"]].itertuples(index=False, name=None),
        key=lambda task: (task[0], task[1] != "arbitrary"),
    )
    results, (_, tiles) = run.results(protocol, kind), run.task(scene, protocol, kind)
    size = int(tiles["size"].iloc[0])
    side = f"{size} px, {size * scene.pixel_size:.0f} m" if scene.has_coordinates else f"{size} px, no coordinates"

    yield f'<h1>{escape(config.name)} on {escape(scene.name)} <span class="tag">{scene.label} data</span></h1>'
    yield f'<p class="read">Side of a patch: {side}. Source: {escape(scene.credit or "not named")}.</p>'
    yield _headline(run, scene, protocol, kind)
    for sentence in better_baseline(run):
        yield f"<p><strong>Note.</strong> {escape(sentence)}</p>"

    yield "<h2>Numbers</h2>"
    for task, table in run.summary.groupby(level=["protocol", "kind", "gallery"], sort=False):
        count = metrics.query("protocol == @task[0] and kind == @task[1]")["queries"].iloc[0]
        caption = f"{task_words(*task[:2])}: {count} test queries, gallery of {task[2]} tiles ({scene.label})"
        yield _table(table.droplevel(["protocol", "kind", "gallery"]), caption, config.encoder)
    yield (
        '<p class="read">Recall as fractions of the queries, errors in metres. <em>hit_rate</em>: no tile off '
        "the ground of the query scores above the true one (VIGOR). <em>chance</em>: a random tile. "
        "<em>ceiling</em>: the centre of the right tile, which is what a perfect search answers. "
        "Ties count against the method.</p>"
    )
    yield _image(recall_curves(metrics))
    if scene.has_coordinates:
        yield "<h2>Metres</h2>"
        yield _image(_errors(run, scene, protocol, kind, tiles))

    yield "<h2>Training</h2>"
    yield f"<p>The epoch was chosen by {escape(config.select)} on the validation area.</p>"
    yield from (f"<p>{escape(sentence)}</p>" for sentence in comparison_words(run))
    yield _image(training_curve(run.history, config.select, scene.label, run.kept["epoch"]))

    if isinstance(scene, Views):
        yield from _panorama_shown(results, tiles, scene)
    else:
        yield from _on_the_map(scene, results, tiles, protocol, kind)

    yield "<h2>Made with</h2>"
    environment = read_json(run.path / ENVIRONMENT, dict)
    yield f"<pre>{escape(json.dumps(environment, indent=2))}</pre>"
    yield f"<pre>{escape(json.dumps(config.model_dump(mode='json'), indent=2))}</pre>"


def _panorama_shown(results: pd.DataFrame, tiles: pd.DataFrame, scene: Views) -> Iterator[str]:
    """The first panorama of the table with the tiles that cover its place."""
    results, tiles = (table.assign(path=[Path(p) for p in table["path"]]) for table in (results, tiles))
    view = CrossView(scene.name, results, tiles, scene.has_coordinates, scene.credit, scene.label == "simulated")
    yield "<h2>One of the panoramas</h2>"
    yield _image(panorama_on_tiles(view, 0))


def _on_the_map(scene: Scene, results: pd.DataFrame, tiles: pd.DataFrame, protocol: str, kind: str) -> Iterator[str]:
    """Queries found and missed, and where they lie."""
    test = task_words(protocol, kind)
    yield f"<h2>Queries found and missed ({test})</h2>"
    right = (results["rank"] == 0).to_numpy()
    yield (
        f"<p>The true tile came first for {right.sum()} of {len(right)} queries. Shown are the first {SHOWN} found "
        f"and the first {SHOWN} missed in the table, not chosen by eye.</p>"
    )
    for mask, name in ((right, "found"), (~right, "missed")):
        chosen = results[mask].head(SHOWN)
        if chosen.empty:
            yield f"<p>No query was {name}.</p>"
        else:
            yield _image(result_rows(scene, chosen, tiles, f"{name.capitalize()} queries"))

    if scene.has_coordinates:
        yield "<h2>On the map</h2>"
        for area in results["area"].unique():
            here = (results["area"] == area).to_numpy()
            yield _image(
                map_of_outcomes(scene, results[here], right[here], f"Test queries, {task_words(protocol, kind)}")
            )
        example = results.iloc[[int(np.argmax(right))]]
        yield _image(map_with_places(scene, example, tiles, example["found"].iloc[0][:FIRST], "One of these queries"))


def _headline(run: Run, scene: Scene | Views, protocol: str, kind: str) -> str:
    table = run.summary.xs((protocol, kind), level=["protocol", "kind"]).reset_index("gallery")
    ours, floor, row = run.config.encoder, run.config.baseline, table.loc["recall@1"]
    text = (
        f"{task_words(protocol, kind)} queries: the true tile comes first for "
        f"<strong>{row[ours]:.1%}</strong> of them, out of "
        f"{row['gallery']:.0f} tiles (chance {row['chance']:.2%}, {method_words(floor)} {row[floor]:.1%})."
    )
    if scene.has_coordinates:
        row = table.loc["median_m"]
        text += (
            f" Half of them are placed within <strong>{row[ours]:,.0f} m</strong> (a perfect search on this grid "
            f"{row['ceiling']:,.0f} m, chance {row['chance']:,.0f} m, {method_words(floor)} {row[floor]:,.0f} m)."
        )
    return f"<p>{text}</p>"


def _table(table: pd.DataFrame, caption: str, ours: str) -> str:
    """Rows of measures, a column per method; fractions with four digits, metres with one."""
    head = "".join(f"<th>{escape(method_words(c))}</th>" for c in ["", *table.columns])
    lines = []
    for measure, row in table.iterrows():
        digits = "{:,.1f}" if measure.endswith("_m") else "{:.4f}"
        cells = "".join(
            f"<td{' class=ours' if name == ours else ''}>{'-' if pd.isna(v) else digits.format(v)}</td>"
            for name, v in row.items()
        )
        lines.append(f"<tr><td>{escape(measure)}</td>{cells}</tr>")
    return f"<table><caption>{escape(caption)}</caption><tr>{head}</tr>{''.join(lines)}</table>"


def _errors(run: Run, scene: Scene | Views, protocol: str, kind: str, tiles: pd.DataFrame) -> Figure:
    results, xy = run.results(protocol, kind), positions(tiles)
    perfect = localization_errors(xy[results["positive"]], positions(results))
    task = run.metrics.query("protocol == @protocol and kind == @kind").set_index("method")

    return error_cdf(
        {run.config.encoder: results["error_m"].to_numpy(), "ceiling": perfect},
        {
            run.config.baseline: fractions_within(task.loc[run.config.baseline]),
            "chance": fractions_within(task.iloc[0], "chance_"),
        },
        f"{task_words(protocol, kind)}: {len(results)} queries, {len(tiles)} tiles",
        scene.label,
    )


def result_rows(scene: Scene, chosen: pd.DataFrame, tiles: pd.DataFrame, title: str) -> Figure:
    """Rows of a run's results as pictures: each query, its true tile, and the first tiles found."""
    found = np.array([f[:FIRST] for f in chosen["found"]])
    scores = np.array([s[:FIRST] for s in chosen["score"]])
    distances = None
    if scene.has_coordinates:
        xy, true = positions(tiles), positions(chosen)
        distances = np.stack([localization_errors(xy[column], true) for column in found.T], axis=1)
    names = [f"query {i}, {s}" for i, s in zip(chosen.index, chosen["strip"], strict=True)]
    return retrieval_rows(scene, chosen, tiles, found, scores, distances, names, title)


def _image(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="jpeg", bbox_inches="tight", pil_kwargs={"quality": 85})
    title = escape(figure.get_suptitle() or figure.axes[0].get_title())
    return f'<img alt="{title}" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">'
