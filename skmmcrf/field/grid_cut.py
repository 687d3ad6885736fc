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
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skmmcrf._shown import shown
from skmmcrf._typing import BoolArray, FloatArray
from skmmcrf.field.grid import Grid

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
    """Compile `grid_cut` for float64, or load it if it was compiled before, and give the seconds it took."""
    began = time.perf_counter()
    if available():
        grid_cut(np.zeros((1, 2)), [(0, 1)], [np.zeros((1, 1))])
    return time.perf_counter() - began


def grid_cut(unary: FloatArray, offsets: Sequence[Sequence[int]], capacities: Sequence[FloatArray]) -> BoolArray:
    """Minimise sum_i unary_i y_i + sum_(i,j) capacity_ij [y_i != y_j] over the labelings y of a grid.

    Among labelings of the same cost it gives the one with the fewest labels 1, as `minimum_cut` does. It computes in
    float32 if all arrays are of float32 or smaller, and in float64 otherwise. With 8 neighbours it takes 53 or 89 bytes
    a pixel.

    Parameters
    ----------
    unary : ndarray of float and shape (H, W), or any other
        Cost of label 1 less the cost of label 0.
    offsets : sequence of tuple of int
        Steps to the neighbours, as in `Grid.offsets`.
    capacities : sequence of ndarray of float
        The cost of different labels at the edges of each offset, of the shape that `Grid.pairs` gives.

    Returns
    -------
    ndarray of bool, of the shape of `unary`
        A labeling of least cost.

    Raises
    ------
    ImportError
        If numba is not installed.
    ValueError
        If a capacity is negative. If anything is not finite. If offsets or capacities do not fit the shape.

    Examples
    --------
    >>> import numpy as np
    >>> grid_cut(np.array([[-3.0, 1.0, -1.0]]), [(0, 1)], [np.array([[0.6, 0.6]])])
    array([[ True,  True,  True]])
    """
    return cut_with_bound(unary, offsets, capacities)[0]


def cut_with_bound(
    unary: FloatArray, offsets: Sequence[Sequence[int]], capacities: Sequence[FloatArray]
) -> tuple[BoolArray, float]:
    """Give the labeling of `grid_cut`, and a lower bound on its cost from the flow, up to rounding."""
    if not available():
        raise ImportError("grid_cut needs numba, which is not installed: use minimum_cut")
    unary, capacities = np.asarray(unary), list(map(np.asarray, capacities))
    _check(unary, offsets, capacities)
    search, pixels = _prepare(unary, offsets, capacities)
    flow = _find_maximum_flow(search)
    labels = (search.tree[pixels] == _SINK).reshape(unary.shape)
    return labels, flow + float(unary.sum(where=unary < 0, dtype=float))


def _check(unary: FloatArray, offsets: Sequence[Sequence[int]], capacities: Sequence[FloatArray]) -> None:
    if not unary.size:
        raise ValueError(f"unary must have at least one pixel, got shape {unary.shape}")
    for step in offsets:
        if len(step) != unary.ndim or not all(isinstance(o, Integral) for o in step) or not any(step):
            raise ValueError(f"offsets must be steps of {unary.ndim} integers, not all of them 0, got {shown(step)}")
    wanted = [first.shape for first, _ in _grid(offsets).pairs(unary)]
    given = [capacity.shape for capacity in capacities]
    if given != wanted:
        raise ValueError(f"capacities must be one array an offset, of shapes {wanted}, got {given}")
    # they are NaN if any value is
    ranges = [(values.min(initial=0), values.max(initial=0)) for values in (unary, *capacities)]
    if not np.isfinite(ranges).all():
        raise ValueError("unary and capacities must be finite")
    least = min((low for low, _ in ranges[1:]), default=0)
    if least < 0:
        raise ValueError(f"capacities must not be negative, got {least:g}")


def _grid(offsets: Sequence[Sequence[int]]) -> Grid:
    return Grid(tuple(map(tuple, offsets)))


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


def _prepare(
    unary: FloatArray, offsets: Sequence[Sequence[int]], capacities: Sequence[FloatArray]
) -> tuple[_Search, slice]:
    """Give the search before its start, and where its arrays hold the pixels."""
    # longer steps than the image would make the margin too long
    offsets = [offset for offset, capacity in zip(offsets, capacities) if capacity.size]
    capacities = [capacity for capacity in capacities if capacity.size]
    is_single = np.result_type(np.float32, unary, *capacities) == np.float32
    dtype: type[np.floating] = np.float32 if is_single else np.float64
    strides = np.cumprod((1, *unary.shape[:0:-1]))[::-1]
    steps = np.array([sign * np.dot(offset, strides) for offset in offsets for sign in (1, -1)], dtype=np.intp)
    margin = int(steps.max(initial=1))
    size = unary.size + 2 * margin
    pixels = slice(margin, margin + unary.size)
    number: type[np.unsignedinteger] = np.uint32 if size < 2**32 else np.uint64

    terminal, residual = np.zeros(size, dtype), np.zeros((size, len(steps)), dtype)
    terminal[pixels].reshape(unary.shape)[...] = unary
    pairs = _grid(offsets).pairs(residual[pixels].reshape(*unary.shape, len(steps)))
    for n, ((first, second), capacity) in enumerate(zip(pairs, capacities)):
        first[..., 2 * n] = second[..., 2 * n + 1] = capacity
    search = _Search(
        steps.astype(np.uintp),
        residual,
        terminal,
        tree=np.zeros(size, np.int8),
        parent=np.zeros(size, np.uint16),
        distance=np.zeros(size, np.int32),
        stamp=np.zeros(size, np.int32),
        following=np.zeros(size, number),
        orphans=np.empty(unary.size, number),
        ends=np.zeros(3, np.uintp),
    )
    return search, pixels


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
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
def _find_maximum_flow(search):  # type: ignore[no-untyped-def]  # numba infers the types
    """Push the maximum flow and return its size. The tree of the sink then holds the pixels that reach it."""
    steps, tree, parent, stamp, distance = search.steps, search.tree, search.parent, search.stamp, search.distance
    following, ends, n_directions = search.following, search.ends, np.uintp(len(search.steps))
    flow = _push_to_neighbours(search)
    for p in range(np.uintp(len(tree))):
        if search.terminal[p] != 0:
            tree[p] = _SOURCE if search.terminal[p] > 0 else _SINK
            parent[p] = _TERMINAL
            distance[p] = 1
            _activate(search, p)
    time = 0
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
def _push_to_neighbours(search):  # type: ignore[no-untyped-def]  # numba infers the types
    """Push what flows from the source over one edge to the sink, for which no trees are needed."""
    steps, residual, terminal = search.steps, search.residual, search.terminal
    n_directions = np.uintp(len(steps))
    flow = 0.0
    for p in range(np.uintp(len(terminal))):
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
