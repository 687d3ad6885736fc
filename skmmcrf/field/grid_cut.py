"""The minimum cut of a grid (5), compiled, without lists of edges, and parallel in threads.

The algorithm is that of Y. Boykov and V. Kolmogorov, "An Experimental Comparison of Min-Cut/Max-Flow Algorithms for
Energy Minimization in Vision", PAMI 2004. A tree of pixels grows from the source and one from the sink. Where they
touch, flow is pushed along the path from source to sink. That saturates edges, and the orphans that lost their parent
look for another one. Time stamps and distances to the root help them to find a near one.

The compiled code knows no dimensions. A pixel is its number in C order, a direction is a step of such numbers, and
directions 2k and 2k + 1 are opposite. A step that leaves the image leads to the number of some other pixel. Both have a
residual capacity of 0 for that step, so no border is ever checked.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from skmmcrf._typing import BoolArray, FloatArray, IntArray
from skmmcrf.field.grid import Runs

try:
    from numba import config, njit
except ImportError:
    njit = None  # type: ignore[assignment]  # `available` tells

_SOURCE, _FREE, _SINK = 1, 0, -1  # trees
_TERMINAL, _ORPHAN = 2**16 - 2, 2**16 - 1  # parents that are no direction
_LAST_TIME = 2**31 - 1
# numba checks whether a signed index is negative, which costs a fifth of the time, so all that leads to one is
# unsigned; a step back is the large number that sums up to the same
_ONE = np.uintp(1)


def available() -> bool:
    """Say whether numba is installed, which `grid_cut` needs."""
    return njit is not None


def prepare() -> float:
    """Compile all functions for float64, or load them if they were compiled before, and give the seconds it took."""
    began = time.perf_counter()
    if available():
        runs, factors = Runs(np.zeros(1, int), 1, 1), np.zeros((1, 1), np.float32)
        cut = GridCut((1, 2), [(0, 1)], np.float64)
        cut.add_edges((0, 1), slice(0, 1), runs, np.zeros(2), factors)
        cut.fold(*np.zeros((2, 1, 2), bool))
        cut.separate(np.zeros((1, 2), int))
        labels = np.zeros((1, 2), np.uint8)
        cut.add_moves((0, 1), slice(0, 1), runs, np.zeros((1, 1, 2)), factors, labels, 0)
        cut.labels()
        padded = np.zeros(len(cut.search.tree), np.uint8)
        make_best_move(cut.search, cut.search.residual.copy(), padded, padded > 0, np.empty(0, np.uintp), 0)
        sum_cut(labels.ravel(), labels.ravel(), runs, factors)
        sum_pairs(labels.ravel(), labels.ravel(), runs, factors, np.zeros((1, 1), int))
    return time.perf_counter() - began


class GridCut:
    """The search for the y that minimises sum_i unary_i y_i + sum_(i,j) cost_ij [y_i != y_j] on a grid.

    With 8 neighbours it takes 55 bytes a pixel for float32, and 91 for float64.

    Parameters
    ----------
    shape : tuple of int
        Of the image, (H, W) or any other.
    offsets : sequence of tuple of int
        Steps to the neighbours, as in `Grid.offsets`.
    dtype : dtype
        float32 or float64.

    Attributes
    ----------
    terminal : ndarray of shape (H, W)
        The unary costs, to be set: the cost of label 1 less the cost of label 0, finite.
    flow : float
        The maximum flow. The sum of the negative unary costs and the flow is the least cost, up to rounding.

    Raises
    ------
    ImportError
        If numba is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.field import Grid
    >>> cut, (runs,) = GridCut((1, 3), [(0, 1)], np.float64), Grid(((0, 1),)).runs((1, 3))
    >>> cut.terminal[...] = [[-3.0, 1.0, -1.0]]
    >>> cut.add_edges((0, 1), slice(0, 1), runs, np.array([0.6]), np.empty((0, 2), np.float32))
    >>> cut.labels()
    array([[ True,  True,  True]])
    """

    def __init__(self, shape: tuple[int, ...], offsets: Sequence[tuple[int, ...]], dtype: DTypeLike) -> None:
        if not available():
            raise ImportError("GridCut needs numba, which is not installed: use ListedCut")
        # longer steps than the image would make the margin too long
        self.offsets = [step for step in offsets if all(abs(o) < n for o, n in zip(step, shape))]
        strides = np.cumprod((1, *shape[:0:-1]))[::-1]
        steps = np.array([sign * np.dot(step, strides) for step in self.offsets for sign in (1, -1)], dtype=np.intp)
        margin, n_pixels = int(steps.max(initial=1)), int(np.prod(shape))
        self.search = _make_search(steps, n_pixels, margin, dtype)
        self.inner = slice(margin, margin + n_pixels)
        self.terminal = self.search.terminal[self.inner].reshape(shape)
        self.residual = self.search.residual[self.inner].reshape(*shape, len(steps))
        self.flow = 0.0

    def add_edges(
        self, offset: tuple[int, ...], rows: slice, runs: Runs, weights: FloatArray, factors: NDArray[np.float32]
    ) -> None:
        """Set what it costs to cut the edges of one offset between some rows of the image.

        Parameters
        ----------
        offset : tuple of int
        rows : slice
        runs : Runs
            The edges within these rows.
        weights : ndarray of float64 and shape (1 + n_rows,)
            A cost that all edges have, and the weights of the factors.
        factors : ndarray of float32 and shape (n_rows, n_edges)
            They must give no negative cost.
        """
        if offset in self.offsets:
            residual = self.residual[rows].reshape(-1, 2 * len(self.offsets))
            _set_residual(residual, 2 * self.offsets.index(offset), runs, weights, factors)

    def add_moves(
        self,
        offset: tuple[int, ...],
        rows: slice,
        runs: Runs,
        costs: FloatArray,
        factors: NDArray[np.float32],
        labels: NDArray[np.uint8],
        label: int,
    ) -> None:
        """Set what edges cost in a move that gives pixels one label more, or leaves them their labels (H, W).

        Costs of a pair of labels must not exceed those by way of a third one. What one pixel's move costs, and the
        other one's alone, then exceeds what none costs. Half of that is the cost of different decisions, and the rest
        goes to the unary costs, so that costs stay symmetric.

        Parameters
        ----------
        offset, rows, runs, factors
            See `add_edges`.
        costs : ndarray of float64 and shape (K, K, 1 + n_rows)
            The weights of `add_edges` for each pair of labels.
        labels : ndarray of uint8 and shape (H, W)
        label : int
            The label of the move.
        """
        if offset in self.offsets:
            residual, terminal = self.residual[rows].reshape(-1, 2 * len(self.offsets)), self.terminal[rows].reshape(-1)
            direction, before = 2 * self.offsets.index(offset), labels[rows].ravel()
            _set_moves(residual, terminal, direction, runs, costs, factors, before, label)

    def at_pixels(self) -> FloatArray:
        """Sum what the edges of each pixel cost, (H, W)."""
        return self.residual.sum(axis=-1, dtype=float)

    def fold(self, known: BoolArray, labels: BoolArray) -> None:
        """Let known pixels pull their neighbours to their own labels (H, W), and cut them off, after edges are set."""
        numbers = np.flatnonzero(known)
        _fold(self.search, numbers + self.inner.start, labels.ravel()[numbers])

    def separate(self, ranks: IntArray) -> None:
        """Cut pixels of different rank (H, W) off each other, as if of two neighbours the higher has more label 1.

        Each is pulled by what it costs to cut their edge: the higher one to label 0, the lower one to label 1.
        """
        _separate(self.search, ranks.ravel(), self.inner.start)

    def labels(self) -> BoolArray:
        """Find a labeling of least cost, and of several the one with the fewest labels 1, as `minimum_cut` does.

        Costs are then those that the flow leaves. They are those of the same problem, less a constant, so that unary
        costs may be changed, pixels be separated, and labels be found again.
        """
        self.search.tree[:] = _FREE
        self.search.stamp[:] = 0
        self.flow = _find_maximum_flow(self.search)
        return (self.search.tree[self.inner] == _SINK).reshape(self.terminal.shape)


def sum_cut(
    labels: NDArray[np.uint8], other: NDArray[np.uint8], runs: Runs, factors: NDArray[np.float32]
) -> FloatArray:
    """Sum 1 and each factor over the edges that labels (n_pixels,) cut, less those that others cut, (1 + n_rows,)."""
    sums = np.zeros(1 + len(factors))
    _add_cut(labels, other, runs, factors, sums)
    return sums


def sum_pairs(
    labels: NDArray[np.uint8],
    other: NDArray[np.uint8],
    runs: Runs,
    factors: NDArray[np.float32],
    pairs: IntArray,
) -> FloatArray:
    """Sum 1 and each factor over the edges of each pair of labels, less those of other labels.

    Parameters
    ----------
    labels, other : ndarray of uint8 and shape (n_pixels,)
    runs : Runs
    factors : ndarray of float32 and shape (n_rows, n_edges)
    pairs : ndarray of int and shape (K, K)
        The number of each pair of labels.

    Returns
    -------
    ndarray of float64 and shape (1 + n_rows, n_pairs)
    """
    sums = np.zeros((1 + len(factors), pairs.max() + 1))
    _add_pairs(labels, other, runs, factors, pairs, sums)
    return sums


class _Search(NamedTuple):
    """The state of the search for paths: the step of each direction, and arrays over the pixels.

    A margin as long as the longest step lies before and after the pixels. Number 0 is in it, and means no pixel.
    """

    steps: NDArray[np.uintp]
    #: What may still flow to the neighbour in each direction, (n_pixels, n_directions).
    residual: FloatArray
    #: What may still flow from the source if positive, and to the sink if negative.
    terminal: FloatArray
    tree: NDArray[np.int8]
    #: The direction of the parent.
    parent: NDArray[np.uint16]
    #: From the terminal, as it was at the time of the stamp.
    distance: NDArray[np.int32]
    stamp: NDArray[np.int32]
    #: The pixel that follows in the queue of active ones, the pixel itself if it is the last, 0 if it is not active.
    following: NDArray[np.unsignedinteger]
    orphans: NDArray[np.unsignedinteger]
    #: The first and the last active pixel, and the number of orphans.
    ends: NDArray[np.uintp]


def _make_search(steps: NDArray[np.intp], n_pixels: int, margin: int, dtype: DTypeLike) -> _Search:
    size = n_pixels + 2 * margin
    number: type[np.unsignedinteger] = np.uint32 if size < 2**32 else np.uint64
    return _Search(
        steps.astype(np.uintp),
        residual=np.zeros((size, len(steps)), dtype),
        terminal=np.zeros(size, dtype),
        tree=np.zeros(size, np.int8),
        parent=np.zeros(size, np.uint16),
        distance=np.zeros(size, np.int32),
        stamp=np.zeros(size, np.int32),
        following=np.zeros(size, number),
        orphans=np.empty(n_pixels, number),
        ends=np.zeros(3, np.uintp),
    )


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function by numba, which infers the types of its arguments."""
    if not available():
        return function
    settings: Any = config
    before = settings.CACHE_DIR
    try:
        # beside the code it would stay when the package is uninstalled, and stand in the way of the next one
        settings.CACHE_DIR = before or str(Path.home() / ".cache" / "skmmcrf")
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder for the cache can be written to
        return njit(nogil=True)(function)
    finally:
        settings.CACHE_DIR = before


@_compiled
def _add_cut(labels, other, runs, factors, sums):  # type: ignore[no-untyped-def]  # numba infers the types
    step, n_rows, k = np.uintp(runs.step), np.uintp(len(factors)), np.uintp(0)
    for start in runs.starts:
        for p in range(np.uintp(start), np.uintp(start + runs.length)):
            is_cut, was_cut = labels[p] != labels[p + step], other[p] != other[p + step]
            if is_cut != was_cut:
                sign = 1.0 if is_cut else -1.0
                sums[0] += sign
                for n in range(n_rows):
                    sums[_ONE + n] += sign * factors[n, k]
            k += _ONE


@_compiled
def _add_pairs(labels, other, runs, factors, pairs, sums):  # type: ignore[no-untyped-def]  # numba infers the types
    step, n_rows, k = np.uintp(runs.step), np.uintp(len(factors)), np.uintp(0)
    for start in runs.starts:
        for p in range(np.uintp(start), np.uintp(start + runs.length)):
            pair = np.uintp(pairs[labels[p], labels[p + step]])
            before = np.uintp(pairs[other[p], other[p + step]])
            if pair != before:
                sums[0, pair] += 1.0
                sums[0, before] -= 1.0
                for n in range(n_rows):
                    sums[_ONE + n, pair] += factors[n, k]
                    sums[_ONE + n, before] -= factors[n, k]
            k += _ONE


@_compiled
def _set_residual(residual, direction, runs, weights, factors):  # type: ignore[no-untyped-def]  # numba infers the types
    step, n_rows, k = np.uintp(runs.step), np.uintp(len(factors)), np.uintp(0)
    forth = np.uintp(direction)
    back = forth ^ _ONE
    for start in runs.starts:
        for p in range(np.uintp(start), np.uintp(start + runs.length)):
            cost = weights[0]
            for n in range(n_rows):
                cost += weights[_ONE + n] * factors[n, k]
            residual[p, forth] = residual[p + step, back] = cost
            k += _ONE


# numba infers the types
@_compiled
def _set_moves(residual, terminal, direction, runs, costs, factors, labels, label):  # type: ignore[no-untyped-def]
    step, n_rows, k = np.uintp(runs.step), np.uintp(len(factors)), np.uintp(0)
    forth = np.uintp(direction)
    back, to = forth ^ _ONE, np.uintp(label)
    for start in runs.starts:
        for p in range(np.uintp(start), np.uintp(start + runs.length)):
            q = p + step
            of_none, of_first, of_second = costs[labels[p], labels[q]], costs[to, labels[q]], costs[labels[p], to]
            none, first, second = of_none[0], of_first[0], of_second[0]
            for n in range(n_rows):
                factor = factors[n, k]
                none += of_none[_ONE + n] * factor
                first += of_first[_ONE + n] * factor
                second += of_second[_ONE + n] * factor
            half = max((first + second - none) / 2, 0.0)  # rounding must not make it negative
            residual[p, forth] = residual[q, back] = half
            terminal[p] += first - half - none
            terminal[q] += second - half - none
            k += _ONE


@_compiled
def _fold(search, pixels, labels):  # type: ignore[no-untyped-def]  # numba infers the types
    """Let known pixels pull their neighbours to their own labels, and cut them off."""
    steps, residual, terminal = search.steps, search.residual, search.terminal
    for n in range(len(pixels)):
        p, label = np.uintp(pixels[n]), labels[n]
        terminal[p] = 0
        for direction in range(np.uintp(len(steps))):
            q = p + steps[direction]
            terminal[q] += -residual[p, direction] if label else residual[p, direction]
            residual[p, direction] = residual[q, direction ^ _ONE] = 0


@_compiled
def _separate(search, ranks, margin):  # type: ignore[no-untyped-def]  # numba infers the types
    """Cut pixels of different rank off each other. An edge pulls the higher one to label 0, the lower one to 1."""
    steps, residual, terminal = search.steps, search.residual, search.terminal
    margin, n_directions, two = np.uintp(margin), np.uintp(len(steps)), np.uintp(2)
    for n in range(np.uintp(len(ranks))):
        p = n + margin
        for forth in range(np.uintp(0), n_directions, two):
            q, back = p + steps[forth], forth ^ _ONE
            if residual[p, forth] == 0 and residual[q, back] == 0:
                continue  # which may lead out of the image
            difference = ranks[n] - ranks[n + steps[forth]]
            if difference != 0:
                # what it costs to give label 1 to the higher one alone
                pull = residual[q, back] if difference > 0 else -residual[p, forth]
                terminal[p] += pull
                terminal[q] -= pull
                residual[p, forth] = residual[q, back] = 0


# numba infers the types
@_compiled
def make_best_move(search, costs, labels, may_move, pixels, label):  # type: ignore[no-untyped-def]
    """Make the best move of some pixels to a label, in `labels`, and return by how much edges cost more.

    `labels` and `may_move` have margins, as the arrays of the search have, and `costs` are as its residual capacities.
    `pixels` are the numbers of those that may move, whose terminal capacities are the changes of unary costs. All other
    capacities are 0, and afterwards those of the pixels too, so that the search serves for the next move.
    """
    _set_edges_of_move(search, costs, labels, may_move, pixels, label)
    _push_to_neighbours(search, pixels)
    _plant(search, pixels)
    _grow(search)
    more = 0.0
    for p in pixels:
        if search.tree[p] == _SINK:
            more += _change_of_edges(search, costs, labels, p, label)
    for p in pixels:
        if search.tree[p] == _SINK:
            labels[p] = label
        search.residual[p] = search.terminal[p] = search.tree[p] = search.stamp[p] = 0
    return more


# numba infers the types
@_compiled
def _set_edges_of_move(search, costs, labels, may_move, pixels, label):  # type: ignore[no-untyped-def]
    """Set what edges cost in a move of some pixels. Neighbours that may not move pull them."""
    steps, residual, terminal = search.steps, search.residual, search.terminal
    for p in pixels:
        for direction in range(np.uintp(len(steps))):
            q, cost = p + steps[direction], costs[p, direction]
            differ = labels[p] != labels[q]
            if may_move[q]:
                if differ:  # half for each that stays, and half if one moves alone
                    cost /= 2
                    terminal[p] -= cost
                residual[p, direction] = cost
            elif labels[q] == label:
                terminal[p] -= cost
            elif not differ:
                terminal[p] += cost


@_compiled
def _change_of_edges(search, costs, labels, p, label):  # type: ignore[no-untyped-def]  # numba infers the types
    """Give by how much the edges of a pixel that moves cost more, and half of it where the other one moves too."""
    more = 0.0
    for direction in range(np.uintp(len(search.steps))):
        q, cost = p + search.steps[direction], costs[p, direction]
        differ = labels[p] != labels[q]
        if search.tree[q] == _SINK:
            more -= cost / 2 if differ else 0.0
        elif labels[q] == label:
            more -= cost
        elif not differ:
            more += cost
    return more


@_compiled
def _find_maximum_flow(search):  # type: ignore[no-untyped-def]  # numba infers the types
    """Push the maximum flow and return its size. The tree of the sink then holds the pixels that reach it."""
    pixels = range(np.uintp(len(search.tree)))
    flow = _push_to_neighbours(search, pixels)
    _plant(search, pixels)
    return flow + _grow(search)


@_compiled
def _plant(search, pixels):  # type: ignore[no-untyped-def]  # numba infers the types
    """Let trees begin at pixels."""
    for p in pixels:
        if search.terminal[p] != 0:
            search.tree[p] = _SOURCE if search.terminal[p] > 0 else _SINK
            search.parent[p] = _TERMINAL
            search.distance[p] = 1
            _activate(search, p)


@_compiled
def _grow(search):  # type: ignore[no-untyped-def]  # numba infers the types
    """Let the trees grow until they no longer touch, and return the flow that is pushed from tree to tree."""
    steps, tree, parent, stamp, distance = search.steps, search.tree, search.parent, search.stamp, search.distance
    following, ends, n_directions = search.following, search.ends, np.uintp(len(search.steps))
    flow, time = 0.0, 0
    while ends[0] != 0:
        p = ends[0]
        ends[0] = following[p] if following[p] != p else 0
        following[p] = 0
        side = tree[p]
        direction = np.uintp(0)
        while side != _FREE and direction < n_directions:
            q = p + steps[direction]
            back = direction ^ _ONE
            if tree[q] != side and _room(search, side, q, back) > 0:
                if tree[q] == -side:
                    if time == _LAST_TIME:
                        stamp[:] = 0
                        time = 0
                    time += 1
                    flow += _augment(search, p, direction) if side == _SOURCE else _augment(search, q, back)
                    _adopt(search, time)
                    side = tree[p]  # it may have become free
                    continue  # more may flow along this edge
                tree[q] = side
                _activate(search, q)
                parent[q] = back
                stamp[q] = stamp[p]
                distance[q] = distance[p] + 1
            direction += _ONE
    return flow


@_compiled
def _push_to_neighbours(search, pixels):  # type: ignore[no-untyped-def]  # numba infers the types
    """Push what flows from the source over pixels and one edge to the sink, for which no trees are needed."""
    steps, residual, terminal = search.steps, search.residual, search.terminal
    n_directions = np.uintp(len(steps))
    flow = 0.0
    for p in pixels:
        for direction in range(n_directions):
            if terminal[p] <= 0:
                break
            if residual[p, direction] > 0:
                q = p + steps[direction]
                if terminal[q] < 0:
                    pushed = min(terminal[p], residual[p, direction], -terminal[q])
                    residual[p, direction] -= pushed
                    residual[q, direction ^ _ONE] += pushed
                    terminal[p] -= pushed
                    terminal[q] += pushed
                    flow += pushed
    return flow


@_compiled
def _room(search, side, p, direction):  # type: ignore[no-untyped-def]  # numba infers the types
    """Give what may flow between a pixel of a tree and its parent in a direction, away from source or towards sink."""
    if side == _SOURCE:
        return search.residual[p + search.steps[direction], direction ^ _ONE]
    return search.residual[p, direction]


@_compiled
def _activate(search, p):  # type: ignore[no-untyped-def]  # numba infers the types
    following, ends = search.following, search.ends
    if following[p] == 0:
        if ends[0] == 0:
            ends[0] = p
        else:
            following[ends[1]] = p
        following[p] = ends[1] = p


@_compiled
def _augment(search, p, direction):  # type: ignore[no-untyped-def]  # numba infers the types
    """Push what can flow along the path that leads from the source over p and its neighbour to the sink."""
    q = p + search.steps[direction]
    flow = min(search.residual[p, direction], _bottleneck(search, _SOURCE, p), _bottleneck(search, _SINK, q))
    search.residual[p, direction] -= flow
    search.residual[q, direction ^ _ONE] += flow
    _push(search, _SOURCE, p, flow)
    _push(search, _SINK, q, flow)
    return flow


@_compiled
def _bottleneck(search, side, p):  # type: ignore[no-untyped-def]  # numba infers the types
    """Give what can flow between a pixel and the root of its tree."""
    least = search.residual.dtype.type(np.inf)
    while search.parent[p] != _TERMINAL:
        least = min(least, _room(search, side, p, search.parent[p]))
        p += search.steps[search.parent[p]]
    return min(least, abs(search.terminal[p]))


@_compiled
def _push(search, side, p, flow):  # type: ignore[no-untyped-def]  # numba infers the types
    """Push a flow between a pixel and the root of its tree. Pixels at saturated edges become orphans."""
    residual, terminal = search.residual, search.terminal
    while search.parent[p] != _TERMINAL:
        direction = search.parent[p]
        q = p + search.steps[direction]
        change = flow if side == _SOURCE else -flow
        residual[p, direction] += change
        residual[q, direction ^ _ONE] -= change
        if _room(search, side, p, direction) == 0:
            _orphan(search, p)
        p = q
    terminal[p] -= side * flow
    if terminal[p] == 0:
        _orphan(search, p)


@_compiled
def _orphan(search, p):  # type: ignore[no-untyped-def]  # numba infers the types
    search.parent[p] = _ORPHAN
    search.orphans[search.ends[2]] = p
    search.ends[2] += _ONE


@_compiled
def _adopt(search, time):  # type: ignore[no-untyped-def]  # numba infers the types
    """Find a parent for each orphan, the nearest to the root, or set it free, so that its children are orphans too."""
    steps, tree, parent, n_directions = search.steps, search.tree, search.parent, np.uintp(len(search.steps))
    n = np.uintp(0)
    while n < search.ends[2]:
        p = np.uintp(search.orphans[n])
        n += _ONE
        side = tree[p]
        adopter = np.uintp(_ORPHAN)
        nearest = np.int64(0)
        for direction in range(n_directions):
            q = p + steps[direction]
            if tree[q] == side and _room(search, side, p, direction) > 0:
                distance = _distance(search, q, time)
                if distance > 0 and (adopter == _ORPHAN or distance < nearest):
                    adopter = direction
                    nearest = distance
        if adopter != _ORPHAN:
            parent[p] = adopter
            search.stamp[p] = time
            search.distance[p] = nearest + 1
            continue
        for direction in range(n_directions):
            q = p + steps[direction]
            if tree[q] == side:
                if _room(search, side, p, direction) > 0:
                    _activate(search, q)
                if parent[q] == direction ^ _ONE:
                    _orphan(search, q)
        tree[p] = _FREE
    search.ends[2] = 0


@_compiled
def _distance(search, p, time):  # type: ignore[no-untyped-def]  # numba infers the types
    """Give the distance from the root, or 0 if the way ends at an orphan, and stamp pixels that have a root."""
    steps, parent, distance, stamp = search.steps, search.parent, search.distance, search.stamp
    walked = 0
    q = p
    while stamp[q] != time:
        if parent[q] == _ORPHAN:
            return 0
        if parent[q] == _TERMINAL:
            stamp[q] = time
            distance[q] = 1
            break
        walked += 1
        q += steps[parent[q]]
    total = walked + np.int64(distance[q])
    left = total
    while stamp[p] != time:
        stamp[p] = time
        distance[p] = left
        left -= 1
        p += steps[parent[p]]
    return total
