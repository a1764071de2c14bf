"""Why a worker cannot be placed: what it needs, against what the nodes of the cluster offer."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from asyncproc.core.shape import resources_text


class Node(NamedTuple):
    """What it offers in all, whoever has it now."""

    resources: Mapping[str, float]
    labels: Mapping[str, str]


def lacking(needs: Mapping[str, float], labels: Mapping[str, str], nodes: Sequence[Node]) -> str:
    """In the words of an operator; empty where nothing is known to be lacking.

    Labels that are asked for by Ray's operators, such as `!in(a,b)`, are not looked at.
    """
    plain = _plain(labels)
    fitting = [node for node in nodes if _has(node, plain)]
    if not fitting:
        return "no node has the labels " + ", ".join(f"{key}={value}" for key, value in plain.items())
    if any(_offers(node, needs) for node in fitting):
        return f"the nodes that offer {resources_text(needs)} are taken" if needs else ""
    nowhere = {name: needs[name] for name in needs if not any(_offers(node, {name: needs[name]}) for node in fitting)}
    # Where each of them is to be had, it is on different nodes.
    return f"no node offers {resources_text(nowhere)}" if nowhere else f"no one node offers {resources_text(needs)}"


def is_met_by(needs: Mapping[str, float], labels: Mapping[str, str], nodes: Sequence[Node]) -> bool:
    """Whether some node could hold such a worker, if nobody else were there."""
    plain = _plain(labels)
    return any(_offers(node, needs) and _has(node, plain) for node in nodes)


def _plain(labels: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in labels.items() if not value.startswith(("!", "in("))}


def _has(node: Node, labels: Mapping[str, str]) -> bool:
    return all(node.labels.get(key) == value for key, value in labels.items())


def _offers(node: Node, needs: Mapping[str, float]) -> bool:
    return all(node.resources.get(name, 0.0) >= number for name, number in needs.items())
