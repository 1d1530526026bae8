"""Give Quantus RELAX as an explain function, and embeddings as something that it can measure.

The numpy boundary of the flow: arrays ``(B, 1, T, F)`` and a model enter, maps ``(B, 1, T, F)``
leave. Three ways in, from the most explicit to the most convenient: pass `explain_func` to a metric
or to ``quantus.evaluate``; wrap an encoder without classes in `SimilarityModel`; call
`register_with_quantus`, after which Quantus knows RELAX by name. Quantus itself is imported by the
registration alone.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from relax_quantus.base.checks import message, refuse
from relax_quantus.base.extras import require
from relax_quantus.base.networks import evaluation_mode, like_weights, neutral_torch
from relax_quantus.base.registry import Registry, nearest
from relax_quantus.errors import ArgumentError, ArgumentTypeError, MissingDependencyError, UnknownNameError
from relax_quantus.relax.attribution import RELAX
from relax_quantus.relax.estimators import Estimator
from relax_quantus.relax.explanation import Explanation
from relax_quantus.relax.masks import STRATEGIES, MaskStrategy
from relax_quantus.relax.similarity import Similarity, SimilarityModel

__all__ = [
    "SimilarityModel",
    "explain_func",
    "import_quantus",
    "method_names",
    "register_with_quantus",
    "unregister_from_quantus",
]

Array = npt.NDArray[Any]

MAPS: Registry[Callable[[Explanation], Tensor]] = Registry("map", "map")
MAPS.register("importance", lambda: lambda e: e.importance, "similarity kept when the bin is kept; lies high above 0")
MAPS.register("centred", lambda: lambda e: e.centred(), "importance minus its value if no bin mattered; signed")
MAPS.register("positive", lambda: lambda e: e.centred().clamp(min=0), "the centred map, clipped at 0")


@neutral_torch()
def explain_func(
    model: Callable[[Tensor], Tensor],
    inputs: Array,
    targets: Any = None,
    *,
    masks: str | MaskStrategy = "random",
    baselines: Any = "silence",
    estimator: str | Estimator | None = None,
    similarity: str | Similarity = "cosine",
    domain: str = "log",
    n_samples: int = 1000,
    seed: int | None = 0,
    map: str = "centred",
    perturbations_per_eval: int | None = None,
    device: str | torch.device | None = None,
    method: str | None = None,
) -> Array:
    """Explain the embeddings of `inputs` with RELAX, in Quantus's form of an explain function.

    It explains ``model.embed`` if the model has it, else the model's output: with
    `EmbeddingClassifier` and `SimilarityModel` the embedding, so that a re-initialised encoder
    (MPRT) changes the map and a re-initialised head does not. The model runs in eval mode and is
    left as found, as are the arguments and the global generators. Costs ``n_samples + 2`` forwards
    an example.

    Parameters
    ----------
    model
        Module or callable on ``(n, ...)``.
    inputs
        ``(B, ...)``, such as log-mel examples ``(B, 1, T, F)``, of any channels and axes; brought
        to the type of the model's weights.
    targets
        Not used: an embedding has no classes.
    masks, baselines, estimator, similarity, domain, n_samples, seed
        As in `RELAX` and `RELAX.attribute`. Keep the seed fixed for robustness metrics; pass fresh
        ones for randomisation metrics, where masks shared by both maps would look like agreement.
    map
        ``"centred"`` (importance minus its value if no bin mattered), for metrics that rank bins or
        read signs; ``"positive"`` (centred, negative parts 0), for metrics of mass; or
        ``"importance"``, whose values all lie high above 0, for its ranks.
    perturbations_per_eval
        As in `RELAX.attribute`.
    device
        Where the inputs go; None for the device of the model's weights. The model is not moved.
    method
        Not used: ``quantus.evaluate`` puts its own label here.

    Returns
    -------
    numpy.ndarray
        Shaped like `inputs`, finite; float64 if `inputs` are, else float32.

    Raises
    ------
    TypeError
        For any other keyword.
    ArgumentError, ShapeError
        For values and shapes that cannot work.
    EncoderError
        If the embedding is not a finite, non-zero ``(n, D)``.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(2, 1, 96, 64))
    >>> explain_func(lambda x: x.mean((1, 2)), x, masks="frequency", n_samples=20).shape
    (2, 1, 96, 64)
    """
    encoder = getattr(model, "embed", model)
    if not callable(encoder):
        refuse("model", "a module or callable", type(model).__name__, "pass the model itself", ArgumentTypeError)
    chosen = MAPS.get(map)
    given = np.array(inputs.detach().cpu() if isinstance(inputs, Tensor) else inputs, order="C")
    if given.dtype.kind not in "fiu":
        refuse(
            "inputs",
            "an array of numbers (B, ...)",
            given,
            "pass examples, such as log-mel spectrograms",
            ArgumentTypeError,
        )
    x = _on_device(like_weights(torch.from_numpy(given), model), model, device)
    if isinstance(baselines, np.ndarray):
        baselines = torch.tensor(baselines).to(x)
    relax = RELAX(encoder, masks, similarity, estimator, domain)
    with evaluation_mode(model):
        explained = relax.explain(
            x, baselines, n_samples=n_samples, perturbations_per_eval=perturbations_per_eval, seed=seed
        )
    result: Array = chosen(explained).double().cpu().numpy()
    return result.astype(np.float64 if given.dtype == np.float64 else np.float32)


def _on_device(x: Tensor, model: object, device: str | torch.device | None) -> Tensor:
    """Move `x` to `device`, which has to be the model's."""
    if device is None:
        return x
    moved = x.to(device)
    if isinstance(model, nn.Module) and any(True for _ in model.parameters()) and moved.device != x.device:
        remedy = "move the model first, with model.to(device), or leave device out"
        refuse("device", f"the model's own, {x.device}", str(device), remedy)
    return moved


@dataclass(frozen=True)
class _Registration:
    """A record of what was put into Quantus and what was there before."""

    function: Callable[..., Array]
    previous: tuple[tuple[ModuleType, Any], ...]
    listing: list[str]
    names: list[str]

    def list_names(self) -> None:
        """Add the names that Quantus's list of methods lacks, and remember which."""
        new = [name for name in method_names() if name not in self.listing]
        self.listing.extend(new)
        self.names.extend(new)


_registration: _Registration | None = None

# SmoothMPRT passes these two arguments of its own preprocessing on to quantus.explain.
_STRAYS = ("s_batch", "custom_batch")
# Without a method, Quantus computes a plain gradient, and ignores keywords like these.
_OURS = ("masks", "baselines", "estimator", "similarity", "map", "n_samples", "domain")


def method_names() -> list[str]:
    """Return the names under which Quantus knows RELAX once it is registered.

    They are ``"RELAX"``, and ``"RELAX-"`` with each mask strategy.
    """
    return ["RELAX", *(f"RELAX-{name}" for name in STRATEGIES)]


def register_with_quantus() -> None:
    """Teach Quantus RELAX by name, until `unregister_from_quantus`.

    Afterwards ``quantus.explain(model, x, y, method="RELAX-time", **keywords of explain_func)``
    works, and with it everything in Quantus that goes through that function: ``quantus.evaluate``
    with a dictionary a method, and SmoothMPRT, which takes no other explain function. ``"RELAX"``
    takes ``masks=``; ``"RELAX-<strategy>"`` names it, for every strategy in the registry. Any other
    method goes to Quantus as before. Calling this twice is the same as calling it once. Names
    imported earlier (``from quantus import explain``) keep the old function.

    In ``quantus.evaluate`` give the method twice,
    ``{"RELAX-time": {"method": "RELAX-time", "n_samples": 500}}``: Quantus makes the first maps
    from the inner dictionary and later ones from the key.

    Raises
    ------
    MissingDependencyError
        If Quantus cannot be imported.

    Examples
    --------
    >>> import quantus
    >>> register_with_quantus()
    >>> x = np.random.default_rng(0).normal(size=(2, 1, 96, 64))
    >>> quantus.explain(nn.Flatten(), x, [0, 0], method="RELAX-time", n_samples=20).shape
    (2, 1, 96, 64)
    >>> unregister_from_quantus()
    """
    global _registration
    quantus = import_quantus()
    if _registration is not None:
        _registration.list_names()
        return
    function = _dispatcher(quantus.explain)
    previous = tuple(
        (module, vars(module)["explain"])
        for name, module in list(sys.modules.items())
        if name.split(".")[0] == "quantus" and callable(getattr(module, "explain", None))
    )
    listing: list[str] = quantus.AVAILABLE_XAI_METHODS_CAPTUM
    for module, _ in previous:
        vars(module)["explain"] = function
    _registration = _Registration(function, previous, listing, [])
    _registration.list_names()


def unregister_from_quantus() -> None:
    """Put back what `register_with_quantus` replaced; do nothing without a registration."""
    global _registration
    if _registration is None:
        return
    for module, original in _registration.previous:
        if getattr(module, "explain", None) is _registration.function:
            vars(module)["explain"] = original
    for name in _registration.names:
        if name in _registration.listing:
            _registration.listing.remove(name)
    _registration = None


def import_quantus() -> ModuleType:
    """Import Quantus, or say what is missing, such as libGL in bare containers for its OpenCV."""
    require("quantus", "quantus")
    try:
        import quantus
    except ImportError as error:
        remedy = (
            "if a shared library such as libGL is missing, apt-get install libgl1 libglib2.0-0, "
            "or put opencv-python-headless in the place of opencv-python"
        )
        raise MissingDependencyError(message("quantus", "to be importable", f"'{error}'", remedy)) from error
    module: ModuleType = quantus
    return module


def _dispatcher(original: Callable[..., Array]) -> Callable[..., Array]:
    """Make a stand-in for ``quantus.explain`` that gives RELAX's names to `explain_func`.

    All else goes to `original`.
    """

    @functools.wraps(original)
    def explain(model: Any, inputs: Any, targets: Any, **kwargs: Any) -> Array:
        method = kwargs.get("method")
        if method is None and (keywords := [key for key in _OURS if key in kwargs]):
            remedy = "pass method='RELAX' or 'RELAX-<strategy>', in quantus.evaluate inside the method's dictionary too"
            raise ArgumentError(message("method", f"a name beside {', '.join(keywords)}", "none", remedy))
        if not (isinstance(method, str) and (method == "RELAX" or method.startswith("RELAX-"))):
            return original(model, inputs, targets, **kwargs)
        own = {key: value for key, value in kwargs.items() if key not in _STRAYS}
        return explain_func(model, inputs, targets, **_with_masks(method, own))

    return explain


def _with_masks(method: str, keywords: dict[str, Any]) -> dict[str, Any]:
    """Add the strategy that a method's name names to the keywords of `explain_func`."""
    _, dash, strategy = method.partition("-")
    if not dash:
        return keywords
    if strategy not in STRATEGIES:
        known = nearest(strategy, STRATEGIES.names())
        raise UnknownNameError(message("method", "'RELAX' or 'RELAX-<mask strategy>'", repr(method), known))
    if "masks" in keywords:
        raise ArgumentTypeError(message("masks", f"none beside {method!r}", "both", "pass masks with method='RELAX'"))
    return {**keywords, "masks": strategy}
