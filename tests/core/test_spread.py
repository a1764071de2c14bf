"""Which worker moves to which node."""

import pytest

from asyncproc.core.spread import next_move


def settled(places: dict[str, str], cpus: dict[str, float]) -> tuple[dict[str, int], int]:
    """Workers by node once nobody is to move any more, and how many moves that took."""
    for moves in range(100):
        if (move := next_move(places, cpus)) is None:
            return {node: list(places.values()).count(node) for node in cpus}, moves
        places[move[0]] = move[1]
    raise AssertionError("workers move about for ever")


@pytest.mark.parametrize(
    ("cpus", "even"),
    [
        ({"a": 2.0, "b": 2.0}, {"a": 3, "b": 3}),
        ({"a": 2.0, "b": 2.0, "c": 2.0, "d": 2.0}, {"a": 2, "b": 2, "c": 1, "d": 1}),
        ({"a": 2.0, "b": 4.0}, {"a": 2, "b": 4}),
        ({"a": 0.0, "b": 2.0}, {"a": 0, "b": 6}),
        ({"a": 0.0, "b": 0.0}, {"a": 3, "b": 3}),
        ({"a": 1.0}, {"a": 6}),
    ],
)
def test_nodes_that_join_get_their_share_in_as_few_moves_as_can_be(
    cpus: dict[str, float], even: dict[str, int]
) -> None:
    places = {f"default-{number}": "a" for number in range(6)}

    found, moves = settled(places, cpus)

    assert sorted(found.values()) == sorted(even.values())
    assert moves == 6 - found["a"]


def test_a_worker_on_a_node_that_is_gone_is_left_alone() -> None:
    assert next_move({"default-1": "gone"}, {"a": 1.0, "b": 1.0}) is None
    assert next_move({}, {}) is None
