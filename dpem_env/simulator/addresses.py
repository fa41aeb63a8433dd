"""How compiled code finds the arrays: by a table of their addresses, one row per environment.

numba passes a named tuple by value, so a struct of fifty arrays would be four hundred arguments of every call, which
take longer to compile than all the rules. A row of the table is laid out as numba lays out a struct of arrays, so its
address *is* the struct: `environment(World)(table, b)` costs nothing, and fields are read as usual.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import from_dtype, types
from numba.core import cgutils, config
from numba.core.datamodel import default_manager
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, models, register_model

HEADER = ("meminfo", "parent", "nitems", "itemsize", "data", "shape", "strides")  # of an array, as numba lays it out
if default_manager.lookup(types.Array(types.int32, 1, "C"))._fields != HEADER:
    raise ImportError("dpem_env does not know how this version of numba lays out arrays; install numba 0.68")


class Address(types.Type):  # type: ignore[misc]
    """The address of a struct."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Address({dtype})")


register_model(Address)(models.PointerModel)


@infer_getattr
class _Fields(AttributeTemplate):  # type: ignore[misc]
    key = Address

    def generic_resolve(self, address: Address, name: str) -> Any:
        fields = address.dtype.fields
        return address.dtype.types[fields.index(name)] if name in fields else None


@lower_getattr_generic(Address)
def _field(context, builder, address, pointer, name):
    place = address.dtype.fields.index(name)
    kind = context.get_value_type(address.dtype.types[place])
    return _load(builder, cgutils.gep_inbounds(builder, pointer, 0, place), kind)


def _load(builder, pointer, kind):
    """The value at an address, number by number, each marked as never changing: a loop loads it once."""
    if not isinstance(kind, ir.Aggregate):
        number = builder.load(pointer)
        number.set_metadata("invariant.load", builder.module.add_metadata([]))
        return number
    value = kind(ir.Undefined)
    for place, part in enumerate(kind.elements):
        element = _load(builder, cgutils.gep_inbounds(builder, pointer, 0, place), part)
        value = builder.insert_value(value, element, place)
    return value


def table_of(batch: Any) -> Any:
    """(B, words) addresses, shapes and strides of the arrays of every environment of a struct with a leading axis B.

    Whoever keeps the table keeps the arrays: it does not, and copies of it point to the same ones.
    """
    if config.DISABLE_JIT:
        return batch
    first: list[int] = []
    step: list[int] = []  # from one environment to the next
    for array in batch:
        shape, data = array.shape[1:], array.__array_interface__["data"][0]
        first += (0, 0, math.prod(shape), array.itemsize, data, *shape, *array.strides[1:])  # in the order of `HEADER`
        step += (0, 0, 0, 0, array.strides[0], *(0,) * (2 * len(shape)))  # nobody owns the memory
    return np.array(first, dtype=np.int64) + np.arange(len(batch[0]))[:, None] * np.array(step, dtype=np.int64)


def environment(struct: Any, dtypes: dict[str, tuple[Any, int]]) -> Any:
    """A compiled function (table, b) -> the struct of environment b; dtypes gives dtype and axes of each array."""
    if config.DISABLE_JIT:
        return lambda batch, b: struct._make(array[b] for array in batch)
    arrays = [types.Array(from_dtype(np.dtype(dtype)), axes, "C") for dtype, axes in dtypes.values()]
    address = Address(types.NamedTuple(arrays, struct))

    @intrinsic
    def struct_at(typing_context, table, b):
        def locate(context, builder, signature, arguments):
            rows = context.make_array(table)(context, builder, arguments[0])
            row = context.cast(builder, arguments[1], b, types.intp)
            start = cgutils.get_item_pointer(context, builder, table, rows, [row, context.get_constant(types.intp, 0)])
            return builder.bitcast(start, context.get_value_type(address))

        return address(table, b), locate

    return struct_at
