"""The master side of trac-spawn: it binds, decides, forks and reaps, and never runs application code."""

__version__ = "0.1.0.dev0"
