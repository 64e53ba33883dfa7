"""What the compiler would not find by itself: code for vectors in registers, emitted instruction by instruction.

Products of a block of rows with a few centres or components stay in registers; their order is fixed here, so that the
bits do not depend on where this is compiled.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# Products of so many vectors with so many numbers stay in registers, of which AVX2 has sixteen. BLAS, which copies its
# factors first, reaches half of that speed where centres are few.
VECTORS, CENTRES = 3, 4
VECTOR = 64 if binding.get_host_cpu_features().get("avx512f") else 32  # bytes
SIDE = VECTOR // 8  # of the squares that are transposed in registers
LANES = 8  # of the vectors in which a row is added to its cluster
LINE = 64  # bytes in a cache line


def in_all_lanes(builder: Any, value: Any, lanes: int) -> Any:
    """A vector of so many times this number."""
    first = builder.insert_element(
        ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined), value, ir.IntType(32)(0)
    )
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))


def _fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c of vectors, rounded once, which no optimisation may take apart."""
    kind = ir.FunctionType(a.type, [a.type] * 3)
    bits = 32 if isinstance(a.type.element, ir.FloatType) else 64
    fma = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{a.type.count}f{bits}")
    return builder.call(fma, [a, b, c])


def _total(builder: Any, vector: Any, lanes: int) -> Any:
    """The sum of the numbers in a vector, always in the same order."""
    word, half = ir.IntType(32), lanes // 2
    while half:
        turned = ir.Constant(ir.VectorType(word, lanes), [(lane + half) % lanes for lane in range(lanes)])
        vector = builder.fadd(vector, builder.shuffle_vector(vector, vector, turned))
        half //= 2
    return builder.extract_element(vector, word(0))


@intrinsic
def transpose_square(typing: Any, a: Any, at: Any, step: Any, out: Any, to: Any, stride: Any) -> Any:
    """A square of the flat array `a`, rows `step` apart, becomes columns in `out`: in registers, by shuffles."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = ir.VectorType(context.get_value_type(signature.args[0].dtype), SIDE)
        alignment = signature.args[0].dtype.bitwidth // 8

        def address(array: int, row: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
            begin, apart = arguments[array + 1], arguments[array + 2]
            offset = builder.add(begin, builder.mul(apart, ir.Constant(begin.type, row)))
            return builder.bitcast(builder.gep(data, [offset]), values.as_pointer())

        def interleaved(first: int) -> Any:
            pairs = [first + i // 2 + i % 2 * SIDE for i in range(SIDE)]
            return ir.Constant(ir.VectorType(ir.IntType(32), SIDE), pairs)

        rows = [builder.load(address(0, row), align=alignment) for row in range(SIDE)]
        halves = [interleaved(0), interleaved(SIDE // 2)]
        # Interleaving the first half of the rows with the second, log2 of their number times, transposes them.
        for _ in range(SIDE.bit_length() - 1):
            pairs = zip(rows[: SIDE // 2], rows[SIDE // 2 :], strict=True)
            rows = [builder.shuffle_vector(one, other, half) for one, other in pairs for half in halves]
        for row, value in enumerate(rows):
            builder.store(value, address(3, row), align=alignment)
        return context.get_dummy_value()

    return types.void(a, types.intp, types.intp, out, types.intp, types.intp), emit


def _fetch(builder: Any, address: Any) -> None:
    """Ask for a cache line, without waiting for it."""
    address, word = builder.bitcast(address, ir.IntType(8).as_pointer()), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
    fetch = builder.module.declare_intrinsic("llvm.prefetch", (address.type,), kind)
    # To read (0), into the second level (2), data (1).
    builder.call(fetch, [address, word(0), word(2), word(1)])


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of element `index` of a flat array, without waiting for it."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        _fetch(builder, builder.gep(data, [arguments[1]]))
        return context.get_dummy_value()

    return types.void(array, types.intp), emit


@intrinsic
def per_line(typing: Any, array: Any) -> Any:
    """How many elements are in a cache line: a constant to the compiler."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, 8 * LINE // signature.args[0].dtype.bitwidth)

    return types.intp(array), emit


@intrinsic
def block_rows(typing: Any, array: Any) -> Any:
    """How many rows `compete` looks at: a constant to the compiler."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, 8 * VECTORS * VECTOR // signature.args[0].dtype.bitwidth)

    return types.intp(array), emit


class _Emitter:
    """Code for one block of rows: elements of the arguments of an intrinsic, and sums that stay in registers."""

    def __init__(self, context: Any, builder: Any, kinds: Sequence[Any], arguments: Sequence[Any], number: Any) -> None:
        self.builder, self.alignment = builder, number.bitwidth // 8
        self.lanes = VECTOR // self.alignment
        self.vector = ir.VectorType(context.get_value_type(number), self.lanes)
        self._data = {
            i: context.make_array(kind)(context, builder, arguments[i]).data
            for i, kind in enumerate(kinds)
            if isinstance(kind, types.Array)
        }

    def address(self, array: int, *offsets: Any) -> Any:
        """Of an element: offsets are added up, also Python's."""
        total = ir.Constant(ir.IntType(64), 0)
        for offset in offsets:
            total = self.builder.add(total, ir.Constant(total.type, offset) if isinstance(offset, int) else offset)
        return self.builder.gep(self._data[array], [total])

    def following(self, index: Any, count: int) -> list[Any]:
        """So many whole numbers, from this one."""
        return [self.builder.add(index, ir.Constant(index.type, i)) for i in range(count)]

    def in_all_lanes(self, array: int, *offsets: Any) -> Any:
        return in_all_lanes(self.builder, self.builder.load(self.address(array, *offsets)), self.lanes)

    def load(self, array: int, *offsets: Any) -> Any:
        """A vector."""
        place = self.builder.bitcast(self.address(array, *offsets), self.vector.as_pointer())
        return self.builder.load(place, align=self.alignment)

    def places(self, array: int, at: Any, vector: Any) -> list[Any]:
        """Where the vectors of a block are that begins there."""
        offsets = [v * self.lanes for v in range(VECTORS)]
        return [self.builder.bitcast(self.address(array, at, o), vector.as_pointer()) for o in offsets]

    def vectors(self, array: int, at: Any) -> list[Any]:
        """Those of a block that begins there."""
        return [self.load(array, at, v * self.lanes) for v in range(VECTORS)]

    def products(
        self, count: Any, terms: Callable[[Any], tuple[list[Any], list[Any]]], begin: Sequence[Any] = ()
    ) -> list[list[Any]]:
        """Sums over i < count of products of CENTRES and VECTORS vectors, in order, beginning with CENTRES or 0."""
        builder, blank = self.builder, ir.Constant(self.vector, [0.0] * self.lanes)
        sums = [[cgutils.alloca_once(builder, self.vector) for _ in range(VECTORS)] for _ in range(CENTRES)]
        for first, its in zip(begin or [blank] * CENTRES, sums, strict=True):
            for total in its:
                builder.store(first, total)
        with cgutils.for_range(builder, count) as loop:
            ours, block = terms(loop.index)
            for one, its in zip(ours, sums, strict=True):
                for x, total in zip(block, its, strict=True):
                    builder.store(_fused(builder, x, one, builder.load(total)), total)
        return [[builder.load(total) for total in its] for its in sums]


@intrinsic
def compete(typing: Any, columns: Any, d: Any, groups: Any, half: Any, g: Any, label: Any, best: Any,
             cluster: Any, at: Any, ahead: Any, line: Any, apart: Any) -> Any:  # fmt: skip
    """The rows of a block, columns (d, rows), and the centres of group g, whose first has this label.

    Where the score -|c|^2 / 2 + c.x of a centre is above best[at:], it takes its place; `half` has the first term. The
    order of the additions is fixed here, so that a score depends on nothing but its row and its centre.

    With each feature a line is fetched: the first has the element ahead[line], and they are `apart`.
    """
    number = columns.dtype

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Emitter(context, builder, signature.args, arguments, number)
        _, d, _, _, g, label, _, _, at, _, line, apart = arguments
        word, fours = ir.IntType(32), ir.Constant(at.type, CENTRES)
        group = builder.mul(g, builder.mul(d, fours))

        def terms(f: Any) -> tuple[list[Any], list[Any]]:
            _fetch(builder, code.address(9, line, builder.mul(f, apart)))
            centres = [code.in_all_lanes(2, group, builder.mul(f, fours), j) for j in range(CENTRES)]
            return centres, code.vectors(0, builder.mul(f, ir.Constant(f.type, VECTORS * code.lanes)))

        scores = code.products(d, terms, [code.in_all_lanes(3, builder.mul(g, fours), j) for j in range(CENTRES)])
        of_labels = ir.VectorType(word, code.lanes)
        first = in_all_lanes(builder, builder.trunc(label, word), code.lanes)
        labels = [builder.add(first, ir.Constant(of_labels, [j] * code.lanes)) for j in range(CENTRES)]
        places = zip(code.places(6, at, code.vector), code.places(7, at, of_labels), strict=True)
        for v, (to_best, to_cluster) in enumerate(places):
            top, which = builder.load(to_best, align=code.alignment), builder.load(to_cluster, align=4)
            for own, its in zip(labels, scores, strict=True):
                above = builder.fcmp_ordered(">", its[v], top)
                top = builder.select(above, its[v], top)
                which = builder.select(above, own, which)
            builder.store(top, to_best, align=code.alignment)
            builder.store(which, to_cluster, align=4)
        return context.get_dummy_value()

    whole = types.intp
    answer = types.void(columns, whole, groups, half, whole, whole, best, cluster, whole, ahead, whole, whole)
    return answer, emit


@intrinsic
def multiply_block(typing: Any, theta: Any, j: Any, phi: Any, p: Any, size: Any, at: Any, joint: Any) -> Any:
    """joint[j : j + CENTRES, rows] += theta[j : j + CENTRES] . phi[:, rows], the rows of the block at `at`."""
    number = theta.dtype

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Emitter(context, builder, signature.args, arguments, number)
        _, j, _, p, size, at, _ = arguments
        rows = code.following(j, CENTRES)

        def terms(f: Any) -> tuple[list[Any], list[Any]]:
            factors = [code.in_all_lanes(0, builder.mul(row, p), f) for row in rows]
            return factors, code.vectors(2, builder.add(at, builder.mul(f, size)))

        for row, its in zip(rows, code.products(p, terms), strict=True):
            for place, more in zip(
                code.places(6, builder.add(at, builder.mul(row, size)), code.vector), its, strict=True
            ):
                before = builder.load(place, align=code.alignment)
                builder.store(builder.fadd(before, more), place, align=code.alignment)
        return context.get_dummy_value()

    return types.void(theta, types.intp, phi, types.intp, types.intp, types.intp, joint), emit


@intrinsic
def sum_block(typing: Any, joint: Any, j: Any, phi: Any, f: Any, size: Any, sums: Any, p: Any) -> Any:
    """sums[j : j + CENTRES, f : f + VECTORS] = joint[j : j + CENTRES] . phi[f : f + VECTORS], over all rows."""
    number = phi.dtype

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        code = _Emitter(context, builder, signature.args, arguments, number)
        _, j, _, f, size, _, p = arguments
        rows = code.following(j, CENTRES)
        features = code.following(f, VECTORS)
        lanes = ir.Constant(size.type, code.lanes)

        def terms(i: Any) -> tuple[list[Any], list[Any]]:
            at = builder.mul(i, lanes)
            ours = [code.load(0, builder.mul(row, size), at) for row in rows]
            return ours, [code.load(2, builder.mul(feature, size), at) for feature in features]

        for row, its in zip(rows, code.products(builder.udiv(size, lanes), terms), strict=True):
            for feature, total in zip(features, its, strict=True):
                builder.store(_total(builder, total, code.lanes), code.address(5, builder.mul(row, p), feature))
        return context.get_dummy_value()

    return types.void(joint, types.intp, phi, types.intp, types.intp, sums, types.intp), emit


@intrinsic
def gather_row(typing: Any, y: Any, at: Any, d: Any, share: Any, c: Any, first: Any, to: Any) -> Any:
    """The row at y[at:] times its share is added to first[to:]; its squared distance to the centre at c[to:].

    Centres and sums are filled up to whole vectors; what is read of y beyond the row counts as zero. The order of the
    additions is fixed here, so that the bits do not depend on where this is compiled.
    """
    number = y.dtype

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes, word = ir.VectorType(context.get_value_type(number), LANES), ir.IntType(32)
        vector, alignment = lanes.as_pointer(), number.bitwidth // 8
        _, at, d, share, _, _, to = arguments
        nothing = ir.Constant(lanes, [0.0] * LANES)
        shares = in_all_lanes(builder, share, LANES)
        total = cgutils.alloca_once_value(builder, nothing)

        def address(array: int, offset: Any) -> Any:
            data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
            return builder.bitcast(builder.gep(data, [offset]), vector)

        def take(offset: Any, present: Callable[[Any], Any]) -> None:
            row = present(builder.load(address(0, builder.add(at, offset)), align=alignment))
            centre, sums = address(4, builder.add(to, offset)), address(5, builder.add(to, offset))
            away = builder.fsub(row, builder.load(centre, align=alignment))
            builder.store(_fused(builder, away, away, builder.load(total)), total)
            builder.store(_fused(builder, shares, row, builder.load(sums, align=alignment)), sums, align=alignment)

        begin, step = ir.Constant(d.type, 0), ir.Constant(d.type, LANES)
        whole = builder.and_(d, ir.Constant(d.type, -LANES))
        with cgutils.for_range_slice(builder, begin, whole, step) as (offset, _):
            take(offset, lambda row: row)
        left = builder.trunc(builder.sub(d, whole), word)
        with builder.if_then(builder.icmp_signed(">", left, word(0))):
            places = ir.Constant(ir.VectorType(word, LANES), list(range(LANES)))
            inside = builder.icmp_signed("<", places, in_all_lanes(builder, left, LANES))
            take(whole, lambda row: builder.select(inside, row, nothing))
        return _total(builder, builder.load(total), LANES)

    return number(y, types.intp, types.intp, number, c, first, types.intp), emit
