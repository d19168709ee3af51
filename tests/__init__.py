"""The tests of trac-spawn: ``unit`` starts no process, ``system`` starts everything."""
