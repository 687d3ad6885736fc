"""Agreement of labelings with the truth: measures of each image, their means, tables, and scorers for scikit-learn.

All measures leave unlabelled pixels out: truth and prediction count as background there. The measures of boundaries
treat unlabelled pixels like the outside of the image, so the foreground ends there.

With ``classes`` each class takes its turn as foreground. A measure is an array of shape (n, K) then, NaN where a class
is in neither truth nor prediction. The means take the mean over the classes of each image, then over the images.
Pooled measures count the pixels of all images together, as benchmarks of several classes do.
"""

from skmmcrf.metrics.evaluation import evaluate
from skmmcrf.metrics.means import (
    mean_boundary_f,
    mean_dice,
    mean_hausdorff,
    mean_jaccard,
    mean_pooled_dice,
    mean_pooled_jaccard,
)
from skmmcrf.metrics.per_image import boundary_f_measures, dice_indices, hausdorff_distances, jaccard_indices
from skmmcrf.metrics.pooled import (
    confusion_matrices,
    dice_of_confusion,
    jaccard_of_confusion,
    pooled_dice_indices,
    pooled_jaccard_indices,
)
from skmmcrf.metrics.scorers import make_segmentation_scorer

# in the order of the reference
__all__ = [
    "jaccard_indices",
    "dice_indices",
    "boundary_f_measures",
    "hausdorff_distances",
    "mean_jaccard",
    "mean_dice",
    "mean_boundary_f",
    "mean_hausdorff",
    "confusion_matrices",
    "pooled_jaccard_indices",
    "pooled_dice_indices",
    "mean_pooled_jaccard",
    "mean_pooled_dice",
    "jaccard_of_confusion",
    "dice_of_confusion",
    "evaluate",
    "make_segmentation_scorer",
]
