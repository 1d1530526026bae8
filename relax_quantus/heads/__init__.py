"""Fit a classifier on an encoder: embeddings -> classes; save it, fine-tune the encoder with it.

`classifier` has the class, `logistic` the regression, `file` the format, `training` and
`fine_tuning` train the encoder on.
"""

from relax_quantus.heads.classifier import EmbeddingClassifier

__all__ = ["EmbeddingClassifier"]
