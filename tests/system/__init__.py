"""Tests with real processes, real web servers and a real Trac."""

import pytest

# So that a failing assertion there shows its values, as in a test.
pytest.register_assert_rewrite("tests.system.scenarios")
