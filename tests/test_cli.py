"""The command line: the whole line on a folder of fake pairs, and errors that say what to do."""

import pytest
from typer.testing import CliRunner

from sarmatch.cli import app

SMALL = {"epochs": 1, "pairs_per_epoch": 32, "batch_size": 16, "image_size": 32, "test_queries": 30, "val_queries": 20}


def invoke(*words: str):
    return CliRunner().invoke(app, list(words))


def settings(**fields: object) -> list[str]:
    return [word for name, value in fields.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(autouse=True)
def _runs_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("SARMATCH_RUNS", str(tmp_path / "runs"))


def test_own_data_in_a_folder_of_pairs_reports_recall_and_no_metres(pairs_folder, tmp_path):
    options = settings(**SMALL, baseline_options='{"cells": 4}')
    answer = invoke("run", "own", "--scene", str(pairs_folder), *options)
    assert answer.exit_code == 0, answer.output
    (folder,) = (tmp_path / "runs").iterdir()
    for word in ("real", "recall@1", "recall@5", "recall@10", "recall@1%", "hit_rate", "hog", "chance", "gallery"):
        assert word in answer.output
    assert "median_m" not in answer.output
    assert str(folder / "report.html") in answer.output
    assert (folder / "report.html").stat().st_size > 10_000
    assert {p.name for p in folder.iterdir()} >= {
        "config.json",
        "metrics.json",
        "environment.json",
        "history.csv",
        "model.safetensors",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nonsense"], "no recipe is called 'nonsense'"),
        (["run", "demo", "--scene", "no/such/folder"], "no/such/folder"),
        (["run", "demo", "--set", "epocks=3"], "epocks"),
        (["run", "demo", "--set", "epochs=0"], "epochs"),
        (["run", "demo", "--set", "epochs"], "FIELD=VALUE"),
        (["refine", "nonsense"], "'nonsense' is neither a finished run's folder nor"),
        (["sweep", "nonsense"], "no comparison is called 'nonsense'"),
        (["sweep", "alignment_sentinel", "--scene", "no/such/folder"], "no/such/folder"),
    ],
)
def test_mistakes_are_named(words, said):
    answer = invoke(*words)
    assert answer.exit_code == 2
    assert said in answer.output


def test_recipes_are_listed():
    answer = invoke("recipes")
    assert "demo" in answer.output
    assert "sentinel" in answer.output
