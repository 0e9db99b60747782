"""The compose files, parsed as Compose does but without interpolation."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILES = (ROOT / "docker-compose.yml", ROOT / "docker" / "tls.yml")


def stack() -> dict[str, Any]:
    """Return the parsed compose file."""
    read: dict[str, Any] = yaml.safe_load(FILES[0].read_text(encoding="utf-8"))
    return read


def variables() -> set[str]:
    """Return the variables that the compose files interpolate."""
    texts = [file.read_text(encoding="utf-8") for file in FILES]
    return {name for text in texts for name in re.findall(r"\$\{(\w+)", text)}


def default(value: str) -> str:
    """Replace each ``${NAME:-default}`` by its default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def seconds(text: str) -> int:
    """Parse a duration in seconds, such as ``40s``."""
    assert re.fullmatch(r"\d+s", text), text
    return int(text[:-1])
