"""Files are old or new, never half; errors name them; nothing is left over for ever."""

import json
import os
import platform

import pytest

from sarmatch.atomic_io import check_writable, read_json, write, write_json


def ended_process() -> int:
    """The number of a process that is no more."""
    process = os.fork()
    if not process:
        os._exit(0)
    os.waitpid(process, 0)
    return process


def left_by(process: int, folder, host: str = platform.node()):
    path = folder / f".other.json.{host.replace('.', '-')}-{process}.part"
    path.write_text("half")
    return path


@pytest.mark.skipif(os.name != "posix", reason="asks for a process by a signal")
def test_what_killed_processes_left_goes_with_the_next_write(tmp_path):
    dead, alive = left_by(ended_process(), tmp_path), left_by(os.getpid(), tmp_path)
    elsewhere = left_by(ended_process(), tmp_path, "another-machine")
    write_json(tmp_path / "new.json", [1])
    assert not dead.exists()
    assert alive.exists() and elsewhere.exists()  # somebody may be writing them


def test_an_error_of_writing_names_the_file(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"file/new\.json: could not be written"):
        write_json(tmp_path / "file" / "new.json", {})

    def full(path):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"new\.json: could not be written \(No space left on device\)"):
        write(tmp_path / "new.json", full)


def test_a_folder_is_tried_without_a_trace(tmp_path):
    check_writable(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        check_writable(tmp_path / "file" / "new")


@pytest.mark.parametrize("content", [b"", b"[1", bytes(range(256)), b"[" * 100_000, b"3", b"{}"])
def test_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"rows\.json: (not readable as JSON|expected a list)"):
        read_json(path, list)


def test_sound_json_is_read(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, "ä"]})
    assert read_json(tmp_path / "a.json", dict) == {"a": [1, "ä"]}
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, "ä"]}
