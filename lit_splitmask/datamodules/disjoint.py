"""Sets that grow together."""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Node = TypeVar("Node", bound=Hashable)


class DisjointSets(Generic[Node]):
    """Nodes, each in a set of its own until sets are united."""

    def __init__(self) -> None:
        self._parents: dict[Node, Node] = {}

    def find(self, node: Node) -> Node:
        """The node that stands for the set of a node."""
        parents = self._parents
        while parents.setdefault(node, node) != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    def unite(self, one: Node, other: Node) -> None:
        """Makes one set of two."""
        self._parents[self.find(one)] = self.find(other)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._parents)
