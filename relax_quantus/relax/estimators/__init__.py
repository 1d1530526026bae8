"""Estimate from similarities and masks: importance, uncertainty, standard error.

Siblings of masks, fills and similarities. An estimator is a factory: ``start(masks, contrast)``
gives an accumulator that is fed masks and similarities in any chunks and asked for its result,
under a tolerance more than once.
"""

from relax_quantus.base.registry import Registry
from relax_quantus.relax.bound_masks import BoundMasks
from relax_quantus.relax.estimators.moments import Accumulator, Estimate, Estimator, Paper, Weighted
from relax_quantus.relax.estimators.surrogate import Surrogate

__all__ = [
    "DEFAULT",
    "ESTIMATORS",
    "Accumulator",
    "Estimate",
    "Estimator",
    "BoundMasks",
    "Paper",
    "Surrogate",
    "Weighted",
]

ESTIMATORS: Registry[Estimator] = Registry("estimator", "estimator")
ESTIMATORS.register("weighted", Weighted, "sum s M / sum M, what the official package computes")
ESTIMATORS.register("paper", Paper, "(1/N) sum s M, the paper's formula")
ESTIMATORS.register(
    "surrogate", Surrogate, "what weighted estimates, by a cross-fitted kernel regression, from fewer masks"
)
DEFAULT = "surrogate"
