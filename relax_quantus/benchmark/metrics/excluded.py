"""Metrics of Quantus that are not used, each with the reason as it was measured with Quantus 0.6.0 on examples ``(B, 1, T, F)``.

With the classes that `METRICS` name, these account for every metric class of Quantus; a test fails when a release brings another, and others run the
excluded ones and see the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Excluded:
    """A metric class of Quantus that is not used, its category there and why."""

    name: str
    category: str
    reason: str


EXCLUDED = (
    Excluded(
        "Monotonicity",
        "faithfulness",
        "vacuous: it puts the fill where the fill is already, so every map scores True",
    ),
    Excluded(
        "SensitivityN",
        "faithfulness",
        "correlates across the examples of the first batch, so a clip has no score of its own; "
        "FaithfulnessCorrelation is its form for one clip",
    ),
    Excluded(
        "Infidelity",
        "faithfulness",
        "compares the map's sum with the output in absolute units: a map times ten scores a hundred times "
        "worse, and maps of a similarity have no unit",
    ),
    Excluded(
        "Sufficiency",
        "faithfulness",
        "share of neighbours in the batch with a like map that have the same class: a clip alone scores 0",
    ),
    Excluded(
        "BatchSufficiency",
        "faithfulness",
        "raises ValueError on every input; for its meaning see Sufficiency",
    ),
    Excluded(
        "Continuity",
        "robustness",
        "ignores perturb_func; among its shifts is no shift, where it divides by 1e-9: a map made of random "
        "masks scores about 5e11",
    ),
    Excluded(
        "Consistency",
        "robustness",
        "share of neighbours in the batch with the same discretised map that have the same class: a clip "
        "alone scores 0",
    ),
    Excluded(
        "RelativeInputStability",
        "robustness",
        "divides the change by the map bin by bin, so one bin near 0 decides: one bin a thousand times nearer"
        " to 0 scores hundreds of times worse; NaN where the class changes. MaxSensitivity is relative to the"
        " whole map",
    ),
    Excluded(
        "RelativeOutputStability",
        "robustness",
        "the same division bin by bin as RelativeInputStability",
    ),
    Excluded(
        "RelativeRepresentationStability",
        "robustness",
        "the same division bin by bin as RelativeInputStability, and of one layer's activations, on which the"
        " value depends",
    ),
    Excluded(
        "AttributionLocalisation",
        "localisation",
        "on positive maps the same number as RelevanceMassAccuracy, which is used; its weighted form divides "
        "by the size of the batch less two",
    ),
    Excluded(
        "Focus",
        "localisation",
        "needs mosaics of two by two examples, twice as long and with twice the bands; the encoder takes one example",
    ),
    Excluded(
        "SmoothMPRT",
        "randomisation",
        "ignores explain_func and calls Quantus' own methods; masks average over inputs already, and MPRT is used",
    ),
    Excluded(
        "RandomLogit",
        "randomisation",
        "compares maps of two classes: one towards an embedding has none, and scores 1 whatever it shows",
    ),
    Excluded(
        "ModelParameterRandomisation",
        "randomisation",
        "the old name of MPRT, which is used",
    ),
    Excluded(
        "Completeness",
        "axiomatic",
        "tests floats for equality, and a map of mask averages does not claim to sum to the output",
    ),
    Excluded(
        "NonSensitivity",
        "axiomatic",
        "raises ValueError unless bins are removed one by one, 6145 forwards a clip, and then tests for exact"
        " zeros, of which averages over masks have none",
    ),
    Excluded(
        "InputInvariance",
        "axiomatic",
        "adds a shift to the bias of the first layer, which must be a convolution with one, and tests maps "
        "for equality",
    ),
)
