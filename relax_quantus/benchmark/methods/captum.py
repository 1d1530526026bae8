"""Captum's attributions as benchmark methods, in both views.

Stands below `methods`, which gives them names. In the logit view they explain the class's logit; in
the embedding view the cosine to the question's reference, which is the example's own embedding
unless the question names another. At the example itself the cosine to its own embedding is at its
maximum and its gradient is zero, so that the two methods that look at this gradient alone, Saliency
and InputXGradient, explain the inner product with it there (label-free importance, Crabbé and van
der Schaar, ICML 2022, section 3).

Baselines are the fill. Patches are eighths of either axis, 64 an example (of VGGish's 12 frames by
8 bands). What draws random numbers draws them from the question's seed, and the global generators
are put back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from relax_quantus.benchmark.global_generators import global_generators
from relax_quantus.benchmark.methods.questions import Attribution, Method, Question, Similarities
from relax_quantus.benchmark.methods.relax import as_map, require_view

PATCHES = (8, 8)
STEPS = 32
COPIES = 32
WINDOWS, STRIDES = (4, 4), (16, 16)
"""How many windows fit beside one another along time and frequency, and how many steps of one."""
LIME_WIDTH = 0.25
SHAP_NOISE = 0.1


@dataclass(frozen=True)
class Asked:
    """A question as Captum's methods put it: one number an example.

    Attributes
    ----------
    question, view
        What is asked, and in which view.
    at_maximum
        Whether the gradient vanishes at the example: then `gradient_score` is the inner product.
    """

    question: Question
    view: str

    @cached_property
    def reference(self) -> Tensor:
        """Embedding ``(1, D)`` towards which."""
        q = self.question
        if q.reference is not None:
            return q.reference[None]
        with torch.no_grad():
            return q.model.encoder(q.x).detach()

    def score(self, x: Tensor) -> Tensor:
        """Score examples by the logit or the cosine, ``(n, 1, T, F) -> (n,)``."""
        if self.view == "logit":
            return torch.as_tensor(self.question.model(x)[:, self.question.target])
        return cosine_similarity(self.question.model.encoder(x), self.reference)

    def gradient_score(self, x: Tensor) -> Tensor:
        """Score as `score` does, but by the inner product where the cosine's gradient vanishes.

        The inner product is of length 1 at the example.
        """
        if self.view == "logit" or self.question.reference is not None:
            return self.score(x)
        h = self.reference
        return (self.question.model.encoder(x) * h).sum(1) / h.square().sum().clamp(min=1e-12)


Attribute = Callable[[Asked, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class CaptumMethod(Method):
    """One of Captum's attributions.

    Attributes
    ----------
    attribute
        ``(Asked, x, baseline) -> map``, all ``(1, 1, T, F)``.
    cost
        Encoder forwards of a map, and how many more with each mask.
    """

    name: str
    attribute: Attribute
    cost: tuple[int, int]
    base: str = ""
    fill: str = ""
    view: str = "embedding"
    uses_fill: bool = True

    def explain(self, question: Question, similarities: Similarities) -> Attribution:
        """Attribute with Captum; the importance is the centred map."""
        require_view(self.view, question)
        asked = Asked(replace(question, fill=self.fill or question.fill), self.view)
        seed = (question.seed * 1_000_003 + question.clip) % 2**63
        with global_generators(seed):
            found = self.attribute(asked, question.x.detach().clone(), asked.question.baseline.clone())
        values = as_map(torch.as_tensor(found))
        return Attribution(values, values)

    def forwards(self, n_samples: int) -> int:
        """Return the forwards that are declared."""
        return self.cost[0] + self.cost[1] * n_samples


def patches(x: Tensor) -> Tensor:
    """Return the number of each bin's patch, int64 ``(1, 1, T, F)``."""
    rows, columns = (torch.arange(size) * n // size for size, n in zip(x.shape[-2:], PATCHES, strict=True))
    numbers: Tensor = torch.unique((rows[:, None] * PATCHES[1] + columns)[None, None], return_inverse=True)[1]
    return numbers


def parts(x: Tensor, counts: tuple[int, int]) -> tuple[int, int]:
    """Return the frames and bands of which so many fit into an example."""
    return max(1, x.shape[-2] // counts[0]), max(1, x.shape[-1] // counts[1])


def saliency(asked: Asked, x: Tensor, baseline: Tensor) -> Tensor:
    """Take the absolute gradient, the one of these methods that knows no baseline."""
    from captum.attr import Saliency

    with torch.enable_grad():
        return torch.as_tensor(Saliency(asked.gradient_score).attribute(x.requires_grad_()))


def input_x_gradient(asked: Asked, x: Tensor, baseline: Tensor) -> Tensor:
    """Multiply the gradient by what stands above the fill: zero has no meaning in log-mel."""
    from captum.attr import InputXGradient

    with torch.enable_grad():
        above = (x - baseline).requires_grad_()
        return torch.as_tensor(InputXGradient(lambda z: asked.gradient_score(z + baseline)).attribute(above))


def integrated_gradients(asked: Asked, x: Tensor, baseline: Tensor) -> Tensor:
    """Integrate gradients from the fill in 32 steps (Gauss-Legendre)."""
    from captum.attr import IntegratedGradients

    with torch.enable_grad():
        method = IntegratedGradients(asked.score)
        return torch.as_tensor(method.attribute(x.requires_grad_(), baselines=baseline, n_steps=STEPS))


def gradient_shap(asked: Asked, x: Tensor, baseline: Tensor) -> Tensor:
    """Average gradients at 32 random points between the fill and the example.

    Gaussian noise of 0.1 (0.9 dB) is added to the example.
    """
    from captum.attr import GradientShap

    with torch.enable_grad():
        method = GradientShap(asked.score)
        found = method.attribute(x.requires_grad_(), baselines=baseline, n_samples=STEPS, stdevs=SHAP_NOISE)
    return torch.as_tensor(found)


def occlusion(asked: Asked, x: Tensor, baseline: Tensor) -> Tensor:
    """Replace windows of 24 frames by 16 bands by the fill, every 6 frames and 4 bands.

    Costs 169 forwards.
    """
    from captum.attr import Occlusion

    with torch.no_grad():
        found = Occlusion(asked.score).attribute(
            x,
            sliding_window_shapes=(1, *parts(x, WINDOWS)),
            strides=(1, *parts(x, STRIDES)),
            baselines=baseline,
            perturbations_per_eval=COPIES,
        )
    return torch.as_tensor(found)


def feature_ablation(asked: Asked, x: Tensor, baseline: Tensor) -> Tensor:
    """Replace each patch by the fill, one at a time."""
    from captum.attr import FeatureAblation

    with torch.no_grad():
        method = FeatureAblation(asked.score)
        found = method.attribute(x, baselines=baseline, feature_mask=patches(x), perturbations_per_eval=COPIES)
    return torch.as_tensor(found)


def kernel_shap(asked: Asked, x: Tensor, baseline: Tensor) -> Tensor:
    """Estimate Shapley values of patches by weighted regression.

    There are as many coalitions as RELAX has masks.
    """
    from captum.attr import KernelShap

    with torch.no_grad():
        return _fitted(KernelShap(asked.score), asked, x, baseline)


def lime(asked: Asked, x: Tensor, baseline: Tensor) -> Tensor:
    """Fit a local linear model of patches as the authors' package fits images.

    There are as many copies as RELAX has masks.

    Ridge regression with penalty 1, weights sqrt(exp(-d^2 / 0.25^2)) with d = 1 - sqrt(share kept),
    the cosine distance between what is kept and all. Captum's own choice, a lasso of penalty 0.01,
    leaves nothing of scores that vary by a tenth.
    """
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import Lime

    def weight(_: Tensor, __: Tensor, kept: Tensor, **___: Any) -> Tensor:
        distance = 1 - kept.double().mean().sqrt()
        return torch.exp(-distance.square() / LIME_WIDTH**2).sqrt()

    with torch.no_grad():
        method = Lime(asked.score, interpretable_model=SkLearnRidge(alpha=1.0), similarity_func=weight)
        return _fitted(method, asked, x, baseline)


def _fitted(method: Any, asked: Asked, x: Tensor, baseline: Tensor) -> Tensor:
    found = method.attribute(
        x,
        baselines=baseline,
        feature_mask=patches(x),
        n_samples=asked.question.n_samples,
        perturbations_per_eval=COPIES,
    )
    return torch.as_tensor(found)


CAPTUM: dict[str, tuple[Attribute, tuple[int, int], str]] = {
    "Saliency": (saliency, (3, 0), "absolute gradient"),
    "InputXGradient": (input_x_gradient, (3, 0), "gradient times the level above the fill"),
    "IntegratedGradients": (integrated_gradients, (3 * STEPS, 0), "from the fill, 32 steps"),
    "GradientShap": (gradient_shap, (3 * STEPS, 0), "32 random points from the fill, noise 0.1"),
    "Occlusion": (occlusion, (169, 0), "windows of 24 frames by 16 bands, every 6 by 4"),
    "FeatureAblation": (feature_ablation, (65, 0), "64 patches of 12 frames by 8 bands, one at a time"),
    "KernelShap": (kernel_shap, (0, 1), "64 patches of 12 frames by 8 bands, N coalitions"),
    "Lime": (lime, (0, 1), "64 patches of 12 frames by 8 bands, N copies, ridge"),
}
"""Name -> how, encoder forwards (a backward pass counts as two), and what it is."""
WITHOUT_BASELINE = ("Saliency",)
"""Those whose maps do not depend on a fill."""
