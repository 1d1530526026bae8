"""TFLite files (extra ``litert``), run by LiteRT or torch: a path enters, a network leaves.

LiteRT is the faster. A tensor inside of the graph is made an output of a copy in memory, so that no
delegate frees it. Where LiteRT cannot run the graph or give the tensor, torch runs it
(`relax_quantus.encoders.adapters.tflite_in_torch`), which a warning says; what torch gives is
compared with LiteRT at load wherever both run.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from relax_quantus.audio.reading import quiet_stderr
from relax_quantus.base import checks
from relax_quantus.base.checks import one_line, shown
from relax_quantus.encoders.adapters.file_network import (
    FileNetwork,
    FileSettings,
    TensorNote,
    choose_outputs,
    open_file,
    read_labels,
    refuse_other_than_one_float,
)
from relax_quantus.encoders.adapters.flatbuffer import Graph, read_bytes, read_graph, with_outputs
from relax_quantus.encoders.adapters.tflite_in_torch import GraphModule
from relax_quantus.encoders.contract import weights_digest
from relax_quantus.errors import EncoderError, MissingDependencyError, WeightsError

RUNTIMES = ("litert", "torch")
AGREEMENT = 2e-3
"""Largest difference between torch and LiteRT, as a share of an output's largest value."""
_PROBE_SAMPLES = 16_000
"""Samples of the probe for a network of any length."""


class LiteRTNetwork(FileNetwork):
    """A network that LiteRT runs on the CPU; made by `load_tflite`.

    Copies share one interpreter, which runs one call at a time; a pickle holds the path and opens
    the file again. There are no gradients.
    """

    def _open(self, content: bytes | None = None) -> None:
        if content is None:
            content = read_bytes(open_file(self.path, self.digest)[0])
        self._interpreter = Interpreter(self.path, content, [tensor.index for tensor in self.chosen.values()])

    def tensors(self, x: Tensor, wanted: Sequence[TensorNote]) -> list[Tensor]:
        """Run the interpreter once; gradients end here."""
        values = np.ascontiguousarray(x.detach().cpu().numpy(), np.float32)
        found = self._interpreter.run(values, [tensor.index for tensor in wanted])
        return [torch.from_numpy(part).to(x.device) for part in found]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_interpreter"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._open()

    def __deepcopy__(self, memo: dict[int, Any]) -> LiteRTNetwork:
        made = type(self).__new__(type(self))
        vars(made).update(
            {key: value.copy() if isinstance(value, dict) else value for key, value in vars(self).items()}
        )
        return made


class TorchGraphNetwork(FileNetwork):
    """A network from a TFLite file that torch runs: with gradients, on any device."""

    def _open(self, graph: Graph) -> None:
        self.graph = GraphModule(graph, self.path).eval()
        self._file_weights = weights_digest(self)

    def tensors(self, x: Tensor, wanted: Sequence[TensorNote]) -> list[Tensor]:
        """Run the graph as far as the tensors `wanted` need it."""
        return self.graph(x, [tensor.index for tensor in wanted])  # type: ignore[no-any-return]


class Interpreter:
    """LiteRT's interpreter of one file, which gives `outputs` beside or instead of the file's own.

    Parameters
    ----------
    path
        The file, for messages.
    content
        Its bytes.
    outputs
        Indices of tensors; none takes the file's own.

    Raises
    ------
    WeightsError
        If LiteRT refuses the file.
    """

    def __init__(self, path: Path, content: bytes, outputs: Sequence[int] = ()) -> None:
        self._path = path
        self._one_at_a_time = threading.Lock()
        # the interpreter does not keep it
        self._content = with_outputs(content, outputs) if outputs else content
        try:
            with quiet_stderr:  # it writes notes on its delegates there, below Python
                self._litert = _litert()(model_content=self._content, num_threads=torch.get_num_threads())
            self._input = int(self._litert.get_input_details()[0]["index"])
        except (RuntimeError, ValueError) as error:
            text = checks.message(
                shown(path), "a TFLite file that LiteRT runs", one_line(str(error)), "use runtime=torch"
            )
            raise WeightsError(text) from error
        self._shape: tuple[int, ...] = ()

    def run(self, x: npt.NDArray[Any], wanted: Sequence[int]) -> list[npt.NDArray[Any]]:
        """Run on one input and return copies of the tensors `wanted`."""
        with self._one_at_a_time:
            try:
                if self._shape != x.shape:
                    self._shape = ()
                    self._litert.resize_tensor_input(self._input, list(x.shape))
                    with quiet_stderr:
                        self._litert.allocate_tensors()
                    self._shape = x.shape
                self._litert.set_tensor(self._input, x)
                self._litert.invoke()
                return [np.array(self._litert.get_tensor(index)) for index in wanted]
            except (RuntimeError, ValueError) as error:
                rule = f"{shown(self._path)} to run in LiteRT on an input of {x.shape}"
                text = checks.message("encoder", rule, one_line(str(error)), "use runtime=torch")
                raise EncoderError(text) from error


def load_tflite(
    path: Path, settings: FileSettings, sha256: str | None = None, runtime: str | None = None
) -> LiteRTNetwork | TorchGraphNetwork:
    """Load a TFLite file.

    Parameters
    ----------
    path
        The file.
    settings
        What it does not say; ``output`` may be any tensor inside of it, by name or by its index.
    sha256
        Its SHA-256.
    runtime
        ``"litert"``, ``"torch"`` (gradients and GPUs), or None: LiteRT, and torch where LiteRT
        cannot, with a warning.

    Raises
    ------
    MissingDependencyError
        If LiteRT is not installed.
    WeightsError
        If the file is missing, damaged or another one, or LiteRT refuses it.
    EncoderError
        If it wants more than one tensor of floats, torch does not know its operations, or torch and
        LiteRT differ.
    ArgumentError
        If settings are missing or do not fit.
    """
    if runtime is not None and runtime not in RUNTIMES:
        checks.refuse("runtime", "'litert' or 'torch'", repr(runtime), "leave it out: LiteRT, where it can")
    path, digest = open_file(path, sha256)
    content = read_bytes(path)
    graph = read_graph(path, content)
    taken = refuse_other_than_one_float(path, [note(graph, index) for index in graph.inputs])
    labels = read_labels(settings.labels)
    given = [note(graph, index) for index in graph.outputs]
    inner = [note(graph, i) for o in graph.operations for i in o.outputs if i not in graph.outputs]
    chosen = choose_outputs(path, given, inner, settings, labels)
    facts = {"labels": labels}
    reason: Exception | None = None
    if runtime != "torch":
        network = LiteRTNetwork(path, taken, chosen, settings, facts, digest)
        try:
            network._open(content)
            network.tensors(_probe(network, taken), list(chosen.values()))
            return network
        except (WeightsError, EncoderError) as error:
            if runtime == "litert":
                raise
            reason = error
    in_torch = TorchGraphNetwork(path, taken, chosen, settings, facts, digest)
    in_torch._open(graph)
    difference = _difference(in_torch, taken, content, graph)
    if reason is not None:
        compared = "LiteRT runs no part of it to compare with"
        if not math.isnan(difference):
            compared = f"outputs that LiteRT gives, too, differ by {difference:.1g} of their largest value"
        warnings.warn(f"{shown(path)} runs in torch, as LiteRT cannot ({reason}); {compared}.", stacklevel=2)
    return in_torch


def _difference(network: TorchGraphNetwork, taken: TensorNote, content: bytes, graph: Graph) -> float:
    """Return torch's largest difference to LiteRT on a probe, as a share; NaN where LiteRT cannot.

    What was chosen is compared if LiteRT gives it, else the file's own outputs.
    """
    probe = _probe(network, taken)
    try:
        with torch.no_grad():
            network.graph(probe, [tensor.index for tensor in network.chosen.values()])
    except Exception as error:  # of whatever stands in the graph
        rule = f"the graph of {shown(network.path)} to run in torch on an input of {tuple(probe.shape)}"
        got = one_line(f"{type(error).__name__}: {error}")[:200]
        raise EncoderError(checks.message("encoder", rule, got, "use runtime=litert")) from error
    for indices in ([tensor.index for tensor in network.chosen.values()], list(graph.outputs)):
        try:
            wanted = Interpreter(network.path, content, indices).run(probe.numpy(), indices)
        except (WeightsError, EncoderError):
            continue
        with torch.no_grad():
            found = [part.numpy() for part in network.graph(probe, indices)]
        difference = 0.0
        for index, have, want in zip(indices, found, wanted, strict=True):
            share = (
                float(np.abs(have - want).max() / max(np.abs(want).max(), 1e-6)) if have.shape == want.shape else np.inf
            )
            difference = max(difference, share)
            if not share <= AGREEMENT:
                rule = (
                    f"torch and LiteRT to agree within {AGREEMENT:g} on {note(graph, index)} of {shown(network.path)}"
                )
                checks.refuse("runtime", rule, f"a difference of {share:.2g}", "use runtime=litert", EncoderError)
        return difference
    return math.nan


def _probe(network: FileNetwork, taken: TensorNote) -> Tensor:
    """Return decaying noise of the shape that the network takes, the same in every process."""
    free = [network.fixed_batch or 1, network.example_samples or _PROBE_SAMPLES]
    axes = taken.shape or ()
    if len(axes) == 1:
        free = free[1:]
    shape = [axis or (free[min(i, len(free) - 1)] if i < 2 or len(axes) == 3 else 1) for i, axis in enumerate(axes)]
    noise = np.random.default_rng(0).standard_normal(math.prod(shape)) * np.geomspace(0.3, 0.003, math.prod(shape))
    return torch.from_numpy(noise.astype(np.float32).reshape(shape))


def note(graph: Graph, index: int) -> TensorNote:
    """Describe a tensor of the graph."""
    tensor = graph.tensors[index]
    return TensorNote(tensor.name, index, tensor.shape, tensor.dtype)


def _litert() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter as LiteRT
    except (ImportError, OSError) as error:
        remedy = "run pip install 'relax-quantus[litert]'"
        text = checks.message("a TFLite file", "LiteRT", one_line(str(error)), remedy)
        raise MissingDependencyError(text) from error
    return LiteRT
