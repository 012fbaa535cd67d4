"""Progress bars are silent where nobody looks, and go on counting."""

import io

from sarmatch.progress import progress


def test_a_variable_silences_it(monkeypatch):
    for value, silent in (("1", True), ("", False)):
        monkeypatch.setenv("TQDM_DISABLE", value)
        file = io.StringIO()
        file.isatty = lambda: True
        assert list(progress(range(3), file=file, mininterval=0)) == [0, 1, 2]
        assert (file.getvalue() == "") == silent


def test_a_file_is_no_terminal(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    file = io.StringIO()
    assert list(progress(range(3), file=file)) == [0, 1, 2]
    assert file.getvalue() == ""
