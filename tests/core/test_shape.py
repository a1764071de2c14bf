"""What tasks ask of their workers, as text and back."""

import re
from typing import Any

import pytest

from asyncproc.core.feasible import Node, lacking
from asyncproc.core.shape import asked_by, bytes_text, parse_bytes, pool_name, shape_of, shape_text


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({}, ""),
        ({"num_cpus": 0, "memory": 0}, ""),
        ({"num_gpus": 0.5, "memory": "2GiB"}, "gpu0.5-mem2GiB"),
        ({"memory": 2 * 1024**3, "numGpus": 0.5}, "gpu0.5-mem2GiB"),
        ({"num_cpus": 2.0, "license": 1, "TPU-v4-8-head": 0.25}, "cpu2,TPU-v4-8-head=0.25,license=1"),
        ({"memory": "1000000"}, "mem1MiB"),
        ({"a": 1}, ",a=1"),
        ({"num_cpus": 12345}, "cpu12345"),
    ],
)
def test_the_same_resources_have_one_text_that_says_them(asked: Any, text: str) -> None:
    assert shape_text(asked) == text
    assert shape_text(asked_by(text)) == text
    assert pool_name("films", text) == (f"films~{text}" if text else "films")


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"num_gpus": 1.5}, "num_gpus is 1.5: above 1 it must be a whole number"),
        ({"num_cpus": -1}, "num_cpus is -1: it must be a number from 0"),
        ({"num_cpus": True}, "num_cpus is True: it must be a number"),
        ({"num_cpus": "1"}, "num_cpus is '1': it must be a number"),
        ({"num_cpus": float("nan")}, "it must be a number"),
        ({"num_cpus": 0.00001}, "it must be a multiple of 0.0001"),
        ({"memory": "2 potatoes"}, "must be bytes such as 2GiB"),
        ({"memory": -5}, "memory is -5: it must be from 0 to"),
        ({"GPU": 1}, "'GPU' is no resource: known are num_cpus, num_gpus and memory"),
        ({"a=b": 1}, "is no resource"),
        ({f"r{n}": 1 for n in range(9)}, "9 custom resources: at most 8"),
    ],
)
def test_resources_that_cannot_be_are_named(asked: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        shape_text(asked)


@pytest.mark.parametrize(
    "text", ["gpu", "gpux", "mem2", "x", "gpu1,", "gpu1,a", "gpu1 mem2GiB", "gpu1-", "-gpu1", "cpu1gpu1"]
)
def test_a_text_that_no_shape_has_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no shape of resources|could not convert"):
        shape_of(text)


def test_bytes_are_read_and_written() -> None:
    assert [parse_bytes(text) for text in ("2GiB", "1.5 GiB", "512MB", "7", "1kib")] == [
        2 * 1024**3, 3 * 1024**3 // 2, 512_000_000, 7, 1024,
    ]  # fmt: skip
    assert [bytes_text(size) for size in (1024**3, 3 * 1024**2, 1000)] == ["1GiB", "3MiB", "1000"]


def test_what_keeps_a_worker_from_being_placed_is_said() -> None:
    plain = Node({"CPU": 4.0}, {})
    gpu = Node({"CPU": 1.0, "GPU": 2.0}, {"zone": "a"})
    assert lacking({"GPU": 1.0}, {}, [plain]) == "no node offers 1 GPU"
    assert lacking({"GPU": 4.0, "CPU": 1.0}, {}, [plain, gpu]) == "no node offers 4 GPU"
    assert lacking({"GPU": 1.0, "CPU": 4.0}, {}, [plain, gpu]) == "no one node offers 1 GPU and 4 CPU"
    assert lacking({"GPU": 1.0}, {}, [plain, gpu]) == "the nodes that offer 1 GPU are taken"
    assert lacking({}, {"zone": "b"}, [plain, gpu]) == "no node has the labels zone=b"
    assert lacking({"memory": 2.0 * 1024**3}, {"zone": "a"}, [gpu]) == "no node offers 2GiB of memory"
    assert lacking({}, {}, [plain]) == ""
