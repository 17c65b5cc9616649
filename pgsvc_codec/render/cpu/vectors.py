"""The words that kernels of the CPU rasteriser are written in: LLVM's own vectors of `LANES` floats.

What numba makes of plain loops leaves most of such short rows to scalar remainders.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils

LANES = 16  # floats per vector, columns per strip; LLVM splits it where the machine's are shorter

VEC = ir.VectorType(ir.FloatType(), LANES)
INTS = ir.VectorType(ir.IntType(32), LANES)
MASK = ir.VectorType(ir.IntType(1), LANES)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
RAMP = ir.Constant(VEC, [float(lane) for lane in range(LANES)])

# 2^f on [-1/2, 1/2] as a polynomial of least relative error among those that are 1 at 0, so that a splat larger than
# any plane is flat: 9e-8, under a unit in the last place of float32.
_EXP2 = (1.0, 0.6931469776, 0.240222421134, 0.0555073394296, 0.00967151194455, 0.00132646499784)


def constant(value: float) -> ir.Constant:
    """A vector of one value."""
    return ir.Constant(VEC, [float(value)] * LANES)


def i64(value: int) -> ir.Constant:
    """A whole number, as offsets and counts are."""
    return ir.Constant(I64, value)


def broadcast(builder, scalar):
    """A scalar in all lanes."""
    kind = ir.VectorType(scalar.type, LANES)
    vector = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(vector, ir.Constant(kind, ir.Undefined), ir.Constant(INTS, [0] * LANES))


def call(builder, name, result, arguments):
    """Call an intrinsic of LLVM."""
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, [argument.type for argument in arguments]), name
    )
    return builder.call(function, arguments)


def fma(builder, a, b, c):
    """a b + c, rounded once."""
    return call(builder, f"llvm.fma.v{LANES}f32", VEC, [a, b, c])


def lane_sum(builder, vector):
    """The sum of all lanes, in the order of the lanes or any other."""
    signature = ir.FunctionType(ir.FloatType(), [ir.FloatType(), VEC])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.vector.reduce.fadd.v{LANES}f32")
    return builder.call(function, [ir.Constant(ir.FloatType(), 0.0), vector], fastmath=("reassoc",))


def sum_vectors(builder, vectors):
    """One vector of 8 whose lane k is the sum over all lanes of vectors[k]; at most 8 of them."""
    parts = [*vectors, *[constant(0.0)] * (8 - len(vectors))]
    half = LANES // 2  # of the lanes that belong to one vector
    while len(parts) > 1:
        low = [lane // half * 2 * half + lane % half for lane in range(LANES)]
        high = [lane + half for lane in low]
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [
            builder.fadd(*(builder.shuffle_vector(a, b, ir.Constant(INTS, lanes)) for lanes in (low, high)))
            for a, b in pairs
        ]
        half //= 2
    eight = ir.VectorType(ir.IntType(32), 8)
    ends = [
        builder.shuffle_vector(parts[0], parts[0], ir.Constant(eight, [2 * lane + side for lane in range(8)]))
        for side in range(2)
    ]
    return builder.fadd(*ends)


def transposed(builder, rows):
    """Sixteen vectors whose lanes are what those of `rows` have in one lane."""
    step = LANES // 2
    while step:
        low = [lane if not lane & step else LANES + lane - step for lane in range(LANES)]
        high = [lane + step if not lane & step else LANES + lane for lane in range(LANES)]
        swapped = list(rows)
        for lane in range(LANES):
            if not lane & step:
                pair = rows[lane], rows[lane + step]
                swapped[lane] = builder.shuffle_vector(*pair, ir.Constant(INTS, low))
                swapped[lane + step] = builder.shuffle_vector(*pair, ir.Constant(INTS, high))
        rows = swapped
        step //= 2
    return rows


def vector_at(builder, pointer, offset):
    """The vector at a pointer to floats plus an offset in floats."""
    return builder.bitcast(builder.gep(pointer, [offset]), VEC.as_pointer())


def load(builder, pointer, offset):
    """See `vector_at`."""
    return builder.load(vector_at(builder, pointer, offset), align=4)


def store(builder, value, pointer, offset):
    """See `vector_at`."""
    builder.store(value, vector_at(builder, pointer, offset), align=4)


def blocks(builder, columns, body):
    """Call body(start, mask) for the vectors of a row; the mask is None where all lanes lie within the row."""
    whole = builder.and_(columns, i64(-LANES))
    with cgutils.for_range_slice(builder, i64(0), whole, i64(LANES)) as (start, _):
        body(start, None)
    with builder.if_then(builder.icmp_signed("<", whole, columns)):
        rest = broadcast(builder, builder.trunc(builder.sub(columns, whole), I32))
        lanes = ir.Constant(INTS, list(range(LANES)))
        body(whole, builder.icmp_signed("<", lanes, rest))


def masked_load(builder, pointer, mask):
    """Floats where the mask is set, else 0; a mask of None is all set."""
    if mask is None:
        return builder.load(pointer, align=4)
    name = f"llvm.masked.load.v{LANES}f32.p0"
    return call(builder, name, VEC, [pointer, ir.Constant(I32, 4), mask, constant(0.0)])


def data_of(context, builder, kind, array):
    """Pointer to the first element of an array."""
    return context.make_array(kind)(context, builder, array).data


def exp2(builder, exponent):
    """2^exponent; anything where that is not a normal float."""
    shifter = constant(1.5 * 2**23)  # leaves the nearest whole number in the low bits
    shifted = builder.fadd(exponent, shifter)
    fraction = builder.fsub(exponent, builder.fsub(shifted, shifter))
    mantissa = constant(_EXP2[-1])
    for coefficient in _EXP2[-2::-1]:
        mantissa = fma(builder, mantissa, fraction, constant(coefficient))
    power = builder.shl(builder.bitcast(shifted, INTS), ir.Constant(INTS, [23] * LANES))
    return builder.bitcast(builder.add(builder.bitcast(mantissa, INTS), power), VEC)


def largest(builder, value, bound):
    """The larger; the bound where the value is a NaN."""
    return builder.select(builder.fcmp_ordered(">", value, bound), value, bound)


def least(builder, value, bound):
    """The smaller; the bound where the value is a NaN."""
    return builder.select(builder.fcmp_ordered("<", value, bound), value, bound)
