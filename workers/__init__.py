"""The worker side of trac-spawn: FastCGI requests in, WSGI answers out. Imports nothing from spawner."""
