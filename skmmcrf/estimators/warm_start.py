"""Parameters that a warm start can't change, because what they decide is not learned again."""

from numbers import Real
from typing import Any

from skmmcrf._shown import shown
from skmmcrf.estimators.cnn import CNNSegmenter
from skmmcrf.estimators.files import as_plain
from skmmcrf.estimators.identity import as_text

# of pretraining, which a warm start leaves out
_OF_PRETRAINING = (
    *("weights", "loss", "classes", "n_epochs", "learning_rate", "schedule"),
    *("validation_fraction", "early_stopping", "n_iter_no_change"),
)
# of the field and of the folds that it was learned with
_OF_HELD_WEIGHTS = ("cv", "C", "pairwise", "compatibility", "connectivity", "sigma", "tol", "max_iter")


def held_parameters(model: Any) -> dict[str, Any]:
    """Give the parameters of a fit that a warm start after it may hold."""
    return {name: getattr(model, name) for name in ("ensemble", *_OF_HELD_WEIGHTS)}


def check_unchanged(model: Any, cnn: CNNSegmenter) -> None:
    """Raise a ValueError if a parameter was changed after the last fit, though it has no effect in a warm start.

    Parameters
    ----------
    model : DeepStructuredSegmenter
        Fitted, with the `held_parameters` of the last fit in its `_learned_with`, as far as they are known.
    cnn : CNNSegmenter
        Its network with the parameters that are given for the warm start.
    """
    holds_weights = model.cv is not None and model.training != "cnn"
    if holds_weights and model.objective_ is None:
        raise ValueError(
            "cv: warm_start goes on with the weights of the field, but the last fit learned none: set warm_start=False"
        )
    names = {"ensemble", *(_OF_HELD_WEIGHTS if holds_weights else ()), *(("cv",) if model.ensemble else ())}
    changes = {name: (before, getattr(model, name)) for name, before in model._learned_with.items() if name in names}
    of_cnn = (*_OF_PRETRAINING, "class_weight") if model.training == "cnn" else _OF_PRETRAINING
    if model.augmentation != "same" or model.training in ("cnn", "piecewise"):
        of_cnn = (*of_cnn, "augmentation")
    changes |= {f"cnn__{name}": (getattr(model.cnn_, name), getattr(cnn, name)) for name in of_cnn}
    for name, (before, given) in changes.items():
        if not _mean_the_same(before, given):
            raise ValueError(
                f"{name}: warm_start goes on with what the last fit learned, so a change from {shown(before)} to "
                f"{shown(given)} would have no effect: set it back, or set warm_start=False"
            )


def _mean_the_same(one: Any, other: Any) -> bool:
    if isinstance(one, Real) and isinstance(other, Real):
        return one == other
    return as_text(as_plain(one)) == as_text(as_plain(other))  # == says nothing of splitters
