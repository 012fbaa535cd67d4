"""The same from a shell: `sarmatch run demo`.

What a command needs is imported in it, so that `sarmatch --help` answers at once.
"""

import json
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import sarmatch as sm
from sarmatch.atomic_io import check_writable
from sarmatch.paths import ROOT, runs_dir
from sarmatch.progress import lines_of_progress


class Commands(TyperGroup):
    """All commands: each says that it is at work, and tells its errors in a sentence."""

    def invoke(self, ctx: Any) -> Any:
        with _told_errors(), _ended_politely(), lines_of_progress():
            return super().invoke(ctx)


@contextmanager
def _told_errors() -> Iterator[None]:
    """An error that the input explains is one sentence and exit code 2; any other is a fault of ours, and is shown."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("\ninterrupted; the same command goes on where it was", err=True)
        raise typer.Exit(130) from None
    except BrokenPipeError:
        raise
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        raise _exit(str(error) or type(error).__name__) from error
    except RuntimeError as error:  # of torch, which has no memory error of its own on a CPU
        if "memory" not in str(error):
            raise
        raise _exit(f"out of memory; lower batch_size, image_size or test_queries ({error})") from error


def _exit(message: str) -> typer.Exit:
    typer.echo(f"error: {message}".encode("utf-8", "backslashreplace").decode(), err=True)
    return typer.Exit(2)


@contextmanager
def _ended_politely() -> Iterator[None]:
    """A request to end is an interruption: what is half written is cleared away."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only that one may be told of signals
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text[:80]!r} is no whole number") from None


app = typer.Typer(
    cls=Commands, add_completion=False, no_args_is_help=True, help=sm.__doc__, pretty_exceptions_enable=False
)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="one of `sarmatch recipes`")],
    scene: Annotated[str | None, typer.Option(help="a simulated scene's name, or a folder with your data")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="change a field of the recipe; repeatable")
    ] = None,
    trained: Annotated[
        Path | None, typer.Option(help="folder of a run whose weights are used, of the same training; trains nothing")
    ] = None,
) -> None:
    """Train, search and report; goes on where an interrupted run of the same config stopped."""
    from sarmatch.experiments.report import better_baseline, comparison_words, write_report

    given = [_parse(text) for text in change or []] + ([] if scene is None else [("scene", scene)])
    for field in (names := [name for name, _ in given]):
        if names.count(field) > 1:
            raise typer.BadParameter(f"{field} is given twice")
    config = sm.recipe(recipe, **dict(given))
    finished = sm.run(config, trained=trained)
    label = finished.metrics["data"].iloc[0]
    counts = finished.metrics.groupby(["protocol", "kind"], sort=False)["queries"].first()
    typer.echo(f"\nscene {config.scene.rstrip('/').split('/')[-1]!r}, {label}; recall as shares, errors in metres")
    typer.echo("test queries: " + ", ".join(f"{p} {k} {n}" for (p, k), n in counts.items()) + "\n")
    typer.echo(finished.summary.to_string(na_rep="-", float_format=_number))
    for sentence in comparison_words(finished):
        typer.echo(f"\n{sentence}")
    for sentence in better_baseline(finished):
        typer.echo(f"\nnote: {sentence}")
    typer.echo(f"\nreport: {write_report(finished)}")


@app.command()
def recipes() -> None:
    """List the recipes."""
    from sarmatch.training.config import RECIPES

    for name, what in sorted(RECIPES.items()):
        typer.echo(f"{name:16} {what.about}")


@app.command()
def sweep(
    name: Annotated[str, typer.Argument(help="a comparison; a name that is none lists them")],
    scene: Annotated[str, typer.Option(help="folder of the real data, where it needs any")] = "",
    finished: Annotated[bool, typer.Option("--finished", help="train nothing, and record what is finished")] = False,
) -> None:
    """Run a comparison of many configs and seeds, and keep its table; goes on where it was cut off."""
    from sarmatch.experiments.records import keep_run as keep
    from sarmatch.experiments.sweeps import SWEEPS, run_sweep

    table = run_sweep(name, scene, finished=finished)
    for arm in SWEEPS[name].shipped:
        first = table.query("arm == @arm").iloc[0]
        keep(sm.load_run(runs_dir() / first["run"]), ROOT / "data" / "checkpoints" / arm, weights=True)
    means = table.groupby(["protocol", "kind", "arm"], sort=False)[["recall@1", "recall@10", "median_m"]].mean()
    typer.echo(f"{SWEEPS[name].about}; means over {table['seed'].nunique()} seeds\n{means.round(3).to_string()}")


@app.command()
def refine(
    name: Annotated[str, typer.Argument(help="a run's folder, or a comparison; a name that is none lists them")],
    folder: Annotated[
        Path | None, typer.Option(help="where the table is kept: in the run's folder, or under data/results")
    ] = None,
    finished: Annotated[
        bool, typer.Option("--finished", help="fit nothing: the recorded table anew, of what was kept")
    ] = False,
    arm: Annotated[
        list[str] | None, typer.Option(help="a row that is made anew and joins the recorded table; may be given again")
    ] = None,
) -> None:
    """Compare the refiners on the lists of a run, and keep the table; goes on where it was cut off.

    The encoders that leave out a fold of its training ground are trained first, where they are not yet.
    """
    from sarmatch.experiments.lists import fold_config
    from sarmatch.experiments.records import keep_run as keep
    from sarmatch.experiments.studies import STUDIES, run_study, study_of

    study = study_of(name)
    kept = folder or (ROOT / "data/results" / name if name in STUDIES else Path(name) / "refinement")
    check_writable(kept)
    for i, fold in enumerate(study.folds):
        if not (ROOT / fold / "metrics.json").is_file():
            keep(sm.run(fold_config(sm.load_run(ROOT / study.run), i)), ROOT / fold, weights=True)
    table = run_study(study, kept, finished=finished, arms=arm or ())
    columns = ["recall@1", "recall@5", "recall@10", "median_m", "within_25m", "ms_per_query"]
    means = table.groupby(["protocol", "kind", "k", "arm"], sort=False)[columns].mean()
    typer.echo(f"{study.about}; means over seeds\n{means.round(3).to_string()}")


#: Which scenes a command of dense search asks about.
Searched = Annotated[list[str] | None, typer.Option(help="scenes whose unseen area is searched; that of the run")]


def _scenes(run: "sm.Run", names: list[str] | None) -> dict[str, "sm.Scene"]:
    """Scenes by name as a run of dense search is tested on them; its own by default."""
    from sarmatch.training.runs import map_of

    return {name: map_of(run.config.model_copy(update={"scene": name})) for name in names or [run.config.scene]}


@app.command()
def dense(
    run: Annotated[Path, typer.Argument(help="folder of a run of dense search")],
    folder: Annotated[Path, typer.Argument(help="where the table is kept")],
    scene: Searched = None,
    size: Annotated[
        list[int] | None, typer.Option(parser=_whole, help="sides of the queries in pixels; that of a tile")
    ] = None,
) -> None:
    """Compare the dense search of a run with the same search over CFOG, and keep the table."""
    from sarmatch.experiments.dense import table_of

    check_writable(folder)
    of = sm.load_run(run)
    table = table_of(of, folder, _scenes(of, scene), size or [None])
    columns = ["scene", "size", "method", "queries_of", "queries", "recall@1", "recall@10", "median_m", "within_10m"]
    columns += ["registered_within_10m", "within_66m", "within_100m", "ms_per_query"]
    typer.echo(table[columns].round(3).to_string(index=False))


@app.command()
def poses(
    run: Annotated[Path, typer.Argument(help="folder of a run of dense search")],
    folder: Annotated[Path, typer.Argument(help="where the table is kept")],
    scene: Searched = None,
    count: Annotated[int, typer.Option(help="queries of each scene", min=1)] = 100,
) -> None:
    """Search densely for queries whose heading or scale nobody tells, beside the same north up, and keep the table."""
    from sarmatch.experiments.dense import poses_table, powers_table

    check_writable(folder)
    of = sm.load_run(run)
    table = poses_table(of, folder, _scenes(of, scene), count)
    powers = powers_table(of, folder, _scenes(of, scene), count)
    columns = ["scene", "method", "queries", "recall@1", "recall@10", "median_m", "registered_within_10m"]
    columns += ["heading_median_deg", "scale_median", "ms_per_query"]
    typer.echo(table[columns].round(3).to_string(index=False))
    typer.echo(powers[["scene", "power", "queries", "recall@1", "bias", "bias_median"]].round(3).to_string(index=False))


@app.command()
def strips(
    run: Annotated[Path, typer.Argument(help="run folder")],
    folder: Annotated[Path, typer.Argument(help="where the table is kept")],
    count: Annotated[int, typer.Option(help="strips of the test area", min=2)] = 150,
    windows: Annotated[int, typer.Option(help="windows of the longest strips", min=1)] = 8,
    calibration: Annotated[int, typer.Option(help="strips of validation ground", min=2)] = 40,
) -> None:
    """Locate strips of the test area by a run and its baseline, calibrated on validation ground, and keep the table."""
    from sarmatch.experiments.localization import locating_table

    check_writable(folder)
    table = locating_table(sm.load_run(run), folder, count, windows, calibration)
    columns = ["method", "windows", "within_10m", "within_25m", "within_50m", "within_100m", "sure", "sure_right"]
    columns += ["in_area", "called_absent", "strangers_called_absent"]
    typer.echo(table[columns].round(3).to_string(index=False))


@app.command()
def locate(
    strip: Annotated[Path, typer.Argument(help="SAR image whose place nobody knows")],
    map: Annotated[Path, typer.Argument(help="georeferenced optical image")],  # the word that users say
    out: Annotated[
        Path, typer.Option("-o", "--out", help="GeoJSON; CSV, PNG, GeoTIFF and tie points are laid beside it")
    ],
    run: Annotated[Path | None, typer.Option(help="run folder; the shipped one of dense search")] = None,
    method: Annotated[str | None, typer.Option(help="a method without training instead: cfog")] = None,
    heading: Annotated[
        str | None, typer.Option(help="degrees clockwise from north at which its top points, or unknown")
    ] = None,
    scale: Annotated[str, typer.Option(help="how much larger its pixels may be: a number, or LOW:HIGH")] = "1",
    pixel_size: Annotated[float | None, typer.Option(help="metres per pixel of the strip; as its file says")] = None,
    near: Annotated[str | None, typer.Option(metavar="LON,LAT", help="near which it should lie")] = None,
    radius: Annotated[float | None, typer.Option(help="metres about --near that hold it, at 95 %")] = None,
) -> None:
    """Find where a strip lies on a map; exits with 0 where it does, 1 where it does not lie on this map.

    Several GPUs or machines that see the same files share the work: `accelerate launch -m sarmatch.cli locate ...`.
    """
    from sarmatch.experiments.report import save_location
    from sarmatch.localization.location import LocationWarning
    from sarmatch.search.keeping import processes

    is_main = processes().is_main_process
    if out.suffix.lower() not in (".geojson", ".json"):
        raise ValueError(f"{out}: expected a name that ends in .geojson")
    for given in (strip, map):
        if given.resolve() in [
            out.with_suffix(end).resolve() for end in (out.suffix, ".csv", ".png", ".tif", ".points")
        ]:
            raise ValueError(f"{out}: a file beside it would replace {given}, expected a name of its own")
    if is_main:
        check_writable(out.parent)
    warnings.simplefilter("ignore", LocationWarning)  # they are told below
    found = sm.locate(
        strip,
        map,
        run,
        method=method,
        heading=heading if heading in (None, "unknown") else _numbers("--heading", heading, 1)[0],
        scale=_numbers("--scale", scale, 2, ":"),
        pixel_size=pixel_size,
        near=None if near is None else _numbers("--near", near, 2),
        radius=radius,
    )
    if not is_main:
        return
    files = save_location(found, out)
    typer.echo(f"{strip.name}: {found}")
    for text in found.warnings:
        typer.echo(f"note: {text}")
    typer.echo("\n".join(str(path) for path in files))
    raise typer.Exit(0 if found.on_map else 1)


@app.command()
def example(folder: Annotated[Path, typer.Argument(help="where to")]) -> None:
    """Write a strip of a simulated town and the town's map as GeoTIFFs, to try `locate` on."""
    from sarmatch.experiments.localization import write_example

    check_writable(folder)
    made = write_example(folder)
    longitude, latitude = made.lonlat
    typer.echo(
        f"{made.strip}: taken at longitude {longitude:.6f}, latitude {latitude:.6f}, which the file does not say"
    )
    typer.echo(f"sarmatch locate {made.strip} {made.map} --pixel-size {made.pixel_size:g} -o {folder / 'fix.geojson'}")


@app.command()
def explore(
    run: Annotated[Path, typer.Argument(help="run folder, e.g. data/dense")],
    scene: Annotated[str | None, typer.Option(help="another scene than the run's, or a folder with data")] = None,
    port: Annotated[int, typer.Option(help="of the page", min=1, max=65535)] = 8866,
    browser: Annotated[bool, typer.Option(help="open the page in a browser")] = True,
) -> None:
    """Look at a run in a browser: its queries, its answers, and where they lie. Needs voila."""
    from sarmatch.explorer.page import serve

    serve(run, scene, port, browser)


@app.command()
def notebooks() -> None:
    """Execute all notebooks and keep their outputs."""
    from sarmatch.experiments.notebooks import execute_all

    execute_all(write_back=True)


@app.command()
def slides(
    notebook: Annotated[list[Path] | None, typer.Argument(help="executed notebooks; all of this checkout")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="folder of the pages")] = ROOT / "build" / "slides",
) -> None:
    """Make slides of notebooks, one HTML file each that needs no network; the key S shows the speaker's notes."""
    from sarmatch.experiments.notebooks import list_notebooks
    from sarmatch.experiments.present import make_slides

    for path in notebook or list_notebooks():
        typer.echo(make_slides(path, out / f"{path.stem}.html"))


@app.command()
def report(
    notebook: Annotated[list[Path] | None, typer.Argument(help="executed notebooks; all of this checkout")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="the page")] = ROOT / "build" / "report.html",
) -> None:
    """Make one HTML file of notebooks, with a page of contents."""
    from sarmatch.experiments.notebooks import list_notebooks
    from sarmatch.experiments.present import make_report

    typer.echo(make_report(notebook or list_notebooks(), out))


@app.command()
def record(
    run: Annotated[Path, typer.Argument(help="run folder")],
    folder: Annotated[Path, typer.Argument(help="where to keep it, e.g. data/demo")],
    weights: Annotated[bool, typer.Option(help="keep the weights too")] = False,
) -> None:
    """Keep the numbers of a run in the repository."""
    from sarmatch.experiments.records import keep_run as keep

    keep(sm.load_run(run), folder, weights)


@app.command()
def whitening(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders of search by vectors")],
) -> None:
    """Choose on validation areas whether the vectors of finished runs are whitened, and keep that in their folders."""
    from sarmatch.experiments.records import record_whitening
    from sarmatch.experiments.report import comparison_words

    for folder in folders:
        typer.echo(f"{folder}: {comparison_words(record_whitening(sm.load_run(folder)))[0]}")


@app.command()
def baselines() -> None:
    """Measure how hard the simulated scenes are for a descriptor without training, and keep the numbers."""
    from sarmatch.experiments.records import record_baselines

    columns = [
        "scene",
        "protocol",
        "kind",
        "queries",
        "gallery",
        "recall@1",
        "recall@10",
        "recall@1_chance",
        "median_m",
    ]
    typer.echo(record_baselines()[columns].to_string(index=False, float_format=_number))


@app.command()
def readme() -> None:
    """Write the table of results into README, from the recorded runs."""
    from sarmatch.experiments.records import update_readme

    update_readme()


@app.command()
def simulate(
    crossview: Annotated[str, typer.Option(metavar="PRESET", help="a simulated cross-view set: vigor, cvusa, ...")],
    folder: Annotated[Path, typer.Argument(help="where to, new or empty")],
    seed: Annotated[int, typer.Option(help="of the towns and of where panoramas are taken", min=0)] = 0,
    profile: Annotated[str, typer.Option(help="quick or full")] = "quick",
) -> None:
    """Render street panoramas and aerial tiles of simulated towns, in the layout of a published set."""
    check_writable(folder)
    made = sm.simulate_crossview(folder, crossview, seed=seed, profile=profile)
    protocol = "same_area"
    for split in ("train", "test"):
        view = sm.load_crossview(made, protocol, split)
        typer.echo(f"{protocol} {split}: {len(view.queries)} panoramas, {len(view.references)} tiles, {view.credit}")


@app.command()
def check(folder: Annotated[str, typer.Argument(help="folder of a data set, as for `run --scene`")]) -> None:
    """Tell what a folder holds and what is wrong with it; exits with 0 fine, 1 usable with problems, 2 not usable."""
    from sarmatch.patches.check import check_data

    found = check_data(folder)
    typer.echo(str(found))
    raise typer.Exit((1 if found.problems else 0) if found.usable else 2)


def _parse(text: str) -> tuple[str, object]:
    """`field=value`; the value is JSON where it can be read so, else text."""
    field, equals, value = text.partition("=")
    if not equals or not field.strip():
        raise typer.BadParameter(f"{text!r}: expected FIELD=VALUE, e.g. epochs=4")
    try:
        return field.strip(), json.loads(value)
    except (ValueError, RecursionError):  # a number of too many digits, or brackets in brackets without end, are text
        return field.strip(), value


def _numbers(option: str, text: str, most: int, between: str = ",") -> tuple[float, ...]:
    """Numbers of an option; of a range that is one number, twice that."""
    try:
        given = tuple(float(part) for part in text.split(between))
    except ValueError:
        given = ()
    if between == ":" and len(given) == 1:
        given *= most
    if len(given) != most:
        raise typer.BadParameter(f"{option} is {text[:80]!r}, expected {most} number(s) with {between!r} between them")
    return given


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"


if __name__ == "__main__":
    app()
