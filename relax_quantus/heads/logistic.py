"""Fit a standardised logistic regression in which groups count, not examples.

Embeddings ``(n, D)``, labels ``(n,)`` and group numbers ``(n,)`` enter; the coefficients with the
standardisation folded in leave, with a record of the cross-validation that chose the penalty.
`EmbeddingClassifier.fit` is built on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from relax_quantus.base.checks import describe, message, refuse
from relax_quantus.errors import ArgumentTypeError, DataError, ShapeError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

REGULARISATION = tuple(float(c) for c in 10.0 ** np.arange(-4, 3))
FOLDS = 5


@dataclass(frozen=True)
class CrossValidation:
    """A record of how the regularisation was chosen.

    Attributes
    ----------
    C
        Inverse strength of the L2 penalty, scikit-learn's ``C``: of 1e-4 to 1e2 the one with the
        smallest held-out log loss; 1 if there were too few groups to hold any out. A fine-tuned
        encoder has seen the folds: C is then the one chosen for the encoder as it was given.
    accuracy
        Held-out accuracy at that C, 0 to 1, each group weighing the same; None without
        cross-validation, and of a fine-tuned encoder. C was chosen on the same folds, so it is a
        little optimistic, and the encoder may have seen the recordings.
    fold_accuracies
        The same in each fold.
    """

    C: float
    accuracy: float | None = None
    fold_accuracies: tuple[float, ...] = ()


def fit_logistic(
    h: Floats, labels: Ints, codes: Ints, C: float | None = None
) -> tuple[Floats, Floats, CrossValidation]:
    """Fit on embeddings ``(n, D)``, each group of `codes` weighing the same.

    `C` is chosen by cross-validation unless it is given.

    Returns
    -------
    tuple
        Weight ``(classes, D)`` and bias ``(classes,)`` on the embeddings as they are, and how C was
        chosen. Of two classes the logits are -d/2 and d/2 of scikit-learn's decision d, so that
        their softmax is its `predict_proba`.
    """
    weights = 1.0 / np.bincount(codes)[codes]
    chosen = _cross_validate(h, labels, codes, weights) if C is None else CrossValidation(C)
    scaler, (regression,) = _fit_each(h, labels, weights, [chosen.C])
    slope = regression.coef_ / scaler.scale_
    offset = regression.intercept_ - slope @ scaler.mean_
    if len(slope) == 1:
        slope, offset = np.concatenate([-slope, slope]) / 2, np.concatenate([-offset, offset]) / 2
    return slope, offset, chosen


def check_labels(y: Any, n: int, class_names: Sequence[str] | None) -> tuple[Ints, list[str]]:
    """Check labels against the examples and the names; return them as an array and strings."""
    labels = np.asarray(y.detach().cpu() if isinstance(y, Tensor) else y)
    if labels.ndim != 1 or len(labels) != n:
        refuse("y", f"one label for each of the {n} examples", labels, "pass (n,) integers", ShapeError)
    if labels.dtype.kind not in "iu":
        refuse("y", "integers from 0 to classes - 1", labels, "number the classes", ArgumentTypeError)
    if isinstance(class_names, str):
        refuse("class_names", "a list of names", repr(class_names), "pass one string a class", ArgumentTypeError)
    low, high = int(labels.min()), int(labels.max())
    names = [str(name) for name in (range(min(high + 1, n)) if class_names is None else class_names)]
    if low < 0 or high >= len(names):
        refuse("y", f"integers from 0 to {len(names) - 1}, one for each class name", f"{low} to {high}", "check both")
    if len(set(names)) != len(names):
        refuse("class_names", "different names", repr(names), "give each class its own")
    counts = np.bincount(labels, minlength=len(names))
    if (counts > 0).sum() < 2:
        only = names[int(counts.argmax())]
        refuse("y", "at least two classes", f"one class only, {only!r}", "add examples of another class", DataError)
    if (counts == 0).any():
        missing = [name for name, count in zip(names, counts, strict=True) if count == 0]
        refuse("y", "examples of every class", f"none of {missing}", "leave those names out or add examples", DataError)
    return labels.astype(np.int64), names


def group_codes(groups: Any, n: int, argument: str = "groups") -> Ints:
    """Number the groups 0, 1, ... in order of appearance; None makes each example its own."""
    if groups is None:
        return np.arange(n)
    ids = groups.tolist() if isinstance(groups, Tensor | np.ndarray) else list(groups)
    if len(ids) != n:
        refuse(argument, f"one clip or source for each of the {n} examples", f"{len(ids)}", "pass (n,) ids", ShapeError)
    seen: dict[Any, int] = {}
    try:
        if any(g is None or g != g for g in ids):
            refuse(argument, "an id for each example", "missing values", "give such examples ids of their own")
        return np.array([seen.setdefault(g, len(seen)) for g in ids], dtype=np.int64)
    except TypeError as error:
        raise ArgumentTypeError(
            message(argument, "(n,) numbers or strings", describe(groups), "pass one id each")
        ) from error


def _fit_each(h: Floats, labels: Ints, weights: Floats, strengths: Sequence[float]) -> tuple[Any, list[Any]]:
    """Fit one standardisation and, for each of `strengths`, a logistic regression on its result.

    On one thread: the problems are small, and linear algebra on all cores of a busy machine takes
    ten times as long.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        scaler = StandardScaler().fit(h, sample_weight=weights)
        z = scaler.transform(h)
        return scaler, [LogisticRegression(C=C, tol=1e-6, max_iter=5000).fit(z, labels, weights) for C in strengths]


def _cross_validate(h: Floats, labels: Ints, codes: Ints, weights: Floats) -> CrossValidation:
    """Choose C by the held-out log loss, weighted like the fit."""
    fold = _folds(labels, codes)
    losses, hits = np.zeros((len(REGULARISATION), len(h))), np.zeros((len(REGULARISATION), len(h)))
    tested = np.zeros(len(h), dtype=bool)
    for held in (fold == k for k in range(fold.max() + 1)):
        if held.all() or len(np.unique(labels[~held])) < 2:
            continue
        tested |= held
        scaler, regressions = _fit_each(h[~held], labels[~held], weights[~held], REGULARISATION)
        z = scaler.transform(h[held])
        for row, regression in enumerate(regressions):
            proba = np.zeros((len(z), int(labels.max()) + 1))
            proba[:, regression.classes_] = regression.predict_proba(z)
            truth = proba[np.arange(len(proba)), labels[held]]
            losses[row, held] = -np.log(np.maximum(truth, 1e-12))
            hits[row, held] = proba.argmax(1) == labels[held]
    if not tested.any():
        return CrossValidation(1.0)
    best = int((losses @ weights).argmin())
    tested_folds = [k for k in range(fold.max() + 1) if tested[fold == k].any()]
    per_fold = tuple(float(np.average(hits[best, fold == k], weights=weights[fold == k])) for k in tested_folds)
    accuracy = float(np.average(hits[best, tested], weights=weights[tested]))
    return CrossValidation(REGULARISATION[best], accuracy, per_fold)


def _folds(labels: Ints, codes: Ints) -> Ints:
    """Return the fold of each example, whole groups together; all 0 where there are too few groups.

    The split is made over pairs of group and class, so the number of examples in a group does not
    change it.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    pairs = np.unique(np.stack([codes, labels], axis=1), axis=0)
    count = min(FOLDS, int(np.bincount(pairs[:, 1]).min()))
    of_group = np.zeros(codes.max() + 1, dtype=np.int64)
    if count >= 2:
        split = StratifiedGroupKFold(count).split(np.zeros(len(pairs)), pairs[:, 1], pairs[:, 0])
        for k, (_, held) in enumerate(split):
            of_group[pairs[held, 0]] = k
    return of_group[codes]
