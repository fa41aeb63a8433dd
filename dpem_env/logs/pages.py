"""What the pages of a Parquet file say they hold, read without unpacking any.

A page of a few bytes may stand for a thousand million values, and the summary at the end of a file need not say so:
libraries believe the page. Summary and headers of pages are structs in Thrift's compact protocol (Apache Parquet,
parquet.thrift, FileMetaData and PageHeader; Apache Thrift, thrift-compact-protocol.md). They are read here because
pyarrow ends the process where some of them are damaged.
"""

from __future__ import annotations

from typing import IO, Any, NamedTuple

MAGIC = b"PAR1"
PARTS = 100  # most parts of anything that the summary lists

# Fields that are needed of a struct, by number, and of those that are structs in turn or lists of them.
Needed = dict[int, "Needed | None"]
COUNTS: Needed = {1: None, 2: None, 4: None}
PAGE: Needed = {1: None, 2: None, 3: None, 5: COUNTS, 7: COUNTS, 8: COUNTS}
CHUNK: Needed = {3: {5: None, 7: None, 9: None, 11: None}}
SUMMARY: Needed = {4: {1: CHUNK}}

DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 0, 2, 3
DESCRIBED = {DATA_PAGE: 5, DICTIONARY_PAGE: 7, DATA_PAGE_V2: 8}  # the field that describes a page of this type
ENCODING = {DATA_PAGE: 2, DICTIONARY_PAGE: 2, DATA_PAGE_V2: 4}  # the field there that names its encoding
ENCODINGS = (0, 2, 3, 8)  # plain, by a dictionary, in runs: these unpack to no more than the page's number of values


class Held(NamedTuple):
    """What a file holds, unpacked."""

    values: list[int]  # of every column without parts, in the order of the schema; empty and missing ones count
    size: int  # bytes of all pages
    length: int  # of the file


def held(stream: IO[bytes]) -> Held:
    """What all pages together hold; ValueError where they and the summary disagree."""
    try:
        return _held(stream)
    except (IndexError, TypeError):  # TypeError: a field is of another type than it should be
        raise ValueError("its summary, or the header of a page, is cut off or of another kind") from None


def _held(stream: IO[bytes]) -> Held:
    length = left = stream.seek(0, 2)
    groups = [group[1] or [] for group in _Reader(_summary(stream, length)).struct(SUMMARY)[4] or []]
    values = [0] * max(map(len, groups), default=0)
    size = 0
    for group in groups:
        if len(group) != len(values):
            raise ValueError("its groups of rows have different columns")
        for place, (chunk,) in enumerate(column.values() for column in group):
            count, packed, start, dictionary = (chunk[field] for field in CHUNK[3] or ())
            left -= packed
            if min(count, packed, start) < 0 or left < 0:
                raise ValueError("its columns are larger than the file")
            if count == 0:
                continue  # nobody looks for pages, and there need not be any
            stream.seek(dictionary if dictionary is not None and 0 < dictionary < start else start)
            inside, unpacked = _in_pages(stream.read(packed), count)
            values[place] += inside
            size += unpacked
    return Held(values, size, length)


def _summary(stream: IO[bytes], length: int) -> bytes:
    stream.seek(max(length - 8, 0))
    end = stream.read()
    start = length - 8 - int.from_bytes(end[:4], "little")
    if end[4:] != MAGIC or start < len(MAGIC):
        raise ValueError("it is no Parquet file, or cut off")
    stream.seek(start)
    return stream.read(length - 8 - start)


def _in_pages(content: bytes, expected: int) -> tuple[int, int]:
    """Number of values and unpacked bytes of the pages of a column in a group of rows."""
    reader, count, size = _Reader(content), 0, 0
    while reader.at < len(content):
        header = reader.struct(PAGE)
        kind, unpacked, packed = header[1], header[2], header[3]
        described = header[DESCRIBED[kind]] if kind in DESCRIBED else None
        if described is None:
            raise ValueError("a page is of a type that logs do not use")
        values = described[1]
        if min(values, unpacked, packed) < 0:
            raise ValueError("a page holds less than nothing")
        if described[ENCODING[kind]] not in ENCODINGS:
            raise ValueError("a page is encoded in a way that logs do not use")
        if kind != DICTIONARY_PAGE:
            count += values
        elif values > expected:
            raise ValueError("a dictionary is larger than what it is for")
        size += unpacked
        reader.at += packed
    if reader.at != len(content) or count != expected:
        raise ValueError(f"its pages hold {count:,} values of a column that has {expected:,}")
    return count, size


class _Reader:
    """Values in Thrift's compact protocol; IndexError at the end of the content.

    Refused is what libraries understand in different ways: fields given twice, and numbers beyond their type.
    """

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def struct(self, needed: Needed) -> dict[int, Any]:
        """The needed fields by number, None where they are missing."""
        fields: dict[int, Any] = dict.fromkeys(needed)
        seen: set[int] = set()
        number = 0
        while head := self._byte():
            kind = head & 15
            number = number + (head >> 4) if head >> 4 else self._number(16)
            if number in seen or not 0 < number < 64:
                raise ValueError("a struct has fields that do not belong there")
            seen.add(number)
            value = None if kind in (1, 2) else self._value(kind, needed.get(number))
            if number in needed:
                fields[number] = value
        return fields

    def _value(self, kind: int, needed: Needed | None) -> Any:
        match kind:
            case 1 | 2 | 3:  # in lists, a truth value is a byte
                return self._byte()
            case 4 | 5 | 6:
                return self._number({4: 16, 5: 32, 6: 64}[kind])
            case 7:
                self.at += 8
            case 8:
                length = self._varint(32)
                self.at += length
            case 9 | 10:
                return self._list(needed)
            case 12:
                found = self.struct(needed or {})
                return found if needed else None
            case _:
                raise ValueError("a struct has values of an unknown type")
        return None

    def _list(self, needed: Needed | None) -> list[Any] | None:
        head = self._byte()
        length = head >> 4 if head >> 4 < 15 else self._varint(32)
        if length > PARTS:
            raise ValueError(f"a struct lists {length:,} parts; expected at most {PARTS}")
        parts = [self._value(head & 15, needed) for _ in range(length)]
        return parts if needed else None

    def _number(self, bits: int) -> int:
        folded = self._varint(bits)
        return folded >> 1 ^ -(folded & 1)

    def _varint(self, bits: int) -> int:
        number = 0
        for place in range(0, 70, 7):
            byte = self._byte()
            number |= (byte & 127) << place
            if byte < 128:
                break
        if number >= 1 << bits:
            raise ValueError(f"a struct has a number beyond {bits} bits")
        return number

    def _byte(self) -> int:
        self.at += 1
        return self.content[self.at - 1]
