"""The radix tree of resident prompts: which lane holds which tokens, and who shares most of a prompt's beginning.

Pure bookkeeping over token ids; knows no model. Token sequences are the bytes of 32-bit ids (`token_key`), because
comparing bytes is one memcmp and comparing lists of integers is not.

Source: radix-tree reuse of prompt prefixes as in SGLang's RadixAttention (arXiv 2312.07104), with lanes as owners.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

TOKEN_BYTES = 4


def token_key(tokens: Sequence[int]) -> bytes:
    """Return token ids as the bytes by which they are compared."""
    return np.asarray(tokens, dtype=np.int32).tobytes()


def shared_tokens(left: bytes, right: bytes) -> int:
    """Return how many leading tokens two keys share."""
    limit = min(len(left), len(right))
    if left[:limit] == right[:limit]:
        return limit // TOKEN_BYTES
    low, high = 0, limit // TOKEN_BYTES
    while high - low > 1:
        middle = (low + high) // 2
        at, end = low * TOKEN_BYTES, middle * TOKEN_BYTES
        if left[at:end] == right[at:end]:
            low = middle
        else:
            high = middle
    return low


@dataclass(slots=True, eq=False)
class _Node:
    """One edge of the tree with what hangs below it; `lanes` are all lanes whose tokens run through the whole edge."""

    edge: bytes
    parent: "_Node | None"
    lanes: set[int] = field(default_factory=set)
    children: dict[bytes, "_Node"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Match:
    """The longest resident beginning of a prompt.

    Attributes:
        length: tokens shared.
        lanes: every lane that holds them; empty only if `length` is 0.
    """

    length: int
    lanes: frozenset[int]


class PrefixTree:
    """Resident token sequences, one per lane."""

    def __init__(self) -> None:
        self._root = _Node(b"", None)
        self._ends: dict[int, _Node] = {}
        self._bytes = 0

    def insert(self, lane: int, key: bytes) -> None:
        """Record that `lane` holds the tokens of `key` from position 0, instead of whatever it held."""
        self.remove(lane)
        node, at = self._root, 0
        while at < len(key):
            child = node.children.get(key[at : at + TOKEN_BYTES])
            if child is None:
                child = _Node(key[at:], node)
                node.children[key[at : at + TOKEN_BYTES]] = child
                self._bytes += len(child.edge)
            else:
                shared = shared_tokens(child.edge, key[at:]) * TOKEN_BYTES
                if shared < len(child.edge):
                    child = self._split(child, shared)
            child.lanes.add(lane)
            node, at = child, at + len(child.edge)
        if node is not self._root:
            self._ends[lane] = node

    def remove(self, lane: int) -> None:
        """Record that `lane` holds nothing."""
        node = self._ends.pop(lane, None)
        while node is not None and node.parent is not None:
            node.lanes.discard(lane)
            parent = node.parent
            if not node.lanes:
                del parent.children[node.edge[:TOKEN_BYTES]]
                self._bytes -= len(node.edge)
            else:
                self._join_only_child(node)
            node = parent

    def match(self, key: bytes) -> Match:
        """Return the longest beginning of `key` that some lane holds."""
        node, at = self._root, 0
        while at < len(key):
            child = node.children.get(key[at : at + TOKEN_BYTES])
            if child is None:
                break
            shared = shared_tokens(child.edge, key[at:]) * TOKEN_BYTES
            node, at = child, at + shared
            if shared < len(child.edge):
                break
        return Match(at // TOKEN_BYTES, frozenset(node.lanes))

    def match_whole(self, key: bytes) -> Match:
        """Return the longest sequence that is a proper beginning of `key` and all that its lane holds."""
        node, at, best = self._root, 0, Match(0, frozenset())
        while at < len(key):
            child = node.children.get(key[at : at + TOKEN_BYTES])
            if child is None or not key.startswith(child.edge, at) or at + len(child.edge) >= len(key):
                return best
            node, at = child, at + len(child.edge)
            ending = frozenset(lane for lane in node.lanes if self._ends[lane] is node)
            if ending:
                best = Match(at // TOKEN_BYTES, ending)
        return best

    def own_tail(self, lane: int) -> int:
        """Return how many tokens only `lane` holds: what is lost with it."""
        node, tail = self._ends.get(lane), 0
        while node is not None and node.parent is not None and len(node.lanes) == 1:
            tail += len(node.edge)
            node = node.parent
        return tail // TOKEN_BYTES

    @property
    def unique_tokens(self) -> int:
        """Tokens held, shared ones counted once."""
        return self._bytes // TOKEN_BYTES

    def _split(self, child: _Node, at: int) -> _Node:
        """Cut `child`'s edge after `at` bytes; return the new upper part."""
        assert child.parent is not None
        upper = _Node(child.edge[:at], child.parent, set(child.lanes))
        child.parent.children[child.edge[:TOKEN_BYTES]] = upper
        child.edge, child.parent = child.edge[at:], upper
        upper.children[child.edge[:TOKEN_BYTES]] = child
        return upper

    def _join_only_child(self, node: _Node) -> None:
        """Undo a split that nobody needs any more, so that the tree stays as small as its content."""
        if len(node.children) != 1 or any(end is node for end in self._ends.values()):
            return
        (child,) = node.children.values()
        if child.lanes != node.lanes:
            return
        node.edge += child.edge
        node.children = child.children
        for grandchild in node.children.values():
            grandchild.parent = node
        for lane, end in self._ends.items():
            if end is child:
                self._ends[lane] = node
