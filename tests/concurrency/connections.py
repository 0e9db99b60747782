"""Source of values for tests of loaders: connections to wait for, and reads that can be held."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager


class Source:
    """Source whose connections and answers can be held back.

    Attributes:
        value: what is read now.
        reads: the questions of each read.
        connecting: connects so far.
        connection: set while connections come free.
        answer: set while answers arrive.
        failures: errors of the next reads.
    """

    def __init__(self, answer_of: Callable[[int], int] = lambda question: 10 * question) -> None:
        self.value = 0
        self.reads: list[list[int]] = []
        self.connecting = 0
        self.connection = asyncio.Event()
        self.answer = asyncio.Event()
        self.connection.set()
        self.answer.set()
        self.failures: Iterator[Exception] = iter(())
        self._answer_of = answer_of

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[None]:
        self.connecting += 1
        await self.connection.wait()
        yield

    async def read(self, _: None, questions: Sequence[int]) -> list[int]:
        self.reads.append(list(questions))
        answers = [self._answer_of(question) for question in questions]
        await self.answer.wait()
        for failure in self.failures:
            raise failure
        return answers

    async def read_value(self, _: None) -> int:
        self.reads.append([])
        value = self.value
        await self.answer.wait()
        for failure in self.failures:
            raise failure
        return value


async def turns() -> None:
    """Let the tasks that are ready run."""
    for _ in range(8):
        await asyncio.sleep(0)
