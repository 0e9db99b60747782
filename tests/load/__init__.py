"""Benchmarks to run by hand; not part of the test run."""
