"""What the command line's messages call things: by the option that was typed."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer.main
from command_line import call, refused

from relax_quantus.cli import main as cli
from relax_quantus.cli.console import OPTIONS, spoken


def options_of_all_commands() -> set[str]:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    return {name for command in commands.values() for p in command.params for name in p.opts}


@pytest.mark.parametrize("argument", OPTIONS)
def test_every_library_name_is_said_as_an_option_that_exists(argument: str) -> None:
    option = OPTIONS[argument]
    assert option.split()[0] in options_of_all_commands()
    assert spoken(f"{argument}: expected x, got y; z.") == f"{option}: expected x, got y; z."
    assert spoken(f"{argument}=a/b.pth: expected x.") == f"{option} a/b.pth: expected x."
    assert spoken(f"{argument}.wav: expected x.") == f"{argument}.wav: expected x."
    assert spoken(f"{argument} expected: x") == f"{argument} expected: x"


def test_every_option_that_the_library_knows_by_another_name_is_in_the_table() -> None:
    options = {name.removeprefix("--").replace("-", "_") for name in options_of_all_commands()}
    not_the_library_s = {
        "out",
        "head",
        "corpus",
        "debug",
        "dry_run",
        "version",
        "baseline",
        "_q",
        "quiet",
        "json",
        "clips",
        "CLIP",
        "FOLDER",
        "KIND",
        "config",
        "annotations",
        "figures",
        "hop",
        "html",
        "results",
        "sounds",
    }
    missing = {
        o for o in options if o not in OPTIONS and o not in not_the_library_s and o not in ("folder", "what", "file")
    }
    assert not missing


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("explain", ["--masks", "tiem"], "--masks: expected the name of a mask strategy"),
        ("explain", ["--baseline", "silense"], "--baseline: expected the name of a fill"),
        ("explain", ["--encoder", "vgish"], "--encoder: expected the name of an encoder"),
        ("explain", ["--similarity", "cosin"], "--similarity: expected the name of a similarity"),
        ("explain", ["--domain", "lin"], "--domain: expected 'log' or 'amplitude'"),
        ("explain", ["--n-samples", "0"], "--n-samples: expected an integer"),
        ("bench", ["--n-samples", "0"], "--n-samples: expected an integer"),
        ("bench", ["--max-clips", "0"], "--max-clips: expected an integer"),
        ("bench", ["--seed", "-1"], "--seed: expected an integer"),
        ("bench", ["--preset", "quik"], "--preset: expected the name of a preset"),
        ("bench", ["--domain", "lin"], "--domain: expected 'log' or 'amplitude'"),
        ("fit", ["--seed", "-1"], "--seed: expected an integer"),
        ("fit", ["--fine-tune", "-1"], "--fine-tune: expected an integer"),
    ],
)
def test_messages_name_what_was_typed(
    command: str, arguments: list[str], said: str, clip: Path, tmp_path: Path
) -> None:
    place = {"explain": [clip], "fit": [tmp_path], "bench": []}[command]
    refused(call(command, *place, "--out", tmp_path / "o", *arguments), f"error: {said}")
