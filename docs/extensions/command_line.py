"""Make the command line's reference, generated/command_line.md, from the typer application."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer
from catalogue.writing import write
from sphinx.application import Sphinx
from typer.cli import get_docs_for_click


def reference() -> str:
    """The whole reference as MyST Markdown, examples as code."""
    from relax_quantus.cli.main import PROGRAM, app

    command = typer.main.get_command(app)
    with typer.Context(command, info_name=PROGRAM) as context:
        text = get_docs_for_click(obj=command, ctx=context, name=PROGRAM)
    text = text.replace("\b\n", "\n")
    for name, sub in command.commands.items():
        said = (sub.help or "").partition("\n")[0]
        text = re.sub(rf"\* `{name}`: .*", f"* [`{name}`](#relax-quantus-{name}): {said}", text)
    text = re.sub(r"\n+Examples:\n((?:  .*\n)+)", fenced, text)
    text = re.sub(r"\n+Exit codes:\n((?:  .*\n)+)", "\n\n**Exit codes**:\n\n```text\n\\1```\n", text)
    text = re.sub(r"^\* `(\w+) <\w+>`", r"* `\1`", re.sub(r"\[default: \((.*)\)\]", r"[default: \1]", text), flags=re.M)
    return text.replace("# `relax-quantus`", "# Command line", 1)


def fenced(examples: re.Match[str]) -> str:
    """Examples as a code block."""
    lines = "\n".join(line[2:] for line in examples[1].splitlines())
    return f"\n\n**Examples**:\n\n```bash\n{lines}\n```\n"


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the page before any page is read."""
    app.connect("config-inited", lambda app, _: write(Path(app.srcdir, "generated/command_line.md"), reference()))
    return {"parallel_read_safe": True}
