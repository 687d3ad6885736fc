"""What all estimators of the package share."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from skmmcrf._typing import ImagesLike, LabelsLike
from skmmcrf.metrics import mean_jaccard
from skmmcrf.training import compute_log_odds, resolve_device
from skmmcrf.validation import as_given, check_images, check_labels, scale_image


class BaseSegmenter(BaseEstimator):
    """Base of estimators that give every pixel of an image a label."""

    def score(self, X: ImagesLike, y: LabelsLike) -> float:
        """Mean Jaccard index of the predictions.

        Parameters
        ----------
        X : array of shape (n, H, W[, channels]) or list of arrays
            Images.
        y : array of shape (n, H, W) or list of arrays
            Labels, 0 or 1.

        Returns
        -------
        float
            Between 0 and 1. Images whose truth and prediction are both empty are left out; NaN if all are.
        """
        labels = check_labels(y, check_images(X))
        return mean_jaccard(labels, self.predict(X))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags


class NetworkSegmenter(BaseSegmenter):
    """Base of segmenters with a fitted `network_` and the parameters `batch_size` and `device`."""

    def decision_function(self, X: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Compute the log-odds of foreground.

        Parameters
        ----------
        X : array of shape (n, H, W) or (n, H, W, channels), or list of arrays (H, W[, channels])

        Returns
        -------
        ndarray of float32 and shape (n, H, W), or list of ndarray of shape (H, W)
        """
        log_odds, _ = self._run_network(X)
        return as_given(log_odds, X)

    def predict_proba(self, X: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Compute the probabilities of background and foreground.

        Parameters
        ----------
        X : array of shape (n, H, W) or (n, H, W, channels), or list of arrays (H, W[, channels])

        Returns
        -------
        ndarray of float32 and shape (n, H, W, 2), or list of ndarray of shape (H, W, 2)
        """
        log_odds, _ = self._run_network(X)
        return as_given([expit(np.stack([-l, l], axis=-1)) for l in log_odds], X)

    def _run_network(self, X: ImagesLike) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """Log-odds (H, W) of all images, and the images (H, W, channels) scaled to [0, 1]."""
        check_is_fitted(self)
        images = check_images(X, n_channels=self.n_channels_in_)
        return self._log_odds(images), [scale_image(image) for image in images]

    def _log_odds(self, images: Sequence[np.ndarray]) -> list[NDArray[np.float32]]:
        device = resolve_device(self.device)
        return compute_log_odds(self.network_, images, batch_size=self.batch_size, device=device)
