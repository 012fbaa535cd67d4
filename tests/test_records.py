"""What README and the shipped checkpoint claim is what the code gives."""

import re

import pytest

import sarmatch as sm
from sarmatch.home import ROOT
from sarmatch.records import RECORDS, readme_with_results, record
from sarmatch.training import evaluate

README = (ROOT / "README.md").read_text()


def test_readme_states_the_recorded_numbers():
    assert readme_with_results(README) == README


def test_a_changed_number_would_show():
    first = re.search(r"\*\*(\d+\.\d)\*\*", README)
    changed = README.replace(first.group(0), "**99.9**", 1)
    assert readme_with_results(changed) != changed


@pytest.mark.parametrize("path", RECORDS)
def test_records_name_no_folder_of_one_machine(path):
    for file in (ROOT / path).glob("*.json"):
        assert not re.search(r'"/\w', file.read_text())


def test_the_shipped_checkpoint_gives_the_recorded_recall():
    run = sm.load_run(ROOT / "data" / "demo")
    recorded = run.metrics.query("protocol == 'cross_area' and kind == 'aligned'").set_index("method")
    report, _ = evaluate(run.encoder, run.scene(), run.config, "cross_area", "aligned")
    assert report["queries"] == recorded.loc[run.config.encoder, "queries"]
    # another machine rounds differently: a query or two may change places
    assert report["recall@1"] == pytest.approx(recorded.loc[run.config.encoder, "recall@1"], abs=0.01)


def test_the_python_of_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    code = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[0]
    space: dict[str, object] = {}
    exec(code, space)
    assert space["found"].xy.shape == (200, 5, 2)


def test_a_record_keeps_no_path_and_loads_again(tmp_path):
    run = sm.load_run(ROOT / "data" / "demo")
    moved = sm.Run(run.path, run.config.model_copy(update={"scene": str(tmp_path / "towns")}))
    record(moved, tmp_path / "kept", weights=True)
    again = sm.load_run(tmp_path / "kept")
    assert again.config.scene == "towns"
    assert again.metrics.equals(run.metrics)
    assert again.encoder is not None
