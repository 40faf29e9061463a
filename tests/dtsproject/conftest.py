import shutil
import tempfile
from pathlib import Path

import pytest

from dtsproject.embedded import Cluster


@pytest.fixture
def folder():
    """A folder that root's other account can enter, unlike `tmp_path`."""
    path = Path(tempfile.mkdtemp(prefix="dts-embedded-"))
    path.chmod(0o711)
    yield path
    for data in path.rglob("PG_VERSION"):
        if data.parent.name == "data":
            Cluster(data.parents[1]).stop()
    shutil.rmtree(path)


@pytest.fixture
def cluster(folder):
    return Cluster(folder / "postgres")
