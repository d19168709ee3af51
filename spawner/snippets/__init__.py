"""Configuration for web servers, init systems and others, made for a pool: ``trac-spawnctl snippet``.

Each text is a template beside this file.
"""
