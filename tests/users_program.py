"""A program of a user's, which mypy checks: editors
and type checkers see what the package offers.
"""

from __future__ import annotations

from torch import Tensor, nn

import relax_quantus as rq
from relax_quantus.benchmark import BenchmarkConfig, run


def centred(x: Tensor, encoder: nn.Module) -> Tensor:
    """One input, one explanation."""
    explanation = rq.RELAX(encoder, masks="time").explain(x, "silence", n_samples=500)
    return explanation.centred()


def map_alone(x: Tensor, encoder: nn.Module) -> Tensor:
    """Return one map; its arguments are known by name."""
    return rq.RELAX(encoder).attribute(inputs=x, baselines="silence", seed=None)


def misspelt_in_a_call(x: Tensor, encoder: nn.Module) -> None:
    """Arguments of a call that are misspelt, or another method's, are seen before it runs."""
    rq.RELAX(encoder).attribute(x, n_sample=200)  # type: ignore[call-overload]
    rq.RELAX(encoder).attribute(x, tolerance=0.1)  # type: ignore[call-overload]
    rq.RELAX(encoder).explain(x, seed="fresh")  # type: ignore[call-overload]


class Halves:
    """Masks of a user's own, which look at the input."""

    def bind(self, x: Tensor) -> rq.masks.BoundMasks:
        """Keep what is loud or what is soft."""
        loud = (x > x.mean()).float()
        return rq.masks.BoundMasks(lambda n, generator: loud.expand(n, *x.shape), by_example=True)


def own_masks(x: Tensor, encoder: nn.Module) -> Tensor:
    """Explain with them."""
    return rq.RELAX(encoder, Halves()).explain(x).importance


def several(x: tuple[Tensor, ...], encoder: nn.Module) -> list[Tensor]:
    """A tuple of inputs, an explanation each."""
    return [e.centred_standard_error for e in rq.RELAX(encoder).explain(x)]


def examples(path: str) -> Tensor:
    """Examples of a recording."""
    wave, rate_hz = rq.read_audio(path)
    x: Tensor = rq.LogMel()(rq.resample(wave, rate_hz))
    return x


def recording(path: str) -> str:
    """One recording: its maps, boxes, sounds and page."""
    found = rq.explain_recording(path, masks=("time", "frequency"), n_samples=100, hop_s=0.48)
    highest = found.maps["time"].centred.max()
    found.save("found.npz")
    return f"{found.verdict} {highest} {len(found.regions('frequency'))} {found.sounds().kept.size}"


def recordings(paths: list[str], network: nn.Module) -> list[rq.RecordingExplanation]:
    """Many recordings, with a network of one's own."""
    session = rq.Session(rq.ExplainSettings(network, front_end=rq.LogMel()))
    return [session.explain(path) for path in paths]


def misspelt_recording(path: str) -> rq.RecordingExplanation:
    """What is misspelt is seen here, too."""
    return rq.explain_recording(path, maskz="time")  # type: ignore[call-arg]


def misspelt(encoder: nn.Module) -> rq.RELAX:
    """What is misspelt is seen before it runs."""
    return rq.RELAX(encoder, maskz="time")  # type: ignore[call-arg]


def table() -> int:
    """Run the benchmark."""
    return len(run(BenchmarkConfig()).rows)
