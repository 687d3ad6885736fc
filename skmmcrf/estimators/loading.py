"""Loading estimators from files."""

from os import PathLike

from torch import nn

from skmmcrf._shown import shortened
from skmmcrf.estimators.cnn import CNNSegmenter
from skmmcrf.estimators.crf import MaxMarginCRF
from skmmcrf.estimators.files import OwnNetwork, restore
from skmmcrf.estimators.segmenter import DeepStructuredSegmenter
from skmmcrf.training.state_files import check_path, read_file

_CLASSES = {each.__name__: each for each in (CNNSegmenter, DeepStructuredSegmenter, MaxMarginCRF)}


def load(
    path: str | PathLike[str], *, network: OwnNetwork | None = None
) -> CNNSegmenter | DeepStructuredSegmenter | MaxMarginCRF:
    """Read an estimator from a file that its method `save` wrote.

    The file may come from an unknown source. It holds no code, nothing is unpickled, and its content is checked.
    Nothing is downloaded. Memory is bounded by a few times the file's length plus some hundred MB. Predictions are the
    same as those of the saved estimator. On the CPU they are the same bit for bit, on the same type of machine, with
    the same versions and number of torch's threads.

    Parameters
    ----------
    path : str or path
    network : torch.nn.Module or callable, optional
        The function, or a module of the same architecture, if the parameter `network` of the saved estimator was a
        function or a module. No file can hold these. It becomes the parameter `network`.

    Returns
    -------
    CNNSegmenter, DeepStructuredSegmenter or MaxMarginCRF
        The fitted estimator. Parameters that a file can't hold are None, and `n_jobs` is at most the number
        of processors. The parameter `cnn` is a `CNNSegmenter` with the parameters of the fitted one.

    Raises
    ------
    FileNotFoundError
        If the file is missing.
    ValueError
        If the file is damaged, of another kind or of another version. If its parts do not fit together, or ask for more
        than the parameters of an estimator may. If `network` does not fit it. If the path leads to a folder, a pipe or
        a device.

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
    check_path(path)
    try:
        estimator = restore(read_file(path, "estimator"), _CLASSES, network)
    except ValueError as error:
        raise ValueError(f"{path} can't be loaded: {shortened(error)}") from error
    if network is not None and getattr(getattr(estimator, "cnn_", estimator), "network", None) is not network:
        raise ValueError(f"{path} can't be loaded with a network: its parameter network is a name, or it has none")
    return estimator
