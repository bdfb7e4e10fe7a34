"""What all tests share: one Ray cluster, the shared folder beside the checkout, tiny models."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S"] = "120"
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def pytest_configure(config: pytest.Config) -> None:
    """Hide a GPU from all tests but those that need one: the oracles compute on the CPU."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two lanes: what starts Ray or other processes has the machine for itself."""
    for item in items:
        in_lane = {"integration", "jobs"} & set(item.path.parts)
        if in_lane or "ray_local" in getattr(item, "fixturenames", ()):
            item.add_marker("ray")


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """A local cluster of four logical CPUs, so that pools of two leave room on a small machine."""
    import ray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            object_store_memory=300 * 2**20,
            log_to_driver=False,
        )
    yield
    ray.shutdown()


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
