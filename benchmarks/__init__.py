"""trac-spawn side by side with other ways to serve Trac: ``python -m benchmarks``."""
