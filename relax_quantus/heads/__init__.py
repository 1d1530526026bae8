"""A classifier on an encoder: embeddings -> classes, fitted, saved, and fine-tuned with the encoder.

`classifier` is the door, `logistic` the regression, `file` what is saved, `training` and
`fine_tuning` train the encoder on.
"""

from relax_quantus.heads.classifier import EmbeddingClassifier

__all__ = ["EmbeddingClassifier"]
