"""Columns for `unnest`, as binary arrays built in one join each.

The element type is fixed by the class, not guessed from the values: a prepared statement keeps one plan.
"""

from collections.abc import Iterable
from struct import Struct

from psycopg import AsyncConnection
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

_HEADER = Struct(">iiIii")
_BIGINT = Struct(">iq")
_INT = Struct(">ii")
_FLOAT = Struct(">id")
_NULL = b"\xff\xff\xff\xff"


class PgArray:
    """A one-dimensional array in Postgres' binary format."""

    __slots__ = ("data",)
    element_oid = 0
    array_oid = 0

    def __init__(self, elements: list[bytes]) -> None:
        header = (
            _HEADER.pack(1, 1, self.element_oid, len(elements), 1) if elements else _EMPTY.pack(0, 0, self.element_oid)
        )
        self.data = header + b"".join(elements)


_EMPTY = Struct(">iiI")


class UuidArray(PgArray):
    element_oid, array_oid = 2950, 2951


class TextArray(PgArray):
    element_oid, array_oid = 25, 1009


class ByteaArray(PgArray):
    element_oid, array_oid = 17, 1001


class BigIntArray(PgArray):
    element_oid, array_oid = 20, 1016


class IntArray(PgArray):
    element_oid, array_oid = 23, 1007


class FloatArray(PgArray):
    element_oid, array_oid = 701, 1022


def uuids(values: Iterable[bytes]) -> UuidArray:
    return UuidArray([b"\x00\x00\x00\x10" + value for value in values])


def texts(values: Iterable[bytes | str | None]) -> TextArray:
    return TextArray([_text(value) for value in values])


def byteas(values: Iterable[bytes]) -> ByteaArray:
    return ByteaArray([len(value).to_bytes(4) + value for value in values])


def bigints(values: Iterable[int]) -> BigIntArray:
    return BigIntArray([_BIGINT.pack(8, value) for value in values])


def ints(values: Iterable[int]) -> IntArray:
    return IntArray([_INT.pack(4, value) for value in values])


def floats(values: Iterable[float | None]) -> FloatArray:
    return FloatArray([_NULL if value is None else _FLOAT.pack(8, value) for value in values])


def _text(value: bytes | str | None) -> bytes:
    if value is None:
        return _NULL
    # "replace": half a surrogate pair is a str in Python and nothing in UTF-8; it must not end the cycle of all.
    data = value.encode("utf-8", "replace") if isinstance(value, str) else value
    return len(data).to_bytes(4) + data


def _dumper(kind: type[PgArray]) -> type[Dumper]:
    class ArrayDumper(Dumper):
        format = Format.BINARY
        oid = kind.array_oid

        def dump(self, obj: PgArray) -> Buffer:
            return obj.data

    return ArrayDumper


_DUMPERS = {kind: _dumper(kind) for kind in (UuidArray, TextArray, ByteaArray, BigIntArray, IntArray, FloatArray)}


def register(connection: AsyncConnection[tuple[object, ...]]) -> None:
    for kind, dumper in _DUMPERS.items():
        connection.adapters.register_dumper(kind, dumper)
