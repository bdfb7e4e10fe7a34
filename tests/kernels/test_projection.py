"""The structured projection is a random matrix of +1 and -1 that keeps inner products."""

import numpy as np
import torch

from engine.kernels.projection import CHUNK, SignProjection
from tests.oracles.less import projection_matrix

CPU = torch.device("cpu")


def project(projection: SignProjection, *parts: torch.Tensor) -> np.ndarray:
    sums = projection.start(len(parts[0]))
    for number, values in enumerate(parts):
        projection.add(sums, number, values)
    return projection.finish(sums).numpy()


def vectors(count: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((count, length), generator=torch.Generator().manual_seed(seed))


def test_is_a_matrix_of_signs():
    projection = SignProjection(256, 7, CPU)
    parts = [vectors(3, 40), vectors(3, 7, seed=1)]
    matrix = projection_matrix(projection, [40, 7])
    np.testing.assert_allclose(np.abs(matrix), 1.0, atol=1e-5)
    expected = torch.cat(parts, 1).numpy() @ matrix.T / np.sqrt(256)
    np.testing.assert_allclose(project(projection, *parts), expected, atol=1e-5)
    assert 0.4 < (matrix > 0).mean() < 0.6
    gram = matrix.T @ matrix / 256
    assert np.abs(gram - np.eye(47)).max() < 5 / np.sqrt(256)


def test_a_part_longer_than_a_chunk():
    """Chunks that wrap and a last one that is not whole, against the sum of single entries."""
    projection = SignProjection(64, 3, CPU)
    values = torch.zeros(1, 2 * CHUNK + 100)
    places = [0, 5, CHUNK - 1, CHUNK, CHUNK + 9000, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 99]
    total = np.zeros((1, 64))
    for place in places:
        unit = torch.zeros_like(values)
        unit[0, place] = values[0, place] = 1.0 + place % 3
        alone = project(projection, unit)
        np.testing.assert_allclose(np.abs(alone), (1.0 + place % 3) / 8, atol=1e-6)
        total += alone
    np.testing.assert_allclose(project(projection, values), total, atol=1e-5)


def test_keeps_inner_products():
    """Over seeds the error is centred and as large as that of independent signs: 1/sqrt(dim)."""
    length, dim = 3 * CHUNK + 500, 1024
    pair = torch.nn.functional.normalize(vectors(2, length), dim=1)
    pair[1] = 0.6 * pair[0] + 0.8 * pair[1]
    exact = float(pair[0] @ pair[1])
    errors = []
    for seed in range(60):
        x, y = project(SignProjection(dim, seed, CPU), pair[:, :20_000], pair[:, 20_000:])
        errors.append(float(x @ y) - exact)
    spread = np.sqrt((float(pair[0] @ pair[0]) * float(pair[1] @ pair[1]) + exact**2) / dim)
    assert abs(np.mean(errors)) < 3 * spread / np.sqrt(60)
    assert 0.7 * spread < np.std(errors) < 1.3 * spread


def test_all_rows_of_one_chunk_lose_nothing():
    x = vectors(3, CHUNK)
    y = project(SignProjection(CHUNK, 0, CPU), x)
    np.testing.assert_allclose(y @ y.T, (x @ x.T).numpy(), rtol=1e-4, atol=1e-2)


def test_depends_on_neither_batch_nor_order_of_parts():
    first, second = vectors(5, 3000), vectors(5, 17_000, seed=1)
    projection = SignProjection(512, 1, CPU)
    whole = project(projection, first, second)
    np.testing.assert_array_equal(whole, project(SignProjection(512, 1, CPU), first, second))
    np.testing.assert_allclose(whole[2:3], project(projection, first[2:3], second[2:3]), atol=1e-5)
    sums = projection.start(5)
    projection.add(sums, 1, second)
    projection.add(sums, 0, first)
    np.testing.assert_allclose(whole, projection.finish(sums).numpy(), atol=1e-5)
    other = project(SignProjection(512, 2, CPU), first, second)
    assert np.abs(whole - other).max() > 0.1


def test_the_way_of_a_gpu_equals_that_of_a_cpu():
    projection = SignProjection(64, 5, CPU)
    for part, length in enumerate([1, CHUNK - 1, CHUNK, 3 * CHUNK + 500]):
        values = vectors(3, length, seed=part)
        chunk_by_chunk, at_once = projection.start(3), projection.start(3)
        for _ in range(2):  # signs that were drawn, and signs that are held
            projection._add_by_chunk(chunk_by_chunk, part, values)
            projection._add_at_once(at_once, part, values)
        torch.testing.assert_close(at_once, chunk_by_chunk, atol=1e-4, rtol=1e-5)
