"""``python -m spawner`` is trac-spawn."""

from spawner.cli import main

main()
