"""Max-margin training of deep structured models for image segmentation, as scikit-learn estimators.

After M. Larsson, J. Alvén, F. Kahl, "End-to-End Max-Margin Learning of Deep Structured Models for Semantic
Segmentation".
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from skmmcrf._version import __version__

if TYPE_CHECKING:
    from skmmcrf.configuration import configure
    from skmmcrf.estimators.cnn import CNNSegmenter
    from skmmcrf.estimators.crf import MaxMarginCRF
    from skmmcrf.estimators.loading import load
    from skmmcrf.estimators.segmenter import DeepStructuredSegmenter
    from skmmcrf.training.loss import MaxMarginLoss

__all__ = [
    "CNNSegmenter",
    "DeepStructuredSegmenter",
    "MaxMarginCRF",
    "MaxMarginLoss",
    "__version__",
    "configure",
    "load",
]

_MODULES = {
    "CNNSegmenter": "estimators.cnn",
    "DeepStructuredSegmenter": "estimators.segmenter",
    "MaxMarginCRF": "estimators.crf",
    "MaxMarginLoss": "training.loss",
    "configure": "configuration",
    "load": "estimators.loading",
}


def __getattr__(name: str) -> Any:
    # processes that only cut need no torch, whose import takes seconds
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
