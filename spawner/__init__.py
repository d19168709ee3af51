"""The master side of trac-spawn: binds, decides, forks and reaps; runs no application code."""

__version__ = "0.1.0.dev0"
