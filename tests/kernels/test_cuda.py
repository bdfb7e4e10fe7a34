"""The kernels for a CUDA device: from the same units the very bits of the numba kernels.

All but the last test run without a device, through the plain torch path; the Triton kernel runs
in triton's interpreter where triton is installed.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import EngineError
from engine.kernels import cuda
from engine.kernels.cuda import (
    means_cuda,
    pair_sums,
    pairwise_block_cuda,
    top_cuda,
    units_on_device,
)
from engine.kernels.means import mean_over
from engine.kernels.pairwise import pairwise_block
from engine.kernels.top import RunningTop
from engine.kernels.units import TILE, Units, norm_bound
from engine.network.influence_network import InfluenceNetwork

ROOT = Path(__file__).resolve().parents[2]
DIM = 12
INT32 = np.iinfo(np.int32)


def embeddings_of(num_rows, seed=0):
    rows = np.random.default_rng(seed).standard_normal((num_rows, DIM), dtype=np.float32)
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def form_of(*embeddings, hidden=9):
    generator = torch.Generator().manual_seed(3)
    network = InfluenceNetwork(DIM, (hidden,), main_effects=True, generator=generator)
    torch.nn.init.normal_(network.main.weight, generator=generator)
    network.label_mean.fill_(0.3)
    return network.factorise().fixed_point(norm_bound(*(e.cpu().numpy() for e in embeddings)))


def problem(num_candidates, num_targets):
    candidates, targets = embeddings_of(num_candidates, 1), embeddings_of(num_targets, 2)
    return form_of(candidates, targets), candidates, targets


def tied_problem(num_candidates, num_targets):
    """Few different candidates, so that most of a target's best tie."""
    form, candidates, targets = problem(num_candidates, num_targets)
    return form, candidates[torch.arange(num_candidates) % 5], targets


def host_units(form, side, embeddings):
    """What `units_on_device` gave, in tiles: the form that the numba kernels read."""
    rows = units_on_device(side, embeddings).cpu().numpy()
    tiles = np.zeros((-(-len(rows) // TILE) * TILE, rows.shape[1]), np.int32)
    tiles[: len(rows)] = rows
    tiles = np.ascontiguousarray(tiles.reshape(-1, TILE, rows.shape[1]).transpose(0, 2, 1))
    return Units(tiles, len(rows), form.num_positive, form.step)


def host_sides(form, candidates, targets):
    return (
        host_units(form, form.candidates, candidates),
        host_units(form, form.targets, targets),
    )


def assert_same(actual, expected):
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert actual.tobytes() == expected.tobytes()


def assert_same_top(top, form, candidates, targets, k):
    rows, columns = host_sides(form, candidates, targets)
    best = RunningTop(columns, k)
    best.offer(rows)
    assert_same(top.ids, best.top().ids)
    assert_same(top.influence, best.top().influence)


def assert_units_close(form, side, embeddings, of_host):
    """No further apart than one rounding: both are float64 products."""
    units = units_on_device(side, embeddings).cpu().numpy()
    absent = np.flatnonzero(side.bias == INT32.min)
    assert len(absent) == 1
    assert (units[:, absent] == INT32.min).all()
    assert (np.abs(units - of_host.rows().astype(np.int64)) <= 1).all()


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(cuda, "BLOCK_BYTES", 2000)  # a tile of rows
    monkeypatch.setattr(cuda, "TOP_TARGETS", 7)


def test_units_are_those_of_the_form_up_to_a_rounding():
    form, candidates, targets = problem(1500, 70)
    assert_units_close(form, form.candidates, candidates, form.of_candidates(candidates.numpy()))
    assert_units_close(form, form.targets, targets, form.of_targets(targets.numpy()))


def test_units_of_a_row_do_not_depend_on_the_number_of_rows(monkeypatch):
    monkeypatch.setattr(cuda, "PRODUCT_ROWS", 32)
    form, candidates, _ = problem(100, 1)
    whole = units_on_device(form.candidates, candidates)
    assert whole.dtype == torch.int32
    assert torch.equal(units_on_device(form.candidates, candidates[:70]), whole[:70])
    assert units_on_device(form.candidates, candidates[:0]).shape == (0, whole.shape[1])
    strided = candidates.repeat(1, 2)[:, DIM:].requires_grad_()
    assert torch.equal(units_on_device(form.candidates, strided), whole)


SHAPES = [(1, 1), (64, 64), (65, 130), (200, 3), (0, 5), (5, 0)]


@pytest.mark.parametrize("shape", SHAPES)
def test_matrix_equals_the_numba_kernel(shape):
    form, candidates, targets = problem(*shape)
    expected = pairwise_block(*host_sides(form, candidates, targets))
    assert_same(pairwise_block_cuda(form, candidates, targets), expected)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[1] > 0])
def test_means_equal_the_numba_kernel(shape):
    form, candidates, targets = problem(*shape)
    rows, columns = host_sides(form, candidates, targets)
    assert_same(means_cuda(form, candidates, targets), mean_over(rows, columns))
    groups = np.random.default_rng(0).permutation(np.arange(shape[1]) % 3)
    assert_same(means_cuda(form, candidates, targets, groups), mean_over(rows, columns, groups))
    if shape[0] > 0:
        means = means_cuda(form, candidates, targets, over_candidates=True)
        assert_same(means, mean_over(columns, rows))


def test_means_refuse_no_target_and_an_empty_group():
    form, candidates, targets = problem(3, 4)
    with pytest.raises(EngineError, match="0 targets"):
        means_cuda(form, candidates, targets[:0])
    with pytest.raises(EngineError, match="group 1 of the targets is empty"):
        means_cuda(form, candidates, targets, np.array([0, 2, 2, 0]))


@pytest.mark.parametrize("make", [problem, tied_problem])
@pytest.mark.parametrize("k", [1, 7, 150, 999])
@pytest.mark.parametrize("shape", [(150, 20), (1, 1), (0, 3), (3, 0)])
def test_top_equals_the_numba_kernel(shape, k, make):
    form, candidates, targets = make(*shape)
    assert_same_top(top_cuda(form, candidates, targets, k), form, candidates, targets, k)


@pytest.mark.parametrize("make", [problem, tied_problem])
def test_block_equivalence(small_blocks, make):
    form, candidates, targets = make(200, 30)
    expected = pairwise_block(*host_sides(form, candidates, targets))
    assert_same(pairwise_block_cuda(form, candidates, targets), expected)
    for k in (3, 70, 200):
        assert_same_top(top_cuda(form, candidates, targets, k), form, candidates, targets, k)


def test_a_block_is_whole_tiles_within_its_bytes(monkeypatch):
    monkeypatch.setattr(cuda, "BLOCK_BYTES", 4 * 1000 * 200)
    assert cuda._block_size(1000) == 192
    assert cuda._block_size(10**9) == 64  # one tile at least
    assert cuda._block_size(0) > 0


def test_pair_sums_wrap_around():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(INT32.min, INT32.max, (n, 6), dtype=np.int32) for n in (9, 4))
    larger = np.maximum(a[:, None].astype(np.int64), b)
    exact = larger[..., :4].sum(axis=2) - larger[..., 4:].sum(axis=2)
    sums = pair_sums(torch.from_numpy(a), torch.from_numpy(b), 4).numpy()
    assert (np.abs(exact) > INT32.max).any()
    np.testing.assert_array_equal(sums, exact.astype(np.int32))


INTERPRETED = """
import torch
from engine.kernels import cuda

kernel = cuda._triton_kernel()
assert type(kernel).__name__ == "InterpretedFunction", type(kernel)
generator = torch.Generator().manual_seed(0)
shapes = [(1, 1, 3, 2), (64, 64, 5, 5), (130, 67, 8, 3), (3, 200, 4, 0), (0, 5, 2, 1)]
for m, n, u, positive in shapes:
    # a unit's rows contiguous, and more of them around: a block of what units_on_device gives
    whole = torch.randint(-2**27, 2**27, (2, u, 256), generator=generator, dtype=torch.int32)
    rows, columns = whole[0, :, 9 : 9 + m].T, whole[1, :, 9 : 9 + n].T
    sums = cuda._sums_by_triton(kernel, rows, columns, positive)
    assert sums.dtype == torch.int32 and sums.shape == (m, n)
    assert torch.equal(sums, cuda._sums_by_torch(rows, columns, positive)), (m, n)
    print(m, n, u, positive, "equal")
"""


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed: it comes with torch's CUDA builds on Linux",
)
@pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) >= "2.5.0",
    reason="triton's interpreter counts loops by int() of an array, which this numpy refuses",
)
def test_triton_kernel_equals_torch_in_the_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}  # read when the kernel is decorated
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("equal") == 5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_everything_on_a_device(monkeypatch):
    # units are rounded from float64 products, so coarser float32 ones must not matter
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    form, candidates, targets = tied_problem(20_000, 1111)
    expected = form.of_candidates(candidates.numpy()), form.of_targets(targets.numpy())
    candidates, targets = candidates.cuda(), targets.cuda()
    assert_units_close(form, form.candidates, candidates, expected[0])
    assert_units_close(form, form.targets, targets, expected[1])

    monkeypatch.setattr(cuda, "BLOCK_BYTES", 2**22)
    rows, columns = host_sides(form, candidates, targets)
    assert_same(pairwise_block_cuda(form, candidates, targets), pairwise_block(rows, columns))
    assert_same(means_cuda(form, candidates, targets), mean_over(rows, columns))
    groups = np.arange(1111) % 4
    assert_same(means_cuda(form, candidates, targets, groups), mean_over(rows, columns, groups))
    assert_same_top(top_cuda(form, candidates, targets, 50), form, candidates, targets, 50)

    units = (units_on_device(form.candidates, candidates), units_on_device(form.targets, targets))
    by_torch = cuda._sums_by_torch(*units, form.num_positive)
    assert torch.equal(pair_sums(*units, form.num_positive), by_torch)
