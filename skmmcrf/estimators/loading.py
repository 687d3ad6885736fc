"""Loading estimators from files."""

from os import PathLike

from torch import nn

from skmmcrf.estimators.cnn import CNNSegmenter
from skmmcrf.estimators.crf import MaxMarginCRF
from skmmcrf.estimators.files import OwnNetwork, restore
from skmmcrf.estimators.segmenter import DeepStructuredSegmenter
from skmmcrf.training.state_files import read_file

_CLASSES = {each.__name__: each for each in (CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF)}


def load(
    path: str | PathLike[str], *, network: OwnNetwork | None = None
) -> CNNSegmenter | DeepStructuredSegmenter | MaxMarginCRF:
    """Read an estimator from a file that its method `save` wrote.

    The file may come from a stranger: it holds no code, nothing is unpickled, all that it says is checked, nothing is
    downloaded, and memory is bounded by a few times the file's length and some hundred MB. Predictions are those of the
    saved estimator; on the CPU bit for bit, with the same number of threads.

    Parameters
    ----------
    path : str or path
    network : torch.nn.Module or callable, optional
        For an estimator whose parameter `network` was a module or a function, which no file can hold: that function, or
        a module of that architecture. It becomes the parameter `network`.

    Returns
    -------
    CNNSegmenter, DeepStructuredSegmenter or MaxMarginCRF
        Fitted. Parameters that a file can't hold have their default, and `n_jobs` is at most the number of processors.
        The parameter `cnn` is a `CNNSegmenter` with the parameters of the fitted one.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, of another kind or of another version, or `network` does not fit it.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import skmmcrf
    >>> from skmmcrf.datasets import make_phantoms
    >>> X, y = make_phantoms(4, shape=(32, 32), random_state=0)
    >>> cnn = skmmcrf.CNNSegmenter(n_epochs=1, random_state=0).fit(X, y)
    >>> with TemporaryDirectory() as folder:
    ...     cnn.save(f"{folder}/cnn.safetensors")
    ...     same = skmmcrf.load(f"{folder}/cnn.safetensors")
    >>> bool((same.decision_function(X) == cnn.decision_function(X)).all())
    True
    """
    if not (network is None or isinstance(network, nn.Module) or callable(network)):
        raise TypeError(f"network must be a torch.nn.Module or a function, got {type(network).__name__}")
    if not isinstance(path, (str, PathLike)):
        raise TypeError(f"path must be a str or a path, got {type(path).__name__}")
    try:
        estimator = restore(read_file(path, "estimator"), _CLASSES, network)
    except ValueError as error:
        raise ValueError(f"{path} can't be loaded: {error}") from error
    if network is not None and getattr(getattr(estimator, "cnn_", estimator), "network", None) is not network:
        raise ValueError(f"{path} can't be loaded with a network: its parameter network is a name, or it has none")
    return estimator
