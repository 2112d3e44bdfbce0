"""What proves that something was unpickled: it leaves a file."""

from pathlib import Path

import pytest


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(name="ran")
def file_that_tells(tmp_path):
    """The file that there is once code ran; the test ends with a look at it."""
    yield tmp_path / "ran"
    assert not (tmp_path / "ran").exists()
