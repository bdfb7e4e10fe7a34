"""The objectives are submodlib's: the same value for the same subset of a random dense kernel."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine.selection.select import select
from tests.selection.kernels import random_kernel, symmetric_kernel

with warnings.catch_warnings():  # of its own docstrings
    warnings.simplefilter("ignore")
    submodlib = pytest.importorskip(
        "submodlib", reason="submodlib-py is not installed; it is needed for this comparison alone"
    )

SIZE = 60


def facility_location(kernel: np.ndarray, query: np.ndarray, owned: np.ndarray) -> Any:
    return submodlib.FacilityLocationFunction(n=SIZE, mode="dense", sijs=kernel, separate_rep=False)


def mutual_information_1(kernel: np.ndarray, query: np.ndarray, owned: np.ndarray) -> Any:
    return submodlib.FacilityLocationMutualInformationFunction(
        n=SIZE, num_queries=4, data_sijs=kernel, query_sijs=query, magnificationEta=0.7
    )


def mutual_information_2(kernel: np.ndarray, query: np.ndarray, owned: np.ndarray) -> Any:
    return submodlib.FacilityLocationVariantMutualInformationFunction(
        n=SIZE, num_queries=4, query_sijs=query, queryDiversityEta=0.7
    )


def conditional_gain(kernel: np.ndarray, query: np.ndarray, owned: np.ndarray) -> Any:
    return submodlib.FacilityLocationConditionalGainFunction(
        n=SIZE, num_privates=3, data_sijs=kernel, private_sijs=owned, privacyHardness=0.7
    )


def graph_cut(kernel: np.ndarray, query: np.ndarray, owned: np.ndarray) -> Any:
    return submodlib.GraphCutFunction(n=SIZE, mode="dense", lambdaVal=0.4, ggsijs=kernel)


def graph_cut_mutual_information(kernel: np.ndarray, query: np.ndarray, owned: np.ndarray) -> Any:
    return submodlib.GraphCutMutualInformationFunction(n=SIZE, num_queries=4, query_sijs=query)


@pytest.mark.parametrize(
    ("objective", "theirs", "settings"),
    [
        ("facility_location", facility_location, {}),
        ("facility_location_mutual_information", mutual_information_1, {"form": 1, "eta": 0.7}),
        ("facility_location_mutual_information", mutual_information_2, {"eta": 0.7}),
        ("facility_location_conditional_gain", conditional_gain, {"nu": 0.7}),
        ("graph_cut", graph_cut, {"trade_off": 0.4}),
        ("graph_cut_mutual_information", graph_cut_mutual_information, {"trade_off": 0.5}),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_the_same_value_and_no_worse_greedy(
    objective: str, theirs: Callable[..., Any], settings: dict[str, Any], seed: int
) -> None:
    kernel = symmetric_kernel(SIZE, seed)
    query, owned = random_kernel(SIZE, 4, seed + 10), random_kernel(SIZE, 3, seed + 20)
    with warnings.catch_warnings():  # it imports from old places of scipy
        warnings.simplefilter("ignore")
        function = theirs(kernel, query, owned)
    if settings.get("form") == 1:
        settings = {**settings, "query": query}
    elif objective.endswith("mutual_information"):
        kernel = query.T
    elif objective == "facility_location_conditional_gain":
        settings = {**settings, "owned": owned}
    mine = select(kernel, 15, objective, seed=seed, **settings)
    assert mine.objective_value == pytest.approx(
        function.evaluate(set(mine.ranking.tolist())), rel=1e-5
    )
    greedy = function.maximize(budget=15, optimizer="NaiveGreedy", show_progress=False)
    assert mine.objective_value == pytest.approx(sum(gain for _, gain in greedy), rel=1e-5)
