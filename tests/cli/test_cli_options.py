"""Options are declared once, beside their command: what ``--help``
shows is what the command is given and what the library does by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from relax_quantus.benchmark.config import BenchmarkConfig
from relax_quantus.cli import main as cli
from relax_quantus.cli.bench import OUT, BenchRequest, configured
from relax_quantus.cli.explain import ExplainRequest
from relax_quantus.cli.main import declare, options
from relax_quantus.cli.options import EncoderOptions, MessageOptions, NetworkOptions
from relax_quantus.relax import estimators

COMMANDS = sorted(cli.COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained_once(name: str) -> None:
    said = " ".join(CliRunner().invoke(cli.app, [name, "--help"], terminal_width=200).stdout.split())
    for option, _, annotation in options(cli.COMMANDS[name]):
        (info,) = annotation.__metadata__
        assert said.count(" ".join(info.help.split())) == 1, option.name


def test_a_request_holds_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(ExplainRequest, "run", lambda self: (asked.append(self), 7)[1])
    arguments = (
        "explain a.wav b --out c --masks time --masks random --weights w --front-end log_mel --tolerance .5 --html"
    )
    assert CliRunner().invoke(cli.app, arguments.split()).exit_code == 7
    assert asked == [
        ExplainRequest(
            clips=[Path("a.wav"), Path("b")],
            out=Path("c"),
            masks=["time", "random"],
            encoder=EncoderOptions(weights=Path("w"), front_end="log_mel"),
            tolerance=0.5,
            html=True,
        )
    ]


@dataclass(frozen=True)
class Ask:
    """Ask how large."""

    size: Annotated[int, typer.Option(help="In all.")]
    encoder: NetworkOptions = field(default_factory=NetworkOptions)
    messages: MessageOptions = field(default_factory=MessageOptions)

    def run(self) -> int:
        return self.size


def test_a_command_is_made_of_a_dataclass() -> None:
    app = typer.Typer(rich_markup_mode=None)
    declare(app, "ask", Ask)
    said = CliRunner().invoke(app, ["--help"]).stdout
    assert "Ask how large." in said
    assert "--sha256" in said
    assert CliRunner().invoke(app, []).exit_code == 2
    assert CliRunner().invoke(app, ["--size", "3"], standalone_mode=False).return_value == 3


def test_shown_defaults_are_the_librarys() -> None:
    assert ExplainRequest.estimator == estimators.DEFAULT
    own = BenchmarkConfig()
    for option, _, annotation in options(BenchRequest):
        (info,) = annotation.__metadata__
        if option.name == "out":
            assert info.show_default == OUT
        elif getattr(own, option.name, None) is not None and isinstance(info.show_default, str):
            assert info.show_default in (str(getattr(own, option.name)), "the preset's"), option.name
    assert NetworkOptions().encoder == own.encoder


def test_a_benchmark_is_configured_by_what_was_given_alone(tmp_path: Path) -> None:
    config = tmp_path / "grid.toml"
    config.write_text(
        'strict = true\nseeds = [3, 4]\ndatasets = ["synthetic"]\nencoders = ["vggish_mini"]\nmax_clips = 5\n'
    )
    assert configured(BenchRequest()) == BenchmarkConfig(out=OUT)
    as_filed = configured(BenchRequest(config=config, n_samples=7))
    assert (as_filed.strict, as_filed.seeds, as_filed.datasets, as_filed.n_samples) == (True, (3, 4), ("synthetic",), 7)
    short = configured(BenchRequest(config, seed=0, data=tmp_path, encoder=NetworkOptions("vggish", Path("w"))))
    assert (short.seeds, short.seed, short.datasets, short.data) == ((), 0, (), str(tmp_path))
    assert (short.encoders, short.encoder, short.max_clips) == ((), "vggish:weights=w", 5)


def test_messages_call_every_option_by_its_name() -> None:
    from relax_quantus.cli.console import OPTIONS

    known = {
        f"--{option.name.replace('_', '-')}" for request in cli.COMMANDS.values() for option, _, _ in options(request)
    }
    assert {option.partition(" ")[0] for option in OPTIONS.values()} <= known
