"""Benchmarks that users can run; what they gave is told in ``docs/benchmarks.md``."""
