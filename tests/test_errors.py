"""Errors cross processes: each of them comes out of a pickle as it went in, and says what to do in one line."""

import importlib
import pickle
import pkgutil
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

import asyncproc
from asyncproc.errors import AsyncprocError, Full


def _every_error() -> list[type[AsyncprocError]]:
    for module in pkgutil.walk_packages(asyncproc.__path__, "asyncproc."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: list[type[AsyncprocError]] = [AsyncprocError]
    for kind in found:
        found.extend(kind.__subclasses__())
    return sorted(set(found), key=lambda kind: kind.__name__)


def _sample(annotation: Any) -> Any:
    """A value of a field, such as it is when the error is raised."""
    samples: dict[str, Any] = {
        "str": "a text",
        "int": 7,
        "float": 0.5,
        "tuple[str, ...]": ("one", "other"),
        "dict[TaskId, str]": {b"\x01" * 16: "bad"},
        "list[Problem]": [],
        "tuple[asyncproc.errors.Full, ...]": (Full((b"\x01" * 16,), b"\x01" * 16, "mail", "", 3, 3),),
        "collections.abc.Mapping[int | None, tuple[bytes, str]]": {0: (b"\x01" * 16, "queued")},
    }
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return samples.get(str(annotation), samples.get(name, {b"\x01" * 16: "bad"}))


def _make(kind: type[AsyncprocError]) -> AsyncprocError:
    return kind(*(_sample(field.type) for field in fields(kind))) if is_dataclass(kind) else kind("a text")


@pytest.mark.parametrize("kind", _every_error())
def test_an_error_survives_pickling(kind: type[AsyncprocError]) -> None:
    error = _make(kind)

    again = pickle.loads(pickle.dumps(error))

    assert type(again) is kind
    assert vars(again) == vars(error)
    assert str(again) == str(error)


@pytest.mark.parametrize("kind", _every_error())
def test_an_error_can_be_kept_in_a_set_and_has_a_text(kind: type[AsyncprocError]) -> None:
    error = _make(kind)

    assert {error}
    assert str(error)
