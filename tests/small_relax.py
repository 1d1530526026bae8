"""RELAX on an encoder of twelve values, and a batch of three examples for it."""

from __future__ import annotations

from typing import Any

from reference.models import rand, relu_encoder

import relax_quantus as rq

EXACT = {"rtol": 0.0, "atol": 1e-12}
ENCODER = relu_encoder(12)
X = rand(3, 1, 4, 3)


def relax(**keywords: Any) -> rq.RELAX:
    return rq.RELAX(ENCODER, **keywords)
