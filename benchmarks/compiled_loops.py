"""What the machine can do: the maxima and additions of all pairs as the C compiler makes them.

`CompiledLoops` builds a small C file when it is needed; `benchmarks/pairwise.py` times it beside
the engine's kernel.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.kernels.units import PairwiseForm

__all__ = ["CompiledLoops", "float_units"]

Matrix = NDArray[np.float32]

# What the machine can do, for NUMBER = float and int. A block of ROWS rows and VECTORS vectors of
# columns keeps its sums in registers; both sides lie in the order in which they are read, columns
# aligned to vectors, and a band of 1,008 rows stays in the second-level cache while columns pass.
# Of the blocks tried on an AVX-512 machine (4, 5, 6 x 4 vectors; 8, 12 x 2) 6 x 4 is the fastest.
C_HEAD = """
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
#if defined(__AVX512F__) || defined(__aarch64__)  /* 32 vector registers, else 16 */
#define ROWS 6
#define CHAINS 24
#else
#define ROWS 2
#define CHAINS 12
#endif
#define VECTORS 4
#define COLUMNS (VECTORS * LANES)
#define BAND 1008
#define UNROLL _Pragma("GCC unroll 32")
#define INLINE static inline __attribute__((always_inline))

const long block_rows = ROWS, block_columns = COLUMNS, peak_maxima = CHAINS * LANES;
"""
C_LOOPS = """
typedef NUMBER NUMBER_vector __attribute__((vector_size(LANES * sizeof(NUMBER))));

INLINE NUMBER_vector NUMBER_max(NUMBER_vector a, NUMBER_vector b) {
    NUMBER_vector larger;
    UNROLL for (int l = 0; l < LANES; l++) larger[l] = a[l] > b[l] ? a[l] : b[l];
    return larger;
}

INLINE void NUMBER_units(const NUMBER *rows, const NUMBER *columns, long units, NUMBER sign,
                         NUMBER_vector sums[ROWS][VECTORS]) {
    for (long k = 0; k < units; k++) {
        NUMBER_vector column[VECTORS];
        UNROLL for (int v = 0; v < VECTORS; v++)
            column[v] = *(const NUMBER_vector *)(columns + k * COLUMNS + v * LANES);
        UNROLL for (int i = 0; i < ROWS; i++) {
            NUMBER_vector row = rows[k * ROWS + i] - (NUMBER_vector){0};
            UNROLL for (int v = 0; v < VECTORS; v++)
                sums[i][v] += sign * NUMBER_max(row, column[v]);
        }
    }
}

/* rows [m / ROWS][units][ROWS], columns [n / COLUMNS][units][COLUMNS], out [m][n] */
void fill_NUMBER(const NUMBER *restrict rows, const NUMBER *restrict columns, long m, long n,
                 long units, long positive, float step, float *restrict out) {
    for (long band = 0; band < m; band += BAND)
        for (long b = 0; b < n; b += COLUMNS)
            for (long a = band; a < band + BAND && a < m; a += ROWS) {
                NUMBER_vector sums[ROWS][VECTORS];
                UNROLL for (int i = 0; i < ROWS; i++)
                    UNROLL for (int v = 0; v < VECTORS; v++) sums[i][v] = (NUMBER_vector){0};
                const NUMBER *row = rows + a * units, *column = columns + b * units;
                NUMBER_units(row, column, positive, 1, sums);
                NUMBER_units(row + positive * ROWS, column + positive * COLUMNS,
                             units - positive, -1, sums);
                UNROLL for (int i = 0; i < ROWS; i++)
                    UNROLL for (int v = 0; v < VECTORS; v++)
                        for (int l = 0; l < LANES; l++)
                            out[(a + i) * n + b + v * LANES + l] = step * sums[i][v][l];
            }
}

/* peak_maxima maxima and as many additions a turn, in independent chains */
float peak_NUMBER(long turns, NUMBER least, NUMBER increment) {
    NUMBER_vector x = least - (NUMBER_vector){0}, y = increment - (NUMBER_vector){0};
    NUMBER_vector chains[CHAINS];
    UNROLL for (int i = 0; i < CHAINS; i++) chains[i] = x * (NUMBER)i;
    for (long turn = 0; turn < turns; turn++)
        UNROLL for (int i = 0; i < CHAINS; i++) chains[i] = NUMBER_max(chains[i], x) + y;
    UNROLL for (int i = 1; i < CHAINS; i++) chains[0] += chains[i];
    return (float)chains[0][0];
}
"""


class CompiledLoops:
    """C_HEAD and C_LOOPS, built by the system's compiler for this very processor.

    Raises FileNotFoundError where there is no compiler, CalledProcessError where it fails.
    """

    def __init__(self) -> None:
        found = shutil.which("gcc") or shutil.which("cc")
        if found is None:
            raise FileNotFoundError("no C compiler")
        version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
        self.compiler = version.stdout.splitlines()[0]
        options = "-O3 -march=native -ffast-math -fwrapv -fPIC"
        if platform.machine() in ("x86_64", "AMD64"):
            options += " -mprefer-vector-width=512"
        with tempfile.TemporaryDirectory() as directory:
            source, built, library = (Path(directory) / f"loops.{end}" for end in ("c", "o", "so"))
            loops = [C_LOOPS.replace("NUMBER", number) for number in ("float", "int")]
            source.write_text(C_HEAD + "".join(loops), encoding="utf-8")
            compile_ = [found, *options.split(), "-c", str(source), "-o", str(built)]
            # apart: gcc that links with -ffast-math makes the whole process flush denormals
            link = [found, "-shared", str(built), "-o", str(library)]
            for command in (compile_, link):
                subprocess.run(command, check=True, capture_output=True, text=True)
            self._library = ctypes.CDLL(str(library))
        self._block_rows, self._block_columns, self._peak_maxima = (
            ctypes.c_long.in_dll(self._library, name).value
            for name in ("block_rows", "block_columns", "peak_maxima")
        )

    def fill(
        self, kind: str, rows: NDArray[Any], columns: NDArray[Any], positive: int, step: float
    ) -> Callable[[], Matrix]:
        """A call that writes S from units (m, u) and (n, u), packed here; its memory is reused."""
        m, n, num_units = len(rows), len(columns), rows.shape[1]
        packed_rows = _packed(rows, self._block_rows)
        packed_columns = _packed(columns, self._block_columns)
        out = np.zeros(
            (len(packed_rows) * self._block_rows, len(packed_columns) * self._block_columns),
            dtype=np.float32,
        )
        function = self._library[f"fill_{kind}"]
        numbers = [ctypes.c_long(number) for number in (*out.shape, num_units, positive)]

        def run() -> Matrix:
            places = [ctypes.c_void_p(array.ctypes.data) for array in (packed_rows, packed_columns)]
            function(*places, *numbers, ctypes.c_float(step), ctypes.c_void_p(out.ctypes.data))
            return out[:m, :n]

        return run

    def peak(self, kind: str, num_units: int, num_pairs: int) -> Callable[[], None]:
        """A call that takes the maxima and additions of `num_pairs` pairs, without any memory."""
        function = self._library[f"peak_{kind}"]
        function.restype = ctypes.c_float
        number = {"int": ctypes.c_int, "float": ctypes.c_float}[kind]
        turns = ctypes.c_long(round(num_pairs * num_units / self._peak_maxima))

        def run() -> None:
            function(turns, number(3), number(1))

        return run


def _packed(units: NDArray[Any], size: int) -> NDArray[Any]:
    """(n, u) -> (ceil(n / size), u, size), zeros at the end, aligned to 64 bytes."""
    n, num_units = units.shape
    shape = (-(-n // size), num_units, size)
    memory = np.zeros(int(np.prod(shape)) + 16, dtype=units.dtype)
    start = -memory.ctypes.data % 64 // units.itemsize
    packed = memory[start : start + int(np.prod(shape))].reshape(shape)
    padded = np.zeros((shape[0] * size, num_units), dtype=units.dtype)
    padded[:n] = units
    packed[:] = padded.reshape(shape[0], size, num_units).transpose(0, 2, 1)
    return packed


def float_units(form: PairwiseForm, candidates: Matrix, targets: Matrix) -> tuple[Matrix, Matrix]:
    """Units of both sides in float32, (m, u) and (n, u), for the C loop in floats."""
    both = (
        candidates @ form.candidate_weight.T + np.maximum(form.candidate_bias, -1e30),
        targets @ form.target_weight.T + np.maximum(form.target_bias, -1e30),
    )
    return both[0].astype(np.float32), both[1].astype(np.float32)
