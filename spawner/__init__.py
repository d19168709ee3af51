"""The master side of trac-spawn: binds, decides, forks and reaps; runs no application code."""

__version__ = "0.1.0.dev0"

#: In the environment of a program that is to take the place of a running one. "CHANNEL:STDERR", two
#: descriptors: that of the channel, and the log's place. Stderr itself goes to the old master until
#: the new one can speak for itself, lest a failure is seen by nobody.
HANDOVER = "TRACSPAWN_HANDOVER"
