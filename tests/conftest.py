"""What all tests share: one Ray cluster, the shared folder beside the checkout, tiny models."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.pop("RAY_ADDRESS", None)  # a cluster of the developer's
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S"] = "300"
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def pytest_configure(config: pytest.Config) -> None:
    """Hide a GPU from all tests but those that need one: the oracles compute on the CPU."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two lanes: of what starts Ray or other processes two files run at a time, not one per CPU."""
    for item in items:
        in_lane = {"integration", "jobs"} & set(item.path.parts)
        if in_lane or "ray_local" in getattr(item, "fixturenames", ()):
            item.add_marker("ray")


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A local cluster of four logical CPUs, so that pools of two leave room on a small machine."""
    from engine.config import RayConfig
    from engine.runtime.ray_cluster import connected

    with connected(RayConfig(num_cpus=4, object_store_mib=300)):
        yield


@pytest.fixture(scope="session")
def small_job(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings that run the whole pipeline on a small corpus with tiny models in seconds."""
    from tests.small_job import make_small_job

    return make_small_job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="session")
def hostile() -> Path:
    """The folder of hostile inputs beside the checkout."""
    folder = SHARED / "hostile"
    if not folder.is_dir():
        pytest.skip("no ../shared/hostile beside this checkout")
    return folder
