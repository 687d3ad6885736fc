"""Texts of parameters that several public classes and functions share."""

import re
from textwrap import indent
from typing import Any, TypeVar

_T = TypeVar("_T")

_TEXTS = """\
X : array of shape (n, H, W) or (n, H, W, channels), or sequence
    Images, as in fit.

X_to_fit => X : array of shape (n, H, W) or (n, H, W, channels), or sequence
    Images of bool, uint8, uint16 or float. The images of a sequence may differ in size. Each is an array (H, W[,
    channels]), a tensor ([channels, ]H, W), a PIL image, or the path of an image file. Files are read when they are
    needed. Sequences other than lists and tuples, such as a dataset of torch, are read in the same way.

y_to_fit => y : array of shape (n, H, W), sequence, or None
    Labels: arrays or tensors (H, W), PIL images, or paths of mask files. None if the entries of X are pairs of image
    and labels: tuples, lists, or dicts with keys such as "image" and "mask". If such a dataset changes its pairs at
    random, a network alone can be trained on it. A field needs images that stay as they are.

sample_weight : array of shape (n,), optional
    The weight of each image.

labels_given => ndarray of uint8 and shape (n, H, W), or list of ndarray of shape (H, W)
    Labels of `classes_`. If these are not within 0 and 255, the dtype is int32. A list if X is a list.

confidence => ndarray of float32 and shape (n, H, W), or list of ndarray of shape (H, W)
    Positive where `predict` gives foreground. Exact within 0.001, up to rounding. A list if X is a list.

raised_by_confidence => ValueError
    If the learned weight of the log-odds is not positive. If the labels are more than two.

optimality_gap => ndarray of float and shape (n,)
    By how much the energy of each labeling may exceed the least energy. 0 where the labeling is proved to have the
    least energy, as is so for two labels. For K labels it takes up to 10 K minimum cuts an image.

fitted_classes => classes_ : ndarray of int and shape (K,)
    The labels in ascending order: 0 and `pos_label`, or those of several classes.

fitted_class_weight => class_weight_ : ndarray of shape (K,)
    The weight of a pixel of each class.

fitted_inference_gap => inference_gap_ : float
    An upper bound of what labelings add to `objective_` that violate their margin and were not found. The minimum is
    between ``objective_ - dual_gap_`` and ``objective_ + inference_gap_``. It is 0 for two labels, where minimum cuts
    miss no labeling, and NaN if it is not known. None if no field is learned.

raised_by_fit => ValueError, TypeError
    If a parameter is out of its range. If images and labels do not fit, or are not finite. If the network does not give
    one log-odds map, or a map of scores for each of several classes.
FloatingPointError
    If the network does not stay finite.

validation_data : tuple (X, y) or dataset of pairs, optional
    Images and labels whose Jaccard index is recorded after each epoch.

Z : array of float and shape (n, H, W, 1 + channels), or sequence of arrays (H, W, 1 + channels)
    Log-odds in channel 0, and the image scaled to [0, 1] in the others, as `CNNSegmenter.transform` gives them. For K
    labels, more than two, the scores of the K classes are in the first K channels.

C : float, default=1.0
    Weight of the slacks against the norm of w in the max-margin objective, equation (8) of the paper. It lies between
    1e-12 and 1e8. A large C fits the training images more closely.

pairwise : {"contrast", "smoothness"}, default="contrast"
    What it costs to give two neighbours different labels. "smoothness" is one weight for all pairs. "contrast" adds a
    second weight, times a factor that falls where the image has an edge. This is equation (4) of the paper.

compatibility : {"potts", "metric"}, default="potts"
    Whether all pairs of different classes share the weights of pairwise terms ("potts"), or each pair of classes has
    weights of its own ("metric"). They stay a metric: none exceeds the sum of two by way of a third class. With two
    classes both are the same.

connectivity : int, or sequence of offsets, default=8
    The neighbours of a pixel: 4, 8, or the steps to them, such as ``((0, 1), (1, 0), (0, 4), (4, 0))``.

sigma : float or "auto", default="auto"
    The difference of two pixels that counts as an edge of the image, in units of pixels scaled to [0, 1]. "auto" takes
    the root mean square difference of neighbours in the training images.

tol : float, default=1e-3
    Learning of the field stops when the upper and lower bound of the objective are this close, relative to the
    objective.

max_iter : int, default=100
    The largest number of passes over the images in which the field is learned.

n_jobs : int, optional
    The number of threads that find minimum cuts side by side, as in joblib. `joblib.parallel_config` can replace them
    by processes or a cluster.

pos_label : int, default=1
    The label of foreground in y and in predictions, for two labels. It is 255 for masks of 0 and 255. For more than two
    labels in y, which are any integers, it has to be 1.

classes : sequence of int or None, default=None
    More than two labels of y, in ascending order. None takes those that y holds. Name them if some may be missing in y,
    for example in the part of the images that a search trains on. In a pipeline of `CNNSegmenter` and `MaxMarginCRF`,
    give them to both.

ignore_label : int, None or "auto", default="auto"
    The label of unlabelled pixels, which do not count. "auto" is 255 unless that is `pos_label`. None means that all
    pixels are labelled.

class_weight : dict, "balanced" or None, default=None
    The weight of a pixel by its true label, such as {0: 1.0, 1: 5.0}. "balanced" gives all classes the same total
    weight.

schedule : {"one_cycle", "linear", "cosine", "constant"}, default="linear"
    How the learning rate changes: up and down again ("one_cycle"), from the start down to zero ("linear", "cosine"), or
    not at all ("constant").

validation_fraction : float or None, default=None
    Share of the training images that `fit` holds out, if it gets no `validation_data`. Nothing is learned from these
    images. Their Jaccard index is recorded after each epoch.

checkpoint : str or path, optional
    A folder for the state of training, which is written at the end of every epoch. A fit that was killed goes on from
    this state if it is started again with the same data and parameters. The result is the same as without the
    interruption. On the CPU it is the same bit for bit, on the same type of machine, with the same versions and number
    of torch's threads. `random_state` must be an int. Each fit has its own subfolder, named by its data and parameters,
    so a search may use a checkpoint too. The same fit running elsewhere is waited for. With `verbose` a fit prints
    whether it goes on or begins anew. States hold no pickles. A state that is damaged or does not fit raises a warning,
    and the state before it is taken.

random_state : int, RandomState or None, default=None
    Seeds the network's first weights, the choice of validation images, the order of images and their random changes.
    The same int gives the same model on the CPU, on the same type of machine, with the same versions and number of
    torch's threads.

schedule_of_cnn => schedule : {"one_cycle", "linear", "cosine", "constant"}, default="one_cycle"
    How the learning rate changes: up and down again ("one_cycle"), from the start down to zero ("linear", "cosine"), or
    not at all ("constant").

fitted_coef => coef_ : ndarray of shape (n_weights,)
    w: the weight of the unary term, of the smoothness term, and with ``pairwise="contrast"`` of the contrast term.
    With ``compatibility="metric"`` each pairwise term has a weight for each pair of the K classes, in the order (0, 1),
    (0, 2), ..., (K - 2, K - 1). `pair_weights_` has them as matrices.

n_iter_no_change : int or "auto", default="auto"
    The number of epochs without a better Jaccard index after which `early_stopping` ends training. "auto" is a fifth of
    all epochs, but at least 5. With ``schedule="one_cycle"`` fewer may end training too early, because the index
    wavers until the learning rate falls.

callbacks : list of skorch callbacks or None, default=None
    Called in training, after those of the estimator. Each is an instance, or a pair of a name and an instance. See
    `skorch.callbacks`.

measured => y_true, y_pred : array of shape (n, H, W), or sequence
    Labels. See `jaccard_indices`.
pos_label : int, default=1
    The label of foreground.
ignore_label : int, None or "auto", default="auto"
    The label of unlabelled pixels in the truth. See `jaccard_indices`.

measured_classes => classes : sequence of int, optional
    The labels of several classes, which are measured one by one. See `jaccard_indices`.

pooled_classes => classes : sequence of int, optional
    The labels of the K classes in ascending order, such as ``model.classes_``. By default these are two: the background
    0 and `pos_label`.

class_names : sequence of K str, optional
    The names of more than two classes, in the order of `classes_`. By default they are such as
    "class 2".

pixel_weight => sample_weight : array of shape (n,), optional
    The weight of each image's pixels, not negative.

both_empty : {"omit", "perfect"}, default="omit"
    The value of an image whose truth and prediction are both empty. See `jaccard_indices`.

tolerance : float, optional
    How far boundaries may be apart for `boundary_f_measures`, in pixels. The default is 0.75 % of the image's diagonal,
    but at least one pixel.

figure : matplotlib Figure or SubFigure, optional
    Where to draw. By default a new figure is made.

X_shown => X : array of shape (n, H, W) or (n, H, W, channels), or list of arrays (H, W[, channels])
    Images of bool, uint8, uint16 or float.

y_shown => y : array of shape (n, H, W) or list of arrays (H, W)
    The truth: 0, `pos_label`, or 255 for unlabelled pixels, which are shaded and not counted. With `classes` it is
    these labels.

backbone : str
    One of `backbone_names`, or ``"timm/"`` with the name of a model of timm.

n_channels => n_channels : int, default=3
    Channels of the images. One channel is repeated three times. Other numbers than 1 and 3 get a learned mixture.

backbone_weights => weights : None, "imagenet" or path, default=None
    Weights of the backbone: random, those for ImageNet (torchvision or timm downloads them), or a file with its state
    dict. "imagenet" means timm's own for a model of timm.

n_maps : int, default=1
    Maps that the network gives: 1 for log-odds of two labels, K for scores of K classes, whose softmax gives the
    probabilities.

size_divisor : int
    Heights and widths must be multiples of it. Estimators pad the images accordingly.

channels : {"L", "RGB"}, optional
    Convert all images to grey ("L") or colour ("RGB"). By default they stay as stored.

foreground : "auto", int, str, (red, green, blue) or None, default="auto"
    The pixels of a mask that are foreground: all of one value, all above a bound such as ">127", or all of one colour.
    All others are background. None takes the values of masks as the labels of several classes, which stay as they are.
    "auto" takes the value that is not 0, if all masks have the same one. It is as None if the masks hold three labels
    or more that are numbered from 0 on, such as 0 to 10, apart from 255 for unlabelled pixels. Give None for images
    that may lack some of the classes: if the masks hold 0 and 2 alone, "auto" makes 1 of 2, with a warning.

mask_ignore_label => ignore_label : int, (red, green, blue) or None, default=None
    The value of unlabelled pixels in the masks.
"""


def _read(texts: str) -> dict[str, str]:
    """The texts by name. The name is what stands before an arrow, or else the parameter's."""
    entries = re.split(r"\n\n(?=\w)", texts.strip())
    named = (re.fullmatch(r"(?:(\w+) => )?((\w+).*)", entry, flags=re.DOTALL) for entry in entries)
    return {match[1] or match[3]: match[2] for match in named if match}


_PARAMETERS = _read(_TEXTS)


def documented(described: _T) -> _T:
    """Replace lines such as ``%(X)s`` in a docstring by the text of that name.

    Parameters
    ----------
    described : class or function

    Returns
    -------
    class or function
        The same.
    """
    object_: Any = described
    if object_.__doc__:  # none under python -OO
        object_.__doc__ = re.sub(
            r"^( *)%\((\w+)\)s$",
            lambda found: indent(_PARAMETERS[found[2]], found[1]),
            object_.__doc__,
            flags=re.MULTILINE,
        )
    return described
