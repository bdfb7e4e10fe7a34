"""The innermost loops of the pairwise kernels, written for the machine's vector units.

    pair_tile      out[i, j] = sum_k +-max(rows[k, first + i], columns[k, j])      int32
    product_tile   out[i, j] = sum_k rows[k, first + i] * columns[k, j]            float64

for ROWS rows and a tile of TILE columns, with all sums in registers. LLVM does not find this
blocking in a plain loop: it is emitted through numba's `intrinsic`, as vectors of as many lanes as
the processor has. Integer maxima run on other execution units than additions on most processors,
which is half of the reason why the units of a network are fixed-point numbers
(`engine.kernels.units`); the other is that integer sums do not depend on their order. Products are
fused multiply-adds in the order of k, so they do not depend on the processor either, as those of a
library would. Both are called from compiled code only, and check nothing. Who edits this file must
delete `__pycache__`: numba keeps the machine code of the callers until their own files change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["ROWS", "TILE", "pair_tile", "product_tile", "register_block"]

TILE = 64  # columns of a tile

_SIZE = ir.IntType(64)
_VECTORS = 4  # of columns in a block: enough independent sums to hide the latency of an addition

Combine = Callable[[ir.Value, ir.Value, ir.Value], ir.Value]  # (sum, row, column) -> sum


def register_block(features: Mapping[str, bool]) -> tuple[int, int]:
    """(bytes of a vector, rows of a block) whose sums fill the registers without spilling."""
    if features.get("avx512f"):
        return 64, 6  # 32 registers: 6 x 4 sums
    if features.get("avx2"):
        return 32, 2  # 16 registers: 2 x 4 sums
    return 16, 4 if features.get("neon") else 2


_VECTOR_BYTES, ROWS = register_block(llvmlite.binding.get_host_cpu_features())


@intrinsic
def pair_tile(
    typing_context: Any, rows: Any, first: Any, columns: Any, num_positive: Any, out: Any
) -> Any:
    """pair_tile(rows, first, columns, num_positive, out): sums of maxima, which wrap around.

    rows (K, n) and columns (K, TILE) int32, contiguous; out (ROWS, TILE) int32 for rows
    first .. first + ROWS. Terms before num_positive are added, the others subtracted.
    """
    signature = types.void(rows, types.int64, columns, types.int64, out)

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        def larger(a: ir.Value, b: ir.Value) -> ir.Value:
            return builder.select(builder.icmp_signed(">", a, b), a, b)

        block = _Block(context, builder, signature, arguments, (0, 2, 4), ir.IntType(32), 4)
        positive = (arguments[3], lambda total, a, b: builder.add(total, larger(a, b)))
        negative = (block.length, lambda total, a, b: builder.sub(total, larger(a, b)))
        block.emit(arguments[1], [positive, negative])
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def product_tile(typing_context: Any, rows: Any, first: Any, columns: Any, out: Any) -> Any:
    """product_tile(rows, first, columns, out): a block of a matrix product.

    rows (K, n) and columns (K, TILE) float64, contiguous; out (ROWS, TILE) float64 for rows
    first .. first + ROWS.
    """
    signature = types.void(rows, types.int64, columns, out)

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        block = _Block(context, builder, signature, arguments, (0, 2, 3), ir.DoubleType(), 8)
        kind = ir.FunctionType(block.vector, [block.vector] * 3)
        name = f"llvm.fma.v{block.lanes}f64"
        fused = cgutils.get_or_insert_function(builder.module, kind, name)
        step = (block.length, lambda total, a, b: builder.call(fused, (a, b, total)))
        block.emit(arguments[1], [step])
        return context.get_dummy_value()

    return signature, emit


class _Block:
    """Emits loops over k that combine ROWS rows with the columns of a tile, sums in registers."""

    def __init__(
        self,
        context: Any,
        builder: ir.IRBuilder,
        signature: Any,
        arguments: Any,
        places: tuple[int, int, int],
        element: ir.Type,
        size: int,
    ) -> None:
        arrays = [
            context.make_array(signature.args[place])(context, builder, arguments[place])
            for place in places
        ]
        self._builder = builder
        self._rows, self._columns, self._out = (
            builder.bitcast(array.data, element.as_pointer()) for array in arrays
        )
        self.length, self._row_stride = cgutils.unpack_tuple(builder, arrays[0].shape)
        self._align = size
        self.lanes = _VECTOR_BYTES // size
        self.vector = ir.VectorType(element, self.lanes)
        self._zero = ir.Constant(self.vector, [0] * self.lanes)

    def emit(self, first: ir.Value, steps: list[tuple[ir.Value, Combine]]) -> None:
        """Write out; each step combines the terms from the end of the one before to its own."""
        for start in range(0, TILE, _VECTORS * self.lanes):
            sums, lower = [self._zero] * (ROWS * _VECTORS), _SIZE(0)
            for upper, combine in steps:
                sums = self._loop(lower, upper, combine, sums, first, start)
                lower = upper
            for number, total in enumerate(sums):
                row, vector = divmod(number, _VECTORS)
                place = _SIZE(row * TILE + start + vector * self.lanes)
                self._builder.store(total, self._vector_at(self._out, place), align=self._align)

    def _loop(
        self,
        lower: ir.Value,
        upper: ir.Value,
        combine: Combine,
        sums: list[ir.Value],
        first: ir.Value,
        start: int,
    ) -> list[ir.Value]:
        """for k in lower .. upper: sums[i, v] = combine(sums[i, v], rows[k, i], columns[k, v])."""
        builder = self._builder
        before, head = builder.block, builder.append_basic_block("terms")
        body, after = builder.append_basic_block("term"), builder.append_basic_block("done")
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(_SIZE)
        k.add_incoming(lower, before)
        running = [builder.phi(self.vector) for _ in sums]
        for phi, value in zip(running, sums, strict=True):
            phi.add_incoming(value, before)
        builder.cbranch(builder.icmp_signed("<", k, upper), body, after)
        builder.position_at_end(body)
        column = builder.add(builder.mul(k, _SIZE(TILE)), _SIZE(start))
        others = [
            builder.load(
                self._vector_at(self._columns, builder.add(column, _SIZE(vector * self.lanes))),
                align=self._align,
            )
            for vector in range(_VECTORS)
        ]
        row_place = builder.add(builder.mul(k, self._row_stride), first)
        for row in range(ROWS):
            own = self._splat(builder.gep(self._rows, [builder.add(row_place, _SIZE(row))]))
            for vector, other in enumerate(others):
                phi = running[row * _VECTORS + vector]
                phi.add_incoming(combine(phi, own, other), body)
        k.add_incoming(builder.add(k, _SIZE(1)), body)
        builder.branch(head)
        builder.position_at_end(after)
        return running

    def _splat(self, pointer: ir.Value) -> ir.Value:
        """The number at a place in all lanes of a vector."""
        undefined, index = ir.Constant(self.vector, ir.Undefined), ir.IntType(32)
        single = self._builder.insert_element(undefined, self._builder.load(pointer), index(0))
        lanes = ir.Constant(ir.VectorType(index, self.lanes), [0] * self.lanes)
        return self._builder.shuffle_vector(single, undefined, lanes)

    def _vector_at(self, data: ir.Value, place: ir.Value) -> ir.Value:
        pointer = self._builder.gep(data, [place])
        return self._builder.bitcast(pointer, self.vector.as_pointer())
