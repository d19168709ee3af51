"""The files of the page for people; see spawner/dashboard.py."""
