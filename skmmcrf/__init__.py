"""Max-margin training of deep structured models for image segmentation, as scikit-learn estimators.

After M. Larsson, J. Alvén, F. Kahl, "End-to-End Max-Margin Learning of Deep Structured Models for Semantic
Segmentation".
"""

from skmmcrf._version import __version__
from skmmcrf.cnn import CNNSegmenter
from skmmcrf.crf import MaxMarginCRF
from skmmcrf.loss import MaxMarginLoss
from skmmcrf.persistence import load
from skmmcrf.segmenter import DeepStructuredSegmenter

__all__ = ["CNNSegmenter", "DeepStructuredSegmenter", "MaxMarginCRF", "MaxMarginLoss", "__version__", "load"]
