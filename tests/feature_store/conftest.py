import pytest

from feature_store.stores import fill, manifest


@pytest.fixture
def store(tmp_path):
    return fill(tmp_path / "store", manifest())
