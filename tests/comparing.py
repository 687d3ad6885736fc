"""Comparing fitted estimators."""

import numpy as np


def everything(model):
    """All that training decides, in bytes; the seconds apart."""
    rows = [[(name, value) for name, value in row.items() if name != "seconds"] for row in model.history_]
    network = [tensor.numpy().tobytes() for tensor in model.network_.state_dict().values()]
    names = ("coef_", "objective_", "dual_gap_", "sigma_", "n_iter_", "class_weight_")
    return rows, network, [np.asarray(getattr(model, name, None)).tobytes() for name in names]
