"""The command line: the whole line on a folder of fake pairs, and errors that say what to do."""

import os
import signal

import pytest
from typer.testing import CliRunner

import sarmatch as sm
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
        (["explore", "no/such/run"], "no finished run here"),
        (["slides", "no/such.ipynb"], "no/such.ipynb"),
        (["report", "no/such.ipynb"], "no/such.ipynb"),
        (["refine", "nonsense"], "'nonsense' is neither a finished run's folder nor"),
        (["refine", "refinement_easy", "--arm", "M9"], "arms are ['M9'], expected some of ['coarse', "),
        (["sweep", "nonsense"], "no comparison is called 'nonsense'"),
        (["sweep", "alignment_sentinel", "--scene", "no/such/folder"], "no/such/folder"),
        (["sweep", "systems_panorama_cross_area"], "needs data"),
        (["simulate", "--crossview", "vigour", "no-such-folder"], "no cross-view set is called 'vigour'"),
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


def test_usage_and_input_errors_are_sentences(pairs_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SARMATCH_RUNS", str(tmp_path / "runs"))
    for words, said in (
        (["run", "own", "--set", "epochs=1", "--set", "epochs=2"], "epochs is given twice"),
        (["run", "own", "--scene", "easy", "--set", "scene=hard"], "scene is given twice"),
        (["run", "own", "--set", "=3"], "FIELD=VALUE"),
        (["run", "own", "--set", "epochs=" + "[" * 9000], "epochs is '[["),
        (["run", "own", "--set", "name=../x"], "name is '../x'"),
        (["sweep", "alignment_sentinel"], "'alignment_sentinel' needs data"),
        (["sweep", "one_look_direction", "--finished"], "'one_look_direction': none of its runs is finished"),
        (["record", "/nope", str(tmp_path / "kept")], "/nope: no finished run here"),
    ):
        answer = invoke(*words)
        assert answer.exit_code == 2, answer.output
        assert said in answer.output
        assert "http" not in answer.output


def test_a_fault_of_ours_is_shown_as_it_is(monkeypatch):
    def broken(*arguments, **options):
        raise KeyError("ours")

    monkeypatch.setattr("sarmatch.recipe", broken)
    assert isinstance(invoke("run", "demo").exception, KeyError)


def test_no_memory_and_a_training_gone_wrong_are_sentences(monkeypatch):
    for error, said in (
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "lower batch_size"),
        (MemoryError(), "MemoryError"),
        (FloatingPointError("loss is nan; lower learning_rate"), "lower learning_rate"),
        (OSError("disk.bin: could not be written"), "disk.bin"),
    ):

        def fails(*arguments, error=error, **options):
            raise error

        monkeypatch.setattr("sarmatch.recipe", fails)
        answer = invoke("run", "demo")
        assert answer.exit_code == 2
        assert said in answer.output


def test_a_request_to_end_is_an_interruption(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("sarmatch.recipe", lambda *arguments, **options: os.kill(os.getpid(), signal.SIGTERM))
    answer = invoke("run", "demo")
    assert answer.exit_code == 130
    assert "goes on where it was" in answer.output
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_first_result_worse_than_the_baseline_says_so(pairs_folder, tmp_path):
    fields = SMALL | {"learning_rate": 1e-9, "epochs": 1}
    answer = invoke("run", "own", "--scene", str(pairs_folder), *settings(**fields, baseline_options='{"cells": 4}'))
    metrics = sm.load_run(next((tmp_path / "runs").iterdir())).metrics.set_index(["kind", "method"])["recall@1"]
    worse = [kind for kind in ("arbitrary", "aligned") if metrics[kind, "plain"] < metrics[kind, "hog"]]
    assert worse
    assert answer.output.count("note: ") == len(worse)
    assert answer.output.count("On validation areas") == len(worse)
