"""The encoder as it was, and fine-tuned."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from deaf_encoder import FAST, Deaf, data

from relax_quantus.heads import logistic
from relax_quantus.heads.classifier import EmbeddingClassifier


@pytest.fixture(scope="module", autouse=True)
def _two_penalties() -> Iterator[None]:
    """Cross-validate two penalties instead of seven, for speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logistic, "REGULARISATION", (0.1, 10.0))
        yield


@pytest.fixture(scope="module")
def base() -> Deaf:
    return Deaf().eval()


@pytest.fixture(scope="module")
def tuned(base: Deaf) -> EmbeddingClassifier:
    x, y, groups = data()
    return EmbeddingClassifier.fit(base, x, y, ["apart", "together"], groups, fine_tune=25, **FAST)
