"""What keeps a peer, or the whole run, from being measured."""

from __future__ import annotations


class BenchmarkError(Exception):
    """Its words are for the person at the terminal: what went wrong and what to do."""
