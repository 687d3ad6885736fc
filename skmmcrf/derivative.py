"""The derivative of gamma, the optimum of (8), with respect to the log-odds of the network."""

import numpy as np

from skmmcrf._typing import FloatArray
from skmmcrf.max_margin import Labelings


def envelope_gradient(w: FloatArray, labelings: Labelings, multipliers: FloatArray) -> FloatArray:
    """Gradient of gamma in the log-odds of one image.

    gamma is the optimal value of a program whose constraints depend on the log-odds l, so by the envelope theorem only
    that explicit dependence counts:

        dgamma/dl_i = w1 * sum_k lambda_k (y_k,i - y_n,i)

    over the stored labelings y_k of image n. Neither the probability nor its inverse enters, and no linear system is
    solved.

    Parameters
    ----------
    w : ndarray of shape (n_weights,)
    labelings : Labelings
        What is stored for the image.
    multipliers : ndarray of shape (len(labelings),)
        lambda, at the optimum.

    Returns
    -------
    ndarray of float64 and shape (H, W)
        At most |w1| C/N in size.

    Examples
    --------
    >>> import numpy as np
    >>> from skmmcrf.max_margin import Labelings
    >>> stored = Labelings(np.array([[True, False]]))
    >>> stored.add(np.array([[False, False]]), np.array([1.0, 0.0, 0.0]), 1.0)
    True
    >>> envelope_gradient(np.array([2.0, 0.0, 0.0]), stored, np.array([0.25]))
    array([[-0.5,  0. ]])
    """
    gradient = np.zeros(labelings.truth.shape)
    active = np.flatnonzero(multipliers)
    for multiplier, labels in zip(multipliers[active], labelings.unpack(active)):
        gradient += multiplier * (labels.astype(np.int8) - labelings.truth)
    return w[0] * gradient
