"""Transport of a response whose client reads slowly."""

import asyncio
from typing import Any


class Pipe:
    """Transport whose client reads as much as the test sets."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.aborted = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        return self.left

    def get_extra_info(self, _name: str) -> Any:
        return None

    def abort(self) -> None:
        self.aborted.set()
