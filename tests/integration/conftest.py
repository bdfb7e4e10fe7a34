"""What these tests run is on Ray."""

import pytest


@pytest.fixture(scope="session")
def small_job(small_job):
    return {**small_job, "execution": "ray"}
