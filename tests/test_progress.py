"""Progress bars are silent where nobody looks, and go on counting."""

import gc
import io
import time

from sarmatch.progress import Bar, lines_of_progress, progress


def test_a_variable_silences_it(monkeypatch):
    for value, silent in (("1", True), ("", False)):
        monkeypatch.setenv("TQDM_DISABLE", value)
        file = io.StringIO()
        file.isatty = lambda: True
        assert list(progress(range(3), file=file, mininterval=0)) == [0, 1, 2]
        assert (file.getvalue() == "") == silent


def test_of_several_processes_the_main_one_speaks(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    file = io.StringIO()
    file.isatty = lambda: True
    assert list(progress(range(3), file=file, mininterval=0)) == [0, 1, 2]
    with lines_of_progress(silence=0.01):
        time.sleep(0.1)
    assert file.getvalue() == capsys.readouterr().err == ""


def test_a_file_is_no_terminal(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    file = io.StringIO()
    assert list(progress(range(3), file=file)) == [0, 1, 2]
    assert file.getvalue() == ""


def test_a_silent_bar_counts_and_a_line_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with lines_of_progress(silence=0.05):
        bar = progress(total=40, desc="epoch 1/2", unit="pair")
        bar.update(30)
        time.sleep(0.3)
        bar.close()
        for _ in progress(range(2), desc="tiles"):
            time.sleep(0.1)
    time.sleep(0.1)
    said = capsys.readouterr().err
    assert "epoch 1/2: 30 of 40" in said
    assert "tiles: 1 of 2" in said
    assert Bar.active == []


def test_a_line_says_that_something_goes_on_where_nothing_counts(capsys):
    with lines_of_progress(silence=0.05):
        time.sleep(0.2)
    before = capsys.readouterr().err
    assert before.count("at work") >= 2
    time.sleep(0.15)
    assert capsys.readouterr().err == ""


def test_a_loop_that_is_left_early_is_no_longer_at_work(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    for _ in progress(range(5)):
        break
    gc.collect()
    assert Bar.active == []
