"""Concurrency primitives for asyncio, independent of any feature."""
