"""Comparing fitted estimators."""

import numpy as np


def everything(model):
    """All that training decides, in bytes; the seconds apart."""
    rows = [[(name, value) for name, value in row.items() if name != "seconds"] for row in model.history_]
    network = [tensor.numpy().tobytes() for tensor in model.network_.state_dict().values()]
    names = ("coef_", "objective_", "dual_gap_", "slack_", "sigma_", "n_iter_", "class_weight_")
    numbers = [getattr(model, name, None) for name in names]
    # an array of None would be bytes of its address
    return rows, network, [None if number is None else np.asarray(number).tobytes() for number in numbers]
