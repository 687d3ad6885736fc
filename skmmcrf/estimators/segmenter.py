"""The main estimator: a network and a conditional random field, trained in three ways."""

import copy
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from os import PathLike
from typing import Any, Literal

import numpy as np
from joblib import Memory
from numpy.typing import ArrayLike, NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skmmcrf._docs import documented
from skmmcrf._typing import (
    FloatArray,
    ImagesLike,
    LabelArray,
    LabelledImagesLike,
    LabelsLike,
    NetworkLike,
    RandomStateLike,
)
from skmmcrf.estimators.base import check_not_empty, scheme_of
from skmmcrf.estimators.cnn import CNNSegmenter
from skmmcrf.estimators.crf import learn_field
from skmmcrf.estimators.field_segmenter import BOUND_ROUNDS, FieldSegmenter
from skmmcrf.estimators.files import ESTIMATOR, FITTED_FIELD, FITTED_HISTORY, are_floats
from skmmcrf.estimators.folds import (
    Fold,
    FoldsLike,
    Part,
    check_kind_of_folds,
    log_odds_of_left_out,
    mean_of,
    name_of_fold,
    parts_of_folds,
    read_folds,
)
from skmmcrf.estimators.memory import fit_once, scale_once
from skmmcrf.estimators.network_segmenter import NetworkSegmenter, keep_state, try_augmentation
from skmmcrf.estimators.warm_start import check_unchanged, held_parameters
from skmmcrf.field.energy import least_labelings
from skmmcrf.field.grid import Connectivity
from skmmcrf.field.labels import likeliest_labels
from skmmcrf.images.checking import LabelledImages, as_given, check_images
from skmmcrf.images.labels import LabelScheme
from skmmcrf.learning import Example, Solution
from skmmcrf.metrics.means import jaccard_of_annotations, mean_of_defined
from skmmcrf.networks.state import network_arrays
from skmmcrf.training.augmentation import AUGMENTATIONS, Augmentation
from skmmcrf.training.callbacks import SCHEDULES
from skmmcrf.training.checkpoints import Checkpoints, from_state_that_fits
from skmmcrf.training.data import Changes, TrainingSet
from skmmcrf.training.interrupts import Interrupted, ending_fit
from skmmcrf.training.joint import N_WATCHED, HeldWeights, JaccardOfField, Moments, WeightsOfBatches, joint_net, reprice
from skmmcrf.training.loss import FIELD_CONSTRAINTS, MaxMarginLoss, warn_of_negative_weight
from skmmcrf.training.net import history_rows
from skmmcrf.training.progress import show_start
from skmmcrf.training.random_states import seeded

# the ways of training jointly
_ALGORITHMS: dict[str, Any] = {"joint": HeldWeights, "joint_by_batch": WeightsOfBatches}
# joint training learns weights to this many times tol, since the network changes before they are used again
_LOOSER = 10


@documented
class DeepStructuredSegmenter(FieldSegmenter, NetworkSegmenter):
    """Segmentation of images into background and foreground, or several classes, by a network and a random field.

    A network (`cnn`) gives every pixel's log-odds of foreground. A conditional random field on the pixel grid smooths
    them along the edges of the image. A minimum cut finds the best labeling exactly. `training` says how much of that
    is learned, and how.

    The classes are the labels in y. If they are more than two, the network gives a score for each. Labelings are then
    found by expansion moves, each a minimum cut, and `optimality_gap` bounds how far they may be from the best.

    Parameters
    ----------
    cnn : CNNSegmenter, or str, torch.nn.Module or callable, default="unet"
        The network with its settings, the reading of labels, and the training of the network alone ("pretraining").
        Anything else than a `CNNSegmenter` is passed to its parameter `network`, such as "unet" or "unet_resnet18".
        Setting a parameter such as ``cnn__learning_rate``, as searches do, turns `cnn` into a `CNNSegmenter`. Its
        `random_state` and `verbose` default to those of this estimator. A fitted `CNNSegmenter` inside
        `sklearn.frozen.FrozenEstimator` is not pretrained again.
    training : {"cnn", "piecewise", "joint", "joint_by_batch"}, default="joint"
        "cnn" trains the network alone. "piecewise" then learns the weights of the field on the finished network, by the
        max-margin objective (8). "joint" then trains network and field together on (8). These are the three rows of the
        paper's tables. "joint_by_batch" is joint training by the paper's Algorithm 2, which learns weights of the field
        for each batch. "joint" holds these weights for an epoch instead. "joint_by_batch" allows no random changes of
        the images, and no `crop` of `cnn`.
    %(C)s
    %(pairwise)s
    %(compatibility)s
    %(connectivity)s
    %(sigma)s
    n_epochs : int, default=10
        Passes over the images in joint training.
    learning_rate : float, default=1e-4
        The peak of the schedule for Adam in joint training. It is a tenth of that for the layers of a backbone with
        `weights`.
    %(schedule)s
    batch_size : int, default=5
        Images in a step of joint training.
    augmentation : "auto", "same", {"flip", "standard", "strong"}, callable or None, default="auto"
        Random changes of the images in joint training, beside `crop` of `cnn`. "auto" mirrors a random half of the
        images if `average_mirrored` of `cnn` is set, because predictions then use mirrored images too. It changes
        nothing otherwise, or for ``training="joint_by_batch"``. "same" takes the changes of `cnn`. Other values mean
        the same as in `CNNSegmenter`.
    cv : int, splitter of scikit-learn, list of (train, test) or None, default=None
        Folds of the training images. Each fold has a network of its own, which is trained without the images of the
        fold. The field is learned on their log-odds of the images that they have not seen, as in
        `sklearn.ensemble.StackingClassifier`. A network is too sure of images that it was trained on, and a field that
        is learned on these is too weak. Joint training then keeps the weights of the field. An int is a number of
        folds, drawn at random. Pairs of the numbers of images to train on and to leave out can keep the images of a
        patient together. With ``n_epochs="auto"`` of `cnn` each fold takes about as long as a fit without `cv`, because
        its network makes as many steps. ``training="cnn"`` without `ensemble` makes no use of the folds, because it
        learns no field.
    ensemble : bool, default=False
        Whether the networks of the folds also predict. `network_` then gives their mean log-odds, and no network is
        trained on all images, which saves the time of one fold. Joint training trains all of them together. Predictions
        take as many times longer as there are folds. It needs `cv`.
    %(tol)s
    %(max_iter)s
    %(validation_fraction)s
    early_stopping : bool, default=False
        Whether joint training stops when the Jaccard index of the validation images no longer rises. The network of the
        best epoch is then kept. For pretraining, set `early_stopping` of `cnn`.
    %(n_iter_no_change)s
    callbacks : list of skorch callbacks or None, default=None
        Called in joint training, after those of the estimator. Each is an instance, or a pair of a name and an
        instance. See `skorch.callbacks`.
    %(checkpoint)s
    memory : str or joblib.Memory, optional
        A cache for pretrained networks. A search over `training`, `C` or `learning_rate` then pretrains once a fold.
        `random_state` must be an int. The key of the cache is the images and labels, the parameters of `cnn` that
        decide the network, and its first weights. The folder holds pickles, which can run code when they are read, so
        nobody else may be able to write to it. `callbacks` of `cnn` are not called for a cached network. They are no
        part of the key, even if they change what is learned.
    %(n_jobs)s
    warm_start : bool, default=False
        Whether fit goes on from the last fit's network, weights of the field and state of Adam, instead of pretraining.
        Further joint epochs are then added to the earlier ones. With `cv` the weights stay as they are. Parameters that
        would then have no effect, such as ``cnn__loss``, must be as in the last fit.
    %(random_state)s
    verbose : int, default=0
        1 prints lines of progress, 2 shows progress bars too.

    Attributes
    ----------
    cnn_ : CNNSegmenter
        The fitted network with its parameters. After joint training it holds the jointly trained network.
    network_ : torch.nn.Module
        The trained network, on the CPU.
    %(fitted_coef)s
        1 and zeros for "cnn".
    objective_ : float
        gamma, the value of (8) for the network and all training images. With `cv` it is the value for the networks of
        the folds and the images that they have not seen, before joint training. A warm start with `cv` gives the value
        for `network_` and the images of that fit, before its joint epochs. None for "cnn". NaN if joint training was
        interrupted.
    dual_gap_ : float
        An upper bound of the distance of `objective_` from the minimum over w, but for `inference_gap_`. None for
        "cnn". Infinite if training was interrupted, and after a warm start with `cv`.
    %(fitted_inference_gap)s
    slack_ : ndarray of shape (n_images,)
        The slacks xi: by how many pixels each training image misses its margin. None for "cnn".
    sigma_ : float
        The sigma of the contrast term. None for "cnn", and without the contrast term.
    n_iter_ : int
        Passes of Algorithm 1 for the final weights. None for "cnn".
    %(fitted_classes)s
    n_channels_in_ : int
        Channels of the images.
    optimizer_state_ : dict or None
        Adam's moments by the number of the parameter, for a further fit. None without `warm_start`.
    history_ : list of dict
        One entry an epoch: stage ("cnn" or "joint"), epoch, loss (mean over batches), jaccard, seconds, and
        valid_jaccard if validation images are given. Joint epochs also have gamma, the objective after the epoch. They
        begin with epoch 0, the piecewise model. Their jaccard is measured on the first ten training images. With
        ``early_stopping=True``, kept is True for the epoch of each stage whose network is kept.

    References
    ----------
    M. Larsson, J. Alvén, F. Kahl, "End-to-End Max-Margin Learning of Deep Structured Models for Semantic Segmentation".

    Examples
    --------
    >>> from skmmcrf import CNNSegmenter, DeepStructuredSegmenter
    >>> from skmmcrf.datasets import make_phantoms
    >>> X, y = make_phantoms(4, shape=(32, 32), random_state=0)
    >>> model = DeepStructuredSegmenter(CNNSegmenter(n_epochs=2), n_epochs=1, random_state=0).fit(X, y)
    >>> model.predict(X).shape, model.coef_.shape
    ((4, 32, 32), (3,))
    """

    cnn_: CNNSegmenter
    history_: list[dict[str, Any]]
    optimizer_state_: Moments | None

    _parameter_constraints = {
        **NetworkSegmenter._parameter_constraints,
        **FIELD_CONSTRAINTS,
        "cnn": [CNNSegmenter, FrozenEstimator, str, nn.Module, callable],
        "training": [StrOptions({"cnn", "piecewise", *_ALGORITHMS})],
        "n_epochs": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "schedule": [StrOptions(set(SCHEDULES))],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "augmentation": [StrOptions({"auto", "same"}), *AUGMENTATIONS],
        "cv": [Integral, HasMethods(["split"]), "array-like", None],
        "ensemble": ["boolean"],
        "memory": [None, str, HasMethods(["cache"])],
        "warm_start": ["boolean"],
    }
    _fitted_attributes = {**FITTED_HISTORY, **FITTED_FIELD, "cnn_": ESTIMATOR, "optimizer_state_": [dict, None]}
    # parameters of the fit that learned network and weights, for a warm start
    _learned_with: Mapping[str, Any] = {}

    def __init__(
        self,
        cnn: "CNNSegmenter | FrozenEstimator | NetworkLike" = "unet",
        *,
        training: Literal["cnn", "piecewise", "joint", "joint_by_batch"] = "joint",
        C: float = 1.0,
        pairwise: Literal["contrast", "smoothness"] = "contrast",
        compatibility: Literal["potts", "metric"] = "potts",
        connectivity: Connectivity = 8,
        sigma: float | Literal["auto"] = "auto",
        n_epochs: int = 10,
        learning_rate: float = 1e-4,
        schedule: Literal["one_cycle", "linear", "cosine", "constant"] = "linear",
        batch_size: int = 5,
        augmentation: Literal["auto", "same", "flip", "standard", "strong"] | Augmentation | None = "auto",
        cv: FoldsLike = None,
        ensemble: bool = False,
        tol: float = 1e-3,
        max_iter: int = 100,
        validation_fraction: float | None = None,
        early_stopping: bool = False,
        n_iter_no_change: int | Literal["auto"] = "auto",
        callbacks: list[Any] | None = None,
        checkpoint: str | PathLike[str] | None = None,
        memory: str | Memory | None = None,
        n_jobs: int | None = None,
        warm_start: bool = False,
        random_state: RandomStateLike = None,
        verbose: int = 0,
    ) -> None:
        self.cnn = cnn
        self.training = training
        self.C = C
        self.pairwise = pairwise
        self.compatibility = compatibility
        self.connectivity = connectivity
        self.sigma = sigma
        self.n_epochs = n_epochs
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.cv = cv
        self.ensemble = ensemble
        self.tol = tol
        self.max_iter = max_iter
        self.validation_fraction = validation_fraction
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.callbacks = callbacks
        self.checkpoint = checkpoint
        self.memory = memory
        self.n_jobs = n_jobs
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def set_params(self, **params: Any) -> "DeepStructuredSegmenter":
        """Set parameters. A parameter of `cnn`, such as ``cnn__n_epochs``, turns `cnn` into a `CNNSegmenter`.

        Parameters
        ----------
        **params : dict
            Parameters by their name.

        Returns
        -------
        self
        """
        cnn = params.get("cnn", self.cnn)
        if any(name.startswith("cnn__") for name in params) and not isinstance(cnn, (CNNSegmenter, FrozenEstimator)):
            params["cnn"] = CNNSegmenter(cnn)
        return super().set_params(**params)

    @property
    def _settings(self) -> CNNSegmenter:
        return self.cnn_ if hasattr(self, "cnn_") else self._cnn()

    @property
    def network_(self) -> nn.Module:
        """The trained network, on the CPU."""
        check_is_fitted(self)
        return self.cnn_.network_

    @property
    def classes_(self) -> NDArray[np.int_]:
        """The labels in ascending order."""
        check_is_fitted(self)
        return self.cnn_.classes_

    @property
    def n_channels_in_(self) -> int:
        """Channels of the images."""
        check_is_fitted(self)
        return self.cnn_.n_channels_in_

    @documented
    def fit(
        self,
        X: ImagesLike,
        y: LabelsLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
        validation_data: LabelledImagesLike | None = None,
    ) -> "DeepStructuredSegmenter":
        """Train network and field.

        Parameters
        ----------
        %(X_to_fit)s
        %(y_to_fit)s
        %(sample_weight)s
        %(validation_data)s

        Returns
        -------
        self

        Raises
        ------
        %(raised_by_fit)s

        Warns
        -----
        ConvergenceWarning
            If Algorithm 1 does not reach `tol` within `max_iter` passes.
        UserWarning
            As in `CNNSegmenter.fit`. If the weight of the log-odds is negative. If Ctrl-C interrupted training. The
            estimator then keeps what was trained until then, as after an error in training. This is the network alone
            if training was interrupted in pretraining. Ctrl-C in the search of ``network_scale="auto"``, which comes
            before training, raises KeyboardInterrupt.
        """
        self._validate_params()
        cnn = self._cnn()
        known = self._known_classes(cnn)
        data, validation = self._check_data(cnn, X, y, sample_weight, validation_data, known)
        warm = self._take_former(cnn, data)
        if is_fitted(cnn) and not warm:
            cnn.network_ = copy.deepcopy(cnn.network_)  # joint training must not change the one that was given
        pretraining = (data, validation) if is_fitted(cnn) else cnn.hold_out(data, validation)
        folds = self._folds(data, warm)
        if self.training != "cnn":
            data.check_lasting()
            if not is_fitted(cnn):
                cnn.try_whole_images(data)
        in_joint = self._changes(cnn).augmentation
        if not is_fitted(cnn) and cnn.augmentation is not in_joint:
            try_augmentation(data, cnn.augmentation)
        try_augmentation(data, in_joint)
        parts = parts_of_folds(folds, cnn, data, validation)
        of_cnn = {f"cnn__{name}": value for name, value in cnn.get_params(deep=False).items()}
        # the folds that were drawn, as the splitter may draw others next time
        cv = [(fold.kept, fold.left_out) for fold in folds] or self.cv
        start = self._open_checkpoints(lambda: self._start(cnn, data, warm), data, validation, cv=cv, **of_cnn)
        with ending_fit(), start as checkpoints:
            self._train(cnn, pretraining, _Fit(data, validation, checkpoints, self._changes(cnn), folds, parts), warm)
        warn_of_negative_weight(self.coef_)
        return self

    @from_state_that_fits
    def _train(
        self, cnn: CNNSegmenter, pretraining: tuple[LabelledImages, LabelledImages | None], fit: "_Fit", warm: bool
    ) -> None:
        if not (fit.folds and self.ensemble):
            self._pretrain(copy.copy(cnn), *pretraining, fit.checkpoints)
        of_folds = self._train_folds(cnn, fit)
        if self.training == "cnn":
            self.__dict__.update(self._no_field(self.cnn_))
        else:
            self._learn_field(fit, of_folds, self.coef_ if warm and self.objective_ is not None else None)

    def _cnn(self) -> CNNSegmenter:
        """The network as an estimator, which is fitted already if it is frozen."""
        if isinstance(self.cnn, FrozenEstimator):
            return copy.copy(self.cnn.estimator)
        # not cloned, as callbacks may hold what can't be copied, and the user looks at those that were given
        given = self.cnn if isinstance(self.cnn, CNNSegmenter) else CNNSegmenter(self.cnn)
        cnn = type(given)(**given.get_params(deep=False))
        cnn.random_state = self.random_state if cnn.random_state is None else cnn.random_state
        cnn.verbose = cnn.verbose or self.verbose
        return cnn

    def _check_fitted(self) -> None:
        super()._check_fitted()
        if self.objective_ is None and not np.array_equal(self.coef_, np.eye(1, len(self.coef_))[0]):
            raise ValueError("coef_ must be 1 and zeros, because no field is learned: objective_ is None")
        if self.objective_ is not None and self.training == "cnn":
            raise ValueError('objective_ must be None, because training="cnn" learns no field')
        # as text, in which NaN equals itself
        if str([row for row in self.history_ if row["stage"] == "cnn"]) != str(self.cnn_.history_):
            raise ValueError("history_ must have the entries of history_ of cnn_")
        shapes = {str(n): tuple(parameter.shape) for n, parameter in enumerate(self.network_.parameters())}
        for n, moments in (self.optimizer_state_ or {}).items():
            if n not in shapes or not _are_moments(moments, shapes[n]):
                raise ValueError(f"optimizer_state_: its entry {n!r} does not fit a parameter of the network")

    def _validate_params(self) -> None:
        check_kind_of_folds(self.cv)
        super()._validate_params()
        if isinstance(self.cnn, FrozenEstimator):
            if not isinstance(self.cnn.estimator, CNNSegmenter):
                raise TypeError(
                    f"cnn: FrozenEstimator must hold a CNNSegmenter, got a {type(self.cnn.estimator).__name__}"
                )
            check_is_fitted(self.cnn.estimator)
        check_not_empty(getattr(self.memory, "location", self.memory), "memory")
        cnn = self._cnn()
        cnn._validate_params()
        frozen = isinstance(self.cnn, FrozenEstimator)
        if self.checkpoint is not None and cnn.checkpoint is not None and not frozen:
            raise ValueError(
                "cnn: its checkpoint must be None, because that of DeepStructuredSegmenter keeps the state of "
                "pretraining too"
            )
        if self.training == "joint_by_batch" and self.cv is not None:
            raise ValueError('training="joint_by_batch" learns the weights of the field in each batch: leave cv out')
        if self.training == "joint_by_batch" and self._changes(cnn):
            raise ValueError(
                'training="joint_by_batch" needs images without random changes: leave out augmentation of '
                "DeepStructuredSegmenter and crop of its cnn"
            )

    def _changes(self, cnn: CNNSegmenter) -> Changes:
        """How images are changed in joint training."""
        augmentation = self.augmentation
        if augmentation == "same":
            return cnn.changes
        if augmentation == "auto":
            mirrors = cnn.average_mirrored and self.training != "joint_by_batch"
            augmentation = "flip" if mirrors else None
        return replace(cnn.changes, augmentation=augmentation)

    def _folds(self, data: LabelledImages, warm: bool) -> list[Fold]:
        """The folds whose networks are to be trained."""
        if self.cv is None:
            if self.ensemble:
                raise ValueError("ensemble needs the networks of folds: give cv too, such as cv=4")
            return []
        if isinstance(self.cnn, FrozenEstimator):
            raise ValueError(
                "cv trains a network for each fold, but cnn is frozen: give the CNNSegmenter without FrozenEstimator. "
                "memory trains each network once"
            )
        if warm:
            return []
        folds = read_folds(self.cv, len(data), self.random_state)
        return folds if self.ensemble or self.training != "cnn" else []

    def _known_classes(self, cnn: CNNSegmenter) -> LabelScheme | None:
        """How labels are read for a network that is trained already. None if classes are to be found in y."""
        trained = self.cnn_ if self.warm_start and hasattr(self, "cnn_") else cnn
        return replace(scheme_of(cnn), several=trained._label_scheme.several) if is_fitted(trained) else None

    def _take_former(self, cnn: CNNSegmenter, data: LabelledImages) -> bool:
        """Give a warm start the network of the last fit, and tell whether this is one."""
        warm = self.warm_start and hasattr(self, "cnn_")
        if warm:
            if cnn.network is not self.cnn_.network and cnn.network != self.cnn_.network:
                raise ValueError(
                    "cnn: warm_start goes on with the network of the last fit, but this is another network: leave cnn, "
                    "or set warm_start=False"
                )
            check_unchanged(self, cnn)
            scale = cnn.given_scale or self.cnn_.network_scale_
            cnn.adopt(self.cnn_.network_, self.cnn_.history_, data, scale)
            if self.objective_ is not None and len(self.coef_) != self._weights().n_weights:
                raise ValueError(
                    f"pairwise: warm_start goes on with {len(self.coef_)} weights: leave pairwise and compatibility, "
                    "or set warm_start=False"
                )
        trained = self.cnn_ if warm else cnn
        if is_fitted(trained) and trained.n_channels_in_ != data.n_channels:
            raise ValueError(
                f"X has {data.n_channels} channel{'s' * (data.n_channels > 1)}, but the network was trained on "
                f"{trained.n_channels_in_}"
            )
        return warm

    def _start(self, cnn: CNNSegmenter, data: LabelledImages, warm: bool) -> dict[str, np.ndarray]:
        """What a fit begins with, as arrays."""
        if not is_fitted(cnn):
            return cnn.first_weights(data)
        weights = network_arrays(cnn.network_)
        if not warm:
            return weights
        moments = {
            f"{n}.{name}": array
            for n, of_one in (self.optimizer_state_ or {}).items()
            for name, array in of_one.items()
        }
        return {"coef": self.coef_, "sigma": np.array(self.sigma_, float), **moments, **weights}

    def _pretrain(
        self,
        cnn: CNNSegmenter,
        data: LabelledImages,
        validation: LabelledImages | None,
        checkpoints: Checkpoints | None,
    ) -> None:
        """Train the network, unless it was trained before or gets its weights from the state of joint training."""
        if is_fitted(cnn):
            warm = hasattr(self, "cnn_") and self.cnn_.network_ is cnn.network_
            if warm:
                self.cnn_ = cnn
            else:
                self._take_network(cnn)
            return
        try:
            if checkpoints and (found := checkpoints.scale_of("joint")):
                with seeded(self.random_state) as seed:
                    cnn.adopt(cnn.build(data, seed), [], data, cnn.given_scale or found)
            else:
                fit_once(cnn, self.memory, data, validation, checkpoints)
        finally:
            if is_fitted(cnn):
                self._take_network(cnn)

    def _take_network(self, cnn: CNNSegmenter) -> None:
        # at once, as an interrupt may come at any moment
        self.__dict__.update(
            cnn_=cnn,
            history_=list(cnn.history_),
            optimizer_state_=None,
            _learned_with=held_parameters(self),
            **self._no_field(cnn),
        )

    def _take_solution(self, solution: Solution, sigma: float | None) -> None:
        super()._take_solution(solution, sigma)
        self._learned_with = held_parameters(self)

    def _no_field(self, cnn: CNNSegmenter) -> dict[str, Any]:
        """The fitted attributes of a network alone."""
        attributes = dict.fromkeys(("objective_", "dual_gap_", "inference_gap_", "slack_", "sigma_", "n_iter_"))
        return {"coef_": np.eye(1, self._weights(len(cnn.classes_)).n_weights)[0], **attributes}

    def _train_folds(self, cnn: CNNSegmenter, fit: "_Fit") -> list[CNNSegmenter]:
        """Train a network for each fold. For an ensemble, take the mean of those that are trained."""
        trained = []
        scale = self._scale_of_folds(cnn, fit)
        try:
            for n, part in enumerate(fit.parts):
                one = copy.copy(cnn)
                one.checkpoint, one.network_scale = self.checkpoint or cnn.checkpoint, scale
                if self.verbose:
                    print(f"\n{name_of_fold(n, fit.parts)}", flush=True)
                try:
                    fit_once(one, self.memory, *part, None)
                finally:
                    if is_fitted(one):
                        one.checkpoint, one.network_scale = cnn.checkpoint, cnn.network_scale
                        trained.append(one)
        finally:
            if self.ensemble and trained:
                self._take_network(mean_of(trained, fit.data))
        return trained

    def _scale_of_folds(self, cnn: CNNSegmenter, fit: "_Fit") -> Any:
        """One `network_scale` for the networks of all folds."""
        if not fit.folds or cnn.given_scale is not None:
            return cnn.network_scale
        if not self.ensemble:
            return self.cnn_.network_scale_
        found = fit.checkpoints and fit.checkpoints.scale_of("joint")
        return found or scale_once(cnn, self.memory, fit.data, fit.validation, fit.checkpoints)

    def _learn_field(self, fit: "_Fit", of_folds: list[CNNSegmenter], w: FloatArray | None) -> None:
        """Learn the weights on the fixed network, and then both by joint training if it is wanted."""
        found = fit.checkpoints and fit.checkpoints.state_of("joint")
        if fit.checkpoints and found and len(found["history"]) > 1 + (len(self.history_) or self.cnn_.epochs_for(1)):
            fit.checkpoints.reject("its history has more epochs than were trained before")
        holds_weights = self.cv is not None and not of_folds
        sigma = self.sigma_ if holds_weights else self._estimate_sigma(fit.data)
        try:
            unseen = log_odds_of_left_out(of_folds, fit.folds, fit.data) if of_folds else None
            energies = self._field(sigma).energies(unseen or self._log_odds(fit), fit.data.images)
            examples = list(map(Example, energies, fit.data.annotations))
            began = time.perf_counter()
            if holds_weights:
                solution = self._learner().at_weights(examples, self.coef_)
                self._take_solution(replace(solution, n_iter=self.n_iter_ or 0), sigma)
            elif unseen or not found:
                goes_on = self.training in _ALGORITHMS and self.n_epochs and self.cv is None
                self._learn_weights(examples, sigma, w, 0 if goes_on else BOUND_ROUNDS)
            if self.training not in _ALGORITHMS:
                return
            if unseen:
                reprice(examples, self._log_odds(fit))
            at_start = None
            if found:
                self.history_ = found["history"]
                self.cnn_.history_ = [row for row in self.history_ if row["stage"] == "cnn"]
            else:
                at_start = self._begin_joint_history(fit, examples, began)
            if self.n_epochs:
                self._train_jointly(fit, examples, sigma, at_start)
        except KeyboardInterrupt:
            raise Interrupted from None

    def _log_odds(self, fit: "_Fit") -> Sequence[NDArray[np.float32]]:
        return self._runner().log_odds(self.network_, fit.data.images)

    def _learn_weights(
        self, examples: list[Example], sigma: float | None, w: FloatArray | None, bound_rounds: int
    ) -> None:
        solution, interrupted = learn_field(examples, self._learner(bound_rounds), w, self.verbose)
        self._take_solution(solution, sigma)
        if interrupted:
            raise Interrupted

    def _begin_joint_history(self, fit: "_Fit", examples: list[Example], began: float) -> float | None:
        """Measure what joint training begins with. Give the Jaccard index of the validation images."""
        gamma = self.objective_ if self.cv is None else self._learner().objective(examples, self.coef_)
        row: dict[str, Any] = {"stage": "joint", "epoch": 0, "gamma": gamma}
        watched = least_labelings(self.coef_, (e.energy for e in examples[:N_WATCHED]), self.n_jobs)
        row["jaccard"] = _mean_jaccard(fit.data, watched)
        if fit.validation is not None:
            runner = self._runner()
            results = runner.run(self.network_, fit.validation.images)
            row["valid_jaccard"] = _mean_jaccard(fit.validation, self._segment(results, overlap=runner.may_overlap))
        row["seconds"] = time.perf_counter() - began
        if self.early_stopping:
            row["kept"] = True
        show_start(row, len(fit.data), self.verbose)
        if not any(row["stage"] == "joint" for row in self.history_):  # a warm start goes on counting
            self.history_ = [*self.history_, row]
        return row.get("valid_jaccard")

    def _train_jointly(
        self, fit: "_Fit", examples: list[Example], sigma: float | None, valid_jaccard: float | None
    ) -> None:
        loss = MaxMarginLoss()
        loss.field, loss.coef_ = self._field(sigma), self.coef_
        loss.learner = replace(self._learner(), tol=_LOOSER * self.tol)
        algorithm = _ALGORITHMS[self.training](fit.data.images, examples, learns=self.cv is None)
        before = self.history_
        last = max(row["epoch"] for row in before if row["stage"] == "joint")
        measures = [("algorithm", algorithm), ("jaccard", JaccardOfField(fit.data, fit.validation))]
        with seeded(self.random_state) as seed:
            net = joint_net(
                self.network_,
                algorithm,
                loss,
                self._runner(),
                seed=seed,
                num_workers=self.cnn_.num_workers,
                moments=self.optimizer_state_,
                callbacks=self._callbacks("joint training", len(fit.data), measures, valid_jaccard)
                + keep_state(fit.checkpoints, "joint", history=before, network_scale=self.cnn_.network_scale_),
                lr=self.learning_rate,
                optimizer__param_groups=self.cnn_.rates_of_layers(self.learning_rate),
                max_epochs=self.n_epochs,
                batch_size=self.batch_size,
            )
            try:
                net.partial_fit(TrainingSet(fit.data, fit.changes, seed))
            finally:
                self.network_.eval().cpu()
                rows = history_rows(net, stage="joint")
                if any(row.get("kept") for row in rows):  # so none before is
                    before = [row | {"kept": False} if row["stage"] == "joint" else row for row in before]
                self.history_ = before + [row | {"epoch": row["epoch"] + last} for row in rows]
                self.optimizer_state_ = net.moments if self.warm_start else None
                if algorithm.learns:  # the objective that these weights reach is not known
                    slack = np.full(len(examples), np.nan)
                    self._take_solution(Solution(loss.coef_, slack, [], np.nan, dual_gap=np.inf), sigma)
        if algorithm.learns:
            reprice(examples, self._log_odds(fit))
            self._learn_weights(examples, sigma, self.coef_, BOUND_ROUNDS)

    @documented
    def predict(self, X: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Label the pixels by the least energy, or for "cnn" by the most probable class.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        %(labels_given)s
        """
        results = self._run_network(X)
        if self.objective_ is None:
            labelings: Iterator[LabelArray] = (likeliest_labels(l) for l, _ in results)
        else:
            labelings = self._segment(results, overlap=self._runner().may_overlap)
        return as_given([self._as_labels(labeling) for labeling in labelings], X)

    @documented
    def optimality_gap(self, X: ImagesLike) -> FloatArray:
        """Bound how far the labelings of `predict` are from those of least energy. For "cnn" it is 0.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        %(optimality_gap)s
        """
        check_is_fitted(self)
        if self.objective_ is None or not self._label_scheme.several:  # which needs no run of the network
            return np.zeros(len(check_images(X, n_channels=self.n_channels_in_)))
        return self._gaps(self._run_network(X), overlap=self._runner().may_overlap)

    @documented
    def predict_confidence(self, X: ImagesLike) -> np.ndarray | list[np.ndarray]:
        """Give the log-odds of foreground, smoothed by the field so that their signs are the labels of `predict`.

        The value of a pixel is by how much all log-odds of the network, over the whole image, would have to fall for
        `predict` to give it background, or if it is negative, to rise for it to give foreground. It has the unit of
        `decision_function`, and is no probability. For "cnn" it is `decision_function`.

        Parameters
        ----------
        %(X)s

        Returns
        -------
        %(confidence)s

        Raises
        ------
        %(raised_by_confidence)s

        Notes
        -----
        See `skmmcrf.field.Energy.smoothed_log_odds`. It takes as long as 20 to 80 minimum cuts.
        """
        self._check_is_binary("predict_confidence", "predict_proba and optimality_gap")
        results = self._run_network(X)
        if self.objective_ is None:
            return as_given([l for l, _ in results], X)
        return as_given(list(self._smooth(results, overlap=self._runner().may_overlap)), X)

    def energy(self, image: np.ndarray) -> Any:
        """Give the learned energy of an image. `predict` gives its labeling of least energy.

        Parameters
        ----------
        image : ndarray of shape (H, W) or (H, W, channels)
            As in fit.

        Returns
        -------
        skmmcrf.field.Energy or skmmcrf.field.MulticlassEnergy
            For the weights `coef_`.

        Raises
        ------
        ValueError
            If ``training="cnn"``, which learns no field.
        """
        check_is_fitted(self)
        if self.objective_ is None:
            raise ValueError('energy needs a field, but training="cnn" learns none')
        ((log_odds, pixels),) = self._run_network([image])
        return self._fitted_field().energy(log_odds, pixels)


@dataclass
class _Fit:
    """The data of a fit: checked images, the state of training, the changes of images, and folds with own networks.

    `parts` are what the networks of the folds are trained and validated on.
    """

    data: LabelledImages
    validation: LabelledImages | None
    checkpoints: Checkpoints | None
    changes: Changes
    folds: list[Fold]
    parts: list[Part]


def is_fitted(cnn: CNNSegmenter) -> bool:
    """Tell whether the network is trained."""
    return hasattr(cnn, "network_")


def _mean_jaccard(data: LabelledImages, labelings: Iterable[LabelArray]) -> float:
    return mean_of_defined(jaccard_of_annotations(data.annotations, labelings))


def _are_moments(moments: Any, shape: tuple[int, ...]) -> bool:
    """Whether these are Adam's moments of a parameter."""
    shapes = {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
    if not isinstance(moments, dict) or moments.keys() != shapes.keys():
        return False
    if not all(are_floats(moments[name], shapes[name]) for name in shapes):
        return False
    return bool(moments["step"] >= 0) and not (moments["exp_avg_sq"] < 0).any()
