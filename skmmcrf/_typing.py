"""Names of the types that many signatures share."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import nn

# arrays by their kind, of any precision
BoolArray: TypeAlias = NDArray[np.bool_]
IntArray: TypeAlias = NDArray[np.integer]
FloatArray: TypeAlias = NDArray[np.floating]
# labelings: of bool, True in the foreground, or of uint8, the numbers of several classes
LabelArray: TypeAlias = NDArray[Any]

# what users give: one array, or a sequence of arrays whose sizes may differ
ImagesLike: TypeAlias = np.ndarray | Sequence[Any]
LabelsLike: TypeAlias = np.ndarray | Sequence[Any]
LabelledImagesLike: TypeAlias = tuple[ImagesLike, LabelsLike] | Sequence[Any]

# the same of torch, for those who train by themselves
TensorsLike: TypeAlias = "torch.Tensor | Sequence[torch.Tensor]"

# a name, a module, or a function of the number of channels that gives one
NetworkLike: TypeAlias = "str | nn.Module | Callable[..., nn.Module]"

# what scikit-learn's check_random_state takes
RandomStateLike: TypeAlias = int | np.random.RandomState | None
