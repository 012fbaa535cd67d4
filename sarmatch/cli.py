"""The same from a shell: `sarmatch run demo`.

What a command needs is imported in it, so that `sarmatch --help` answers at once.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

import sarmatch as sm
from sarmatch.paths import ROOT, runs_dir

app = typer.Typer(add_completion=False, no_args_is_help=True, help=sm.__doc__, pretty_exceptions_enable=False)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="one of `sarmatch recipes`")],
    scene: Annotated[str | None, typer.Option(help="a simulated scene's name, or a folder with your data")] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="change a field of the recipe; repeatable")
    ] = None,
) -> None:
    """Train, search and report; goes on where an interrupted run of the same config stopped."""
    from sarmatch.experiments.report import write_report

    changes = dict(_parse(text) for text in change or [])
    if scene is not None:
        changes["scene"] = scene
    try:
        config = sm.recipe(recipe, **changes)
        finished = sm.run(config)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        typer.echo("\ninterrupted; the same command goes on after the last whole epoch", err=True)
        raise typer.Exit(130) from None
    label = finished.metrics["data"].iloc[0]
    counts = finished.metrics.groupby(["protocol", "kind"], sort=False)["queries"].first()
    typer.echo(f"\nscene {config.scene.rstrip('/').split('/')[-1]!r}, {label}; recall as shares, errors in metres")
    typer.echo("test queries: " + ", ".join(f"{p} {k} {n}" for (p, k), n in counts.items()) + "\n")
    typer.echo(finished.summary.to_string(na_rep="-", float_format=_number))
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
) -> None:
    """Run a comparison of many configs and seeds, and keep its table; goes on where it was cut off."""
    from sarmatch.experiments.records import keep_run as keep
    from sarmatch.experiments.sweeps import SWEEPS, run_sweep

    try:
        table = run_sweep(name, scene)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
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
) -> None:
    """Compare the refiners on the lists of a run, and keep the table; goes on where it was cut off.

    The encoders that leave out a fold of its training ground are trained first, where they are not yet.
    """
    from sarmatch.experiments.lists import fold_config
    from sarmatch.experiments.records import keep_run as keep
    from sarmatch.experiments.studies import STUDIES, run_study, study_of

    try:
        study = study_of(name)
        for i, fold in enumerate(study.folds):
            if not (ROOT / fold / "metrics.json").is_file():
                keep(sm.run(fold_config(sm.load_run(ROOT / study.run), i)), ROOT / fold, weights=True)
        default = ROOT / "data/results" / name if name in STUDIES else Path(name) / "refinement"
        table = run_study(study, folder or default)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    columns = ["recall@1", "recall@5", "recall@10", "median_m", "within_25m", "ms_per_query"]
    means = table.groupby(["protocol", "kind", "k", "arm"], sort=False)[columns].mean()
    typer.echo(f"{study.about}; means over seeds\n{means.round(3).to_string()}")


@app.command()
def notebooks() -> None:
    """Execute all notebooks and keep their outputs."""
    from sarmatch.experiments.notebooks import execute_all

    execute_all(write_back=True)


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
def check(folder: Annotated[str, typer.Argument(help="folder of a data set, as for `run --scene`")]) -> None:
    """Tell what a folder holds and what is wrong with it; exits with 0 fine, 1 usable with problems, 2 not usable."""
    from sarmatch.patches.check import check_data

    found = check_data(folder)
    typer.echo(str(found))
    raise typer.Exit((1 if found.problems else 0) if found.usable else 2)


def _parse(text: str) -> tuple[str, object]:
    """`field=value`; the value is JSON where it can be read so, else text."""
    field, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r}: expected FIELD=VALUE, e.g. epochs=4")
    try:
        return field, json.loads(value)
    except json.JSONDecodeError:
        return field, value


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"


if __name__ == "__main__":
    app()
