"""``trac-spawnctl doctor``: look at a whole site, from the socket to what visitors see."""
