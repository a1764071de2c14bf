"""What importing the package costs whoever writes a task module."""

import subprocess
import sys

import pytest

import asyncproc


def test_what_is_public_is_there() -> None:
    assert {name for name in asyncproc.__all__ if not hasattr(asyncproc, name)} == set()


@pytest.mark.parametrize("module", ["asyncproc", "asyncproc.processable", "asyncproc.tasks", "asyncproc.registry"])
def test_task_modules_pull_in_neither_ray_nor_a_web_framework_nor_a_driver(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(sys.modules.keys() & {{'ray', 'fastapi', 'psycopg', 'starlette'}}))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []
