"""The worker side: FastCGI requests in, WSGI answers out. Imports nothing from spawner."""
