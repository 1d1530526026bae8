"""Section "equal error": how much sooner a map is as exact as relax_xai's own.

Every way of masking has its own converged map; each estimate is judged against that of its *own*
masks (relax_xai's lattice moves by pixels only), relative to that map's spread over bins. So "equal
error" means equally well converged, not equal maps. The time is measured at the number of masks
that the error study says is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.speed import official_package
from benchmarks.speed.convergence import Converged, masks_needed, relative_squared_errors, relative_to
from benchmarks.speed.explainers import BFLOAT16, FLOAT32, attribution, explainer
from benchmarks.speed.networks import Network, load_clips, network
from benchmarks.speed.official import official_arm
from benchmarks.speed.rounds import Arm, NotAvailableError, interleave
from benchmarks.speed.rows import FAILED, SKIPPED, Aim, Row
from benchmarks.speed.settings import HEAVY, Settings

SECTION = "equal_error"
ERROR = "RMSE over the converged map's spread, one value a clip"
GAIN = "masks that relax_xai needs over masks needed here, for equal error at equal N, one value a clip"
SPEED = "time of relax_xai over time to equal error"
OFFICIAL = "relax_xai's own"
STUDIED = "vggish_mini"
REFERENCE_RUNS = 8
REFERENCE_SEED, ESTIMATE_SEED = 1_000_000, 2_000_000
Key = tuple[str, str]
Errors = dict[Key, dict[int, list[float]]]


def equal_error(settings: Settings) -> Iterator[Row]:
    """Yield the errors, the gains in masks, and the speed to equal error; relax_xai is needed."""
    try:
        official_package.load()
    except NotAvailableError as missing:
        yield Row(SECTION, SPEED, {"peer": "relax_xai"}, status=SKIPPED, reason=str(missing))
        return
    loaded = network(STUDIED, settings)
    errors, refused = study(settings, loaded, load_clips(settings, settings.clips))
    labels = {key: {"masks": key[0], "estimator": key[1]} for key in [*errors, *refused]}
    for key, (status, reason) in refused.items():
        yield Row(SECTION, SPEED, labels[key], status=status, reason=reason)
    theirs = errors.pop((OFFICIAL, "relax_xai"))
    yield from error_rows({(OFFICIAL, "relax_xai"): theirs} | errors, labels)
    for key, mine in errors.items():
        for n in mine:
            yield Row(SECTION, GAIN, labels[key] | {"N": str(n)}, tuple(relative_to(theirs[n], mine[n])))
    most = max(settings.error_sizes)
    needed = {key: masks_needed({n: relative_to(mine[n], theirs[most]) for n in mine}) for key, mine in errors.items()}
    for name in settings.encoders:
        few = {key: n for key, n in needed.items() if key[1] == "surrogate"}  # of an expensive encoder, what is short
        yield from speeds(settings, network(name, settings), few if name in HEAVY else needed, most)


def error_rows(errors: Errors, labels: dict[Key, dict[str, str]]) -> Iterator[Row]:
    """Yield the relative RMSE, one row a distribution, estimator and number of masks."""
    for key, by_size in errors.items():
        for n, squared in by_size.items():
            values = tuple(float(np.sqrt(v)) if v > 0 else float("nan") for v in squared)
            reason = "" if all(v > 0 for v in squared) else "some errors are below the reference's own noise"
            yield Row(SECTION, ERROR, labels[key] | {"N": str(n)}, values, reason=reason)


def study(settings: Settings, loaded: Network, clips: Tensor) -> tuple[Errors, dict[Key, tuple[str, str]]]:
    """Return relative squared errors, one a clip, and why some arms have none.

    The arms are relax_xai's own map and every strategy and estimator.
    """
    plan: list[tuple[Key, object]] = [((OFFICIAL, "relax_xai"), official_package.OfficialMasks())]
    plan += [((masks, estimator), masks) for masks in settings.masks for estimator in settings.estimators]
    errors: Errors = {}
    refused: dict[Key, tuple[str, str]] = {}
    with tqdm(total=len(plan) * len(clips), desc="error study", unit="map", leave=False) as bar:
        for clip in clips:
            converged: dict[str, Converged] = {}
            for key, masks in plan:
                bar.update()
                if key in refused:
                    continue
                try:
                    maps = mapper(loaded, clip[None], masks, "weighted" if key[0] == OFFICIAL else key[1])
                except NotAvailableError as missing:
                    refused[key] = SKIPPED, str(missing)
                    continue
                except Exception as error:  # a cell that fails is a row with its reason
                    refused[key] = FAILED, f"{type(error).__name__}: {error}"
                    continue
                if key[0] not in converged:
                    converged[key[0]] = reference(settings, loaded, clip[None], masks)
                for n in settings.error_sizes:
                    seeds = range(ESTIMATE_SEED, ESTIMATE_SEED + settings.error_repeats)
                    squared = relative_squared_errors([maps(n, seed) for seed in seeds], converged[key[0]])
                    errors.setdefault(key, {}).setdefault(n, []).append(squared)
    return errors, refused


def mapper(loaded: Network, x: Tensor, masks: object, estimator: str) -> Callable[[int, int], Tensor]:
    """Return a function from number of masks and seed to the map of one clip."""
    relax = explainer(loaded.model, masks, estimator)

    def of(n_samples: int, seed: int) -> Tensor:
        return torch.as_tensor(relax.attribute(x, n_samples=n_samples, seed=seed))

    return of


def reference(settings: Settings, loaded: Network, x: Tensor, masks: object) -> Converged:
    """Make the converged map from long runs of `weighted`, whose scatter tells its noise.

    The runs are independent.
    """
    maps = mapper(loaded, x, masks, "weighted")
    size = max(2, settings.reference_masks // REFERENCE_RUNS)
    return Converged.from_runs([maps(size, REFERENCE_SEED + run) for run in range(REFERENCE_RUNS)])


def speeds(settings: Settings, loaded: Network, needed: dict[Key, int], most: int) -> Iterator[Row]:
    """Yield relax_xai's time with `most` masks over ours with the masks needed.

    For heavy encoders it is timed with fewer masks, in proportion.
    """
    x = load_clips(settings, 1)
    precisions = (FLOAT32, BFLOAT16)
    official_masks = official_package.masks_of(min(most, settings.n(loaded.name)))
    arms = [our_arm(loaded, x, key, n, precision) for key, n in needed.items() for precision in precisions]
    middle = len(arms) // 2
    arms.insert(middle, official_arm(loaded, x, official_masks))
    rounds = interleave(arms, settings.rounds(loaded.name), settings.device, f"{SECTION}, {loaded.name}")
    numbers = [n for n in needed.values() for _ in precisions]
    for index, n in zip((i for i in range(len(arms)) if i != middle), numbers, strict=True):
        row = rounds.row(SECTION, SPEED, index, middle, faster=True)  # the base per mask
        details = {"masks": n, "official_masks": most, "timed_official_masks": official_masks, "note": loaded.note}
        base_seconds = tuple(s / official_masks * most for s in row.base_seconds)
        yield replace(row, values=tuple(v * most for v in row.values), base_seconds=base_seconds, details=details)


def our_arm(loaded: Network, x: Tensor, key: Key, n_samples: int, precision: str) -> Arm:
    """Return a whole run of `attribute` with the masks needed."""
    masks, estimator = key
    labels = {"encoder": loaded.name, "masks": masks, "estimator": estimator, "precision": precision}
    run = attribution(loaded.model, x, n_samples, masks, estimator, precision)
    return Arm(labels | {"N": str(n_samples)}, run, aim=aim(loaded.name, masks, estimator, precision))


def aim(encoder: str, masks: str, estimator: str, precision: str) -> Aim | None:
    """Return the aim that the surrogate is hoped to reach."""
    if estimator != "surrogate":
        return None
    if encoder in HEAVY:
        return Aim("at least", 8.0) if precision == BFLOAT16 else None
    if encoder == STUDIED and precision == FLOAT32:
        return Aim("at least", 10.0 if masks in ("time", "frequency") else 4.0)
    return None
