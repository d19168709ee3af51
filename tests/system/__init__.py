"""Tests with real processes, real web servers and a real Trac."""
