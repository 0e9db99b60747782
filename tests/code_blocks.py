"""Code blocks of the documentation, and their run as a reader would."""

import re
import subprocess
from pathlib import Path

DEPLOYMENT = Path(__file__).parent.parent / "docs" / "deployment"


def blocks(page: str, language: str = "bash") -> list[str]:
    """Return the code blocks of a page of docs/deployment/ in a language."""
    return blocks_of(DEPLOYMENT / page, language)


def blocks_of(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(script: str, folder: Path) -> None:
    """Run commands in a folder with bash, which ends at the first failure."""
    bash = ["bash", "-euo", "pipefail", "-c", script]
    result = subprocess.run(bash, cwd=folder, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
