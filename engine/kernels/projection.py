"""A random projection of very long vectors, fed piece by piece: inner products survive.

A vector x of any length p becomes y = P x / sqrt(dim), where P is a fixed random matrix of +1 and
-1, (dim, p), that is never built. It has structure, so that a piece costs one multiplication
and one addition per entry, whatever `dim` is:

    x is cut into chunks of 16,384; chunk b gets random signs and a random cyclic shift
    z = sum_b shift_b(signs_b * chunk_b)          (16384,)
    P x = `dim` rows, drawn without replacement, of the Hadamard matrix times z

Every column of P is a column of those Hadamard rows times a random sign, and two columns are
independent unless two chunks put their entries on the same place, a chance of 1 in 16,384. That
adds a variance of 1/16384, and drawing rows one of 1/dim - 1/16384, so that over seeds

    E <P x, P y> / dim = <x, y>,   standard deviation <= sqrt((|x|^2 |y|^2 + <x, y>^2) / dim)

just as for a matrix of independent signs. Sources: Weinberger et al., "Feature hashing" (2009)
for z; Ailon and Chazelle, "The fast Johnson-Lindenstrauss transform" (2009) for the rest.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["CHUNK", "SignProjection"]

_SIDE = 128  # the Hadamard matrix of 128 * 128 is that of 128 over rows, then over columns
CHUNK = _SIDE * _SIDE


class SignProjection:
    """The matrix P of one seed.

    On a CPU it holds a few bytes and draws signs anew at each use; on a GPU it keeps a byte for
    each entry of the long vector.

    Use `start`, any number of `add`, then `finish`. A part is one piece of the long vector, such
    as one layer's weights; its number names its columns of P, whatever the order of the calls.

    Args:
        dim: length of a projected vector, up to 16384.
        seed: another seed, another matrix.
    """

    def __init__(self, dim: int, seed: int, device: torch.device) -> None:
        assert 1 <= dim <= CHUNK, f"{dim} rows of a Hadamard matrix of {CHUNK}"
        self._seed = seed
        self._device = device
        rows = np.sort(_generator(seed, 0).permutation(CHUNK)[:dim])
        self._rows = torch.from_numpy(rows).to(device)
        self._scale = 1.0 / math.sqrt(dim)
        self._hadamard = _hadamard(_SIDE).to(device)
        self._held: dict[int, tuple[Tensor, Tensor]] = {}  # by part, on a GPU

    def start(self, num_vectors: int) -> Tensor:
        """The sums z (n, 16384) float32 of n vectors without any part."""
        return torch.zeros((num_vectors, CHUNK), device=self._device)

    def add(self, sums: Tensor, part: int, values: Tensor) -> None:
        """Add a part (n, any length) float32 of each vector to its sums, in place."""
        assert part >= 0, "parts are numbered from 0"
        if self._device.type == "cuda":
            self._add_at_once(sums, part, values)
        else:
            self._add_by_chunk(sums, part, values)

    def _add_by_chunk(self, sums: Tensor, part: int, values: Tensor) -> None:
        """What a CPU does best: a chunk of the sums stays in its cache, and nothing is built."""
        length = values.shape[1]
        signs, shifts = self._signs_and_shifts(part, length)
        signs = signs.float()
        for start, shift in zip(range(0, length, CHUNK), shifts.tolist(), strict=True):
            middle = min(start + CHUNK - shift, length)  # what follows wraps to the front
            end = min(start + CHUNK, length)
            for begin, stop, place in ((start, middle, shift), (middle, end, 0)):
                if begin < stop:
                    place_sums = sums[:, place : place + stop - begin]
                    place_sums.addcmul_(values[:, begin:stop], signs[begin:stop])

    def _add_at_once(self, sums: Tensor, part: int, values: Tensor) -> None:
        """What a GPU does best: few calls. Signs are drawn on the host, so once and for all."""
        length = values.shape[1]
        if part not in self._held:
            self._held[part] = self._signs_and_shifts(part, length)
        signs, shifts = self._held[part]
        signed = torch.nn.functional.pad(values * signs, (0, -length % CHUNK))
        chunks = signed.view(len(values), -1, CHUNK)
        places = torch.arange(CHUNK, device=self._device)
        sources = (places - shifts[:, None]).remainder_(CHUNK)
        sums += chunks.gather(2, sources.expand_as(chunks)).sum(dim=1)

    def _signs_and_shifts(self, part: int, length: int) -> tuple[Tensor, Tensor]:
        """Of a part's entries (length,) int8, of its chunks int64."""
        generator = _generator(self._seed, 1 + part)
        shifts = generator.integers(CHUNK, size=-(-length // CHUNK))
        bits = np.frombuffer(generator.bytes(-(-length // 8)), np.uint8)
        signs = torch.from_numpy(np.unpackbits(bits)[:length].view(np.int8)).to(self._device)
        return signs.mul_(2).sub_(1), torch.from_numpy(shifts).to(self._device)

    def finish(self, sums: Tensor) -> Tensor:
        """The projections (n, dim) float32 of the vectors whose parts were added."""
        square = sums.view(-1, _SIDE, _SIDE)
        transformed = (self._hadamard @ square @ self._hadamard).view(-1, CHUNK)
        return transformed[:, self._rows] * self._scale


def _generator(seed: int, number: int) -> np.random.Generator:
    """Stream `number` of a seed; Philox is counter based, so no stream waits for another."""
    return np.random.Generator(np.random.Philox(key=[seed % 2**64, number]))


def _hadamard(size: int) -> Tensor:
    """Sylvester's matrix of +1 and -1 (size, size), for a power of two."""
    matrix = torch.ones((1, 1))
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix
