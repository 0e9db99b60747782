"""The programs of the client's documentation."""

from pathlib import Path

from tests.code_blocks import blocks_of


def examples() -> list[str]:
    """Return the programs in docs/client.md."""
    return blocks_of(Path(__file__).parents[2] / "docs" / "client.md", "python")
