import json
import os
from pathlib import Path

import psutil
import pytest

from asyncproc.local import note
from asyncproc.local.note import Note

URL = "http://127.0.0.1:8080"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / note.HOME).mkdir()
    return tmp_path


def test_a_note_names_the_process_that_wrote_it(home: Path) -> None:
    note.write(home, URL)

    assert note.read(home) == Note(os.getpid(), psutil.Process().create_time(), URL)


def test_an_erased_note_is_gone(home: Path) -> None:
    note.write(home, URL)

    note.erase(home)
    note.erase(home)

    assert note.read(home) is None


def test_where_nothing_ever_ran_there_is_no_note(tmp_path: Path) -> None:
    assert note.read(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"pid": 1}',
        # A process of that number lives, but it began at another time.
        json.dumps({"pid": os.getpid(), "since": 1.0, "url": URL}),
        json.dumps({"pid": 2**22 + 1, "since": 1.0, "url": URL}),
    ],
    ids=["nothing", "broken", "no object", "no url", "another process", "no process"],
)
def test_what_a_dead_process_left_behind_counts_for_nothing(home: Path, text: str) -> None:
    note.write(home, URL)
    (file,) = (home / note.HOME).iterdir()
    file.write_text(text)

    assert note.read(home) is None
