"""All metadata lives in setup.cfg; this stub lets older tools build the package."""

from setuptools import setup

setup()
