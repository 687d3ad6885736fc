"""Minimum cuts for all shifts of the unary costs at once, which denoise these by their total variation."""

import numpy as np

from skmmcrf._typing import BoolArray, FloatArray, IntArray
from skmmcrf.field.grid_cut import GridCut
from skmmcrf.field.minimum_cut import ListedCut


def critical_shifts(cut: GridCut | ListedCut, tol: float) -> tuple[BoolArray, FloatArray]:
    """Find for each pixel the u at which its label changes if u is added to the unary costs of all pixels.

    Labelings of least cost are nested: a pixel has label 1 for smaller shifts, and label 0 for larger ones.

    Parameters
    ----------
    cut : GridCut or ListedCut
        With its unary costs and edges. It is used up.
    tol : float
        By how much a shift may be wrong, beside rounding.

    Returns
    -------
    labels : ndarray of bool and shape (H, W)
        Those of least cost without any shift.
    shifts : ndarray of float64 and shape (H, W)
        u.

    Notes
    -----
    The u minimise ``sum_i (u_i + unary_i)^2 / 2 + sum_(i,j) cost_ij |u_i - u_j|``, whose level sets are the labelings
    of least cost: A. Chambolle, J. Darbon, "On Total Variation Minimization and Surface Evolution Using Parametric
    Maximum Flows", IJCV 2009. One cut divides all regions found so far, each at its mean of u. Afterwards the unary
    costs of a region sum up to the sum of u less its shift. All of its u lie on one side of it, so none is farther off
    than this sum.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.field import Grid
    >>> cut, (runs,) = ListedCut((1, 3), [(0, 1)], float), Grid(((0, 1),)).runs((1, 3))
    >>> cut.terminal[...] = [[-3.0, 1.0, -1.0]]
    >>> cut.add_edges((0, 1), slice(0, 1), runs, np.array([0.6]), np.empty((0, 2), np.float32))
    >>> labels, shifts = critical_shifts(cut, tol=1e-6)
    >>> labels, shifts.round(6)
    (array([[ True,  True,  True]]), array([[2.4, 0.2, 0.4]]))
    """
    labels = cut.labels()
    regions, is_open = _divide(np.zeros(labels.shape, int), labels)
    shifts, is_open = np.zeros(labels.shape), np.ones_like(is_open)  # no shift was their mean before
    while is_open.any():
        cut.separate(regions)
        sums = np.bincount(regions.ravel(), cut.terminal.ravel())
        steps = (-sums / np.bincount(regions.ravel()))[regions]
        shifts += steps
        cut.terminal += steps.astype(cut.terminal.dtype)
        cut.terminal[~(is_open & (np.abs(sums) > tol))[regions]] = 0  # no flow, so the region stays as it is
        regions, is_open = _divide(regions, cut.labels())
    return labels, shifts


def _divide(regions: IntArray, labels: BoolArray) -> tuple[IntArray, BoolArray]:
    """Number the parts of regions by label, in the order of regions and labels.

    Returns
    -------
    parts : ndarray of int and shape (H, W)
    is_divided : ndarray of bool and shape (n_parts,)
        Whether the region has two parts.
    """
    codes = 2 * regions + labels
    exists = np.bincount(codes.ravel(), minlength=2 * regions.max() + 2).reshape(-1, 2) > 0
    n_parts = exists.sum(axis=1)
    return (np.cumsum(exists) - 1)[codes], np.repeat(n_parts == 2, n_parts)
