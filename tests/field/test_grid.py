import gc
import weakref

import numpy as np
import pytest

from skmmcrf.field import Grid

LONG = ((0, 1), (1, 0), (0, 4), (4, 0))


def is_step(connectivity, step):
    """Whether a step leads to a neighbour, as the words say it."""
    changed = np.count_nonzero(step)
    near = np.abs(step).max() == 1
    if not isinstance(connectivity, int):
        return tuple(step) in connectivity or tuple(-step) in connectivity
    most_changed = {4: 1, 8: 2, 6: 1, 18: 2, 26: 3}[connectivity]
    return near and changed <= most_changed


@pytest.mark.parametrize(
    ("connectivity", "shape"),
    [
        *[(4, shape) for shape in [(3, 4), (5, 1), (1, 1)]],
        *[(8, shape) for shape in [(3, 4), (1, 5)]],
        *[(n, (3, 2, 4)) for n in (6, 18, 26)],
        (26, (1, 1, 3)),
        *[(LONG, shape) for shape in [(6, 7), (4, 4), (2, 6), (1, 1)]],
        (((-1, 2), (0, -3)), (3, 5)),
        (((0, 9), (9, -9)), (3, 5)),
        (((0, 1, 0), (2, 0, -1)), (3, 2, 3)),
    ],
    ids=str,
)
def test_edges_are_the_pairs_of_neighbours_each_once_over_their_distance(connectivity, shape):
    spacing = (0.5, 2.0, 3.0)[: len(shape)]
    edges = Grid.from_connectivity(connectivity, len(shape), spacing).edges(shape)
    expected = {}
    for a, one in enumerate(np.ndindex(shape)):
        for b, other in enumerate(np.ndindex(shape)):
            step = np.subtract(other, one)
            if a < b and is_step(connectivity, step):
                expected[a, b] = 1 / np.sqrt(((step * spacing) ** 2).sum())
    pairs = [tuple(sorted(pair)) for pair in edges.pixels.T.tolist()]
    assert edges.pixels.shape == (2, len(expected))
    assert dict(zip(pairs, edges.distance_weights)) == pytest.approx(expected)


@pytest.mark.parametrize(("connectivity", "ndim"), [(4, 2), (8, 2), (6, 3), (18, 3), (26, 3)])
def test_a_pixel_amid_others_has_as_many_neighbours_as_the_number_says(connectivity, ndim):
    edges = Grid.from_connectivity(connectivity, ndim).edges((3,) * ndim)
    assert np.count_nonzero(edges.pixels == 3**ndim // 2) == connectivity


def test_opposite_offsets_and_other_containers_mean_the_same_grid():
    grid = Grid.from_connectivity(((0, 1), (2, -1)))
    for same in ([[0, -1], [-2, 1]], np.array([[0, 1], [-2, 1]]), ((np.int64(0), 1), (2, -1))):
        assert Grid.from_connectivity(same) == grid
    assert Grid.from_connectivity(((0, 1), (1, 0))) == Grid.from_connectivity(np.int64(4))


@pytest.mark.parametrize("connectivity", [LONG, ((1, -2), (-2, 1))], ids=str)
def test_pairs_of_values_are_those_at_the_ends_of_the_edges(connectivity):
    grid, values = Grid.from_connectivity(connectivity), np.random.default_rng(0).normal(size=(5, 3))
    pairs = [np.stack([first.ravel(), second.ravel()]) for first, second in grid.pairs(values)]
    np.testing.assert_array_equal(np.hstack(pairs), values.ravel()[grid.edges((5, 3)).pixels])


@pytest.mark.parametrize(
    "connectivity",
    [0, 5, 6, -4, True, "4", b"44", "ab", None, 4.0, (), [], np.empty((0, 2)), (0, 1), ((0, 0),), ((0, 1, 0),),
     ((1,),), np.array(8), ((0.0, 1.0),), ("ab",), ((0, 1), (0, 1)), ((0, 1), (0, -1)), ((0, 1), 3), {(0, 1)}],
    ids=str,
)  # fmt: skip
def test_no_neighbourhood_is_an_error_that_names_connectivity(connectivity):
    with pytest.raises(ValueError, match="^connectivity must"):
        Grid.from_connectivity(connectivity)


@pytest.mark.parametrize("connectivity", [4, 8, ((0, 1),)], ids=str)
def test_what_fits_images_is_refused_for_volumes(connectivity):
    with pytest.raises(ValueError, match="^connectivity must"):
        Grid.from_connectivity(connectivity, ndim=3)


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, np.nan), (np.inf, 1.0), ("1", "1")])
def test_spacing_is_one_positive_number_a_dimension(spacing):
    with pytest.raises(ValueError, match="spacing must be 2 positive numbers"):
        Grid.from_connectivity(4, spacing=spacing)


@pytest.mark.parametrize("shape", [(3,), (3, 4, 5), (0, 3), (3, 2.5)])
def test_a_shape_without_pixels_or_of_other_dimensions_is_refused(shape):
    with pytest.raises(ValueError, match="shape must be 2 positive integers"):
        Grid.from_connectivity(4).edges(shape)


def test_edges_are_shared_by_images_of_a_shape_cannot_be_written_and_are_freed():
    grid, shapes = Grid.from_connectivity(8), [(2, n) for n in range(31, 41)]
    in_use = [grid.edges(shape) for shape in shapes]
    assert all(Grid.from_connectivity(8).edges(shape) is edges for shape, edges in zip(shapes, in_use))
    with pytest.raises(ValueError, match="read-only"):
        in_use[0].pixels[0] = 0
    alive = [weakref.ref(edges) for edges in in_use]
    del in_use
    gc.collect()
    assert sum(edges() is not None for edges in alive) <= 4


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([(0, n) for n in range(1, 130)], "at most 128 offsets, got 129"),
        ([(0, 1), (100_001, 0)], "steps of at most 100000 pixels"),
        ([(0, -(10**30))], "steps of at most 100000 pixels"),
    ],
)
def test_more_than_memory_can_hold_is_told(offsets, message):
    with pytest.raises(ValueError, match=f"connectivity must have {message}"):
        Grid.from_connectivity(offsets)
