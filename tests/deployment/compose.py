"""What the compose files say, read as Compose does but with nothing filled in."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILES = (ROOT / "docker-compose.yml", ROOT / "docker" / "tls.yml")


def stack() -> dict[str, Any]:
    """The compose file."""
    read: dict[str, Any] = yaml.safe_load(FILES[0].read_text(encoding="utf-8"))
    return read


def variables() -> set[str]:
    """What the compose files want to be told."""
    texts = [file.read_text(encoding="utf-8") for file in FILES]
    return {name for text in texts for name in re.findall(r"\$\{(\w+)", text)}


def default(value: str) -> str:
    """What stands for ``${NAME:-default}`` if nobody says anything."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def seconds(text: str) -> int:
    """A duration: ``40s``."""
    assert re.fullmatch(r"\d+s", text), text
    return int(text[:-1])
