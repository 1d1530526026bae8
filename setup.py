"""Make README the description on a package index page, with links that work there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>(?!https?:|#)[^)]+)\)")


def description(readme: str, repository: str | None) -> str:
    """Lead relative links of `readme` into `repository`; without one, name files, omit pictures."""

    def absolute(link: re.Match[str]) -> str:
        picture, text, target = link["picture"], link["text"], link["target"]
        if repository is not None:
            return f"{picture}[{text}]({repository.rstrip('/')}/{'raw' if picture else 'blob'}/HEAD/{target})"
        return "" if picture else f"{text} (`{target}`)"

    return LINK.sub(absolute, readme)


def main() -> None:
    """Build, with everything else as pyproject.toml says."""
    from setuptools import setup

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    setup(
        long_description=description(readme, project.get("urls", {}).get("Repository")),
        long_description_content_type="text/markdown",
    )


if __name__ == "__main__":
    main()
