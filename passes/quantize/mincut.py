"""Minimum cut: the cheapest way to say yes or no to each of many questions whose answers depend on one another.

    problem = MinCut()
    a, b = problem.node(), problem.node()
    problem.if_yes(a, 5); problem.if_no(b, 3)     # a alone costs 5 when it is yes
    problem.if_split(a, b, 2)                     # a yes while b is no costs 2
    yes = problem.solve()                         # exact; among equals the one with the most yes

Costs are whole numbers, so that the answer is the same on every machine. Algorithm: Dinic, 1970 (blocking flows on
level graphs), whose phases are as many as there are lengths of paths: few where answers depend on near neighbours.
"""

from collections import deque

NEVER = 1 << 60
"""A cost that no solution pays."""


class MinCut:
    """Questions, and what their answers cost."""

    def __init__(self) -> None:
        self._arcs: list[list[int]] = [[], []]  # by node, the numbers of its arcs; 0 is yes itself, 1 is no
        self._to: list[int] = []
        self._room: list[int] = []  # arc i ^ 1 is the way back of arc i

    def node(self) -> int:
        """A new question."""
        self._arcs.append([])
        return len(self._arcs) - 1

    def if_yes(self, node: int, cost: int) -> None:
        """What yes costs."""
        self.if_split(node, 1, cost)

    def if_no(self, node: int, cost: int) -> None:
        """What no costs."""
        self.if_split(0, node, cost)

    def if_split(self, yes: int, no: int, cost: int) -> None:
        """What it costs that the one is yes while the other is no."""
        if cost > 0 and yes != no:
            for start, end, room in ((yes, no, cost), (no, yes, 0)):
                self._arcs[start].append(len(self._to))
                self._to.append(end)
                self._room.append(room)

    def solve(self) -> list[bool]:
        """The answers, by node. The first two are yes and no themselves."""
        while True:
            level = self._levels()
            if level[1] < 0:
                return [not reaches for reaches in self._reach_no()]
            self._block(level)

    def _levels(self) -> list[int]:
        level = [-1] * len(self._arcs)
        level[0] = 0
        queue = deque([0])
        while queue:
            here = queue.popleft()
            for arc in self._arcs[here]:
                there = self._to[arc]
                if self._room[arc] > 0 and level[there] < 0:
                    level[there] = level[here] + 1
                    queue.append(there)
        return level

    def _block(self, level: list[int]) -> None:
        """Send flow along shortest paths until each has a full arc."""
        following = [0] * len(self._arcs)
        path: list[int] = []
        here = 0
        while True:
            if here == 1:
                sent = min(self._room[arc] for arc in path)
                for arc in path:
                    self._room[arc] -= sent
                    self._room[arc ^ 1] += sent
                full = next(i for i, arc in enumerate(path) if self._room[arc] == 0)
                here = self._to[path[full] ^ 1]
                del path[full:]
            onward = self._onward(here, level, following)
            if onward is not None:
                path.append(onward)
                here = self._to[onward]
            elif path:
                here = self._to[path.pop() ^ 1]
                following[here] += 1
            else:
                return

    def _onward(self, here: int, level: list[int], following: list[int]) -> int | None:
        arcs = self._arcs[here]
        while following[here] < len(arcs):
            arc = arcs[following[here]]
            if self._room[arc] > 0 and level[self._to[arc]] == level[here] + 1:
                return arc
            following[here] += 1
        return None

    def _reach_no(self) -> list[bool]:
        """Which nodes could still send flow to no."""
        reaches = [False] * len(self._arcs)
        reaches[1] = True
        stack = [1]
        while stack:
            here = stack.pop()
            for arc in self._arcs[here]:
                there = self._to[arc]
                if self._room[arc ^ 1] > 0 and not reaches[there]:
                    reaches[there] = True
                    stack.append(there)
        return reaches
