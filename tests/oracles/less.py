"""LESS, slow and obvious: one example at a time, HF's own loss, one plain backward pass."""

import numpy as np
import torch


def gradients(model, prompt: list[int], response: list[int], parameters) -> list[torch.Tensor]:
    """Gradient of the mean cross-entropy of the response, for each parameter."""
    for parameter in parameters:
        parameter.grad = None
    labels = torch.tensor([[-100] * len(prompt) + response])
    model(input_ids=torch.tensor([prompt + response]), labels=labels).loss.backward()
    return [parameter.grad.clone() for parameter in parameters]


def adam_step(g, m, v, steps: int, form: str):
    """m', v' and their quotient; float64."""
    g, m, v = (np.asarray(x, np.float64) for x in (g, m, v))
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    if form == "reference":
        return m / np.sqrt(v + 1e-8)
    return m / (1 - 0.9 ** (steps + 1)) / (np.sqrt(v / (1 - 0.999 ** (steps + 1))) + 1e-8)


def projection_matrix(projection, lengths: list[int]) -> np.ndarray:
    """P (dim, p) without its scale: each column is the projection of one unit vector."""
    columns = []
    for part, length in enumerate(lengths):
        for i in range(length):
            unit = torch.zeros(1, length)
            unit[0, i] = 1.0
            sums = projection.start(1)
            projection.add(sums, part, unit)
            columns.append(projection.finish(sums)[0].numpy())
    matrix = np.stack(columns, axis=1)
    return matrix * np.sqrt(len(matrix))


def score(candidate, target, rates: list[float]) -> float:
    """sum_i w_i cos(candidate_i, target_i) over checkpoints."""
    total = 0.0
    for c, t, rate in zip(candidate, target, rates, strict=True):
        total += rate / sum(rates) * float(c @ t) / float(np.linalg.norm(c) * np.linalg.norm(t))
    return total
