"""Concurrency primitives for asyncio; they know no feature."""
