"""Encodes and decodes tf.train.Example, the record of TFDS sets, for features of bytes and without TensorFlow.

These are the protocol-buffer messages, as far as they are needed: Example {1: Features}, Features {1: entries of a
map}, an entry {1: name, 2: Feature}, Feature {1: BytesList}, BytesList {1: value, repeated}.
"""

from collections.abc import Iterator, Mapping

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers


def encode(features: Mapping[str, bytes]) -> bytes:
    """Returns the serialized Example with one value per feature, in the order of the mapping."""
    entries = b"".join(
        _field(1, _field(1, name.encode()) + _field(2, _field(1, _field(1, value)))) for name, value in features.items()
    )
    return _field(1, entries)


def decode(record: bytes) -> dict[str, bytes]:
    """Returns the first value of every feature that holds bytes; this is the inverse of `encode`.

    Raises:
      ValueError: if the record is not a serialized Example.
    """
    out = {}
    for number, features in _fields(record):
        for _, entry in _fields(features) if number == 1 else ():
            pair = dict(_fields(entry))
            kinds = dict(_fields(pair.get(2, b"")))  # kind 1 is a BytesList, 2 has floats, 3 integers
            values = [value for _, value in _fields(kinds.get(1, b""))]
            if values:
                out[pair.get(1, b"").decode()] = values[0]
    return out


def _field(number: int, content: bytes) -> bytes:
    """Returns a length-delimited field of a message."""
    return _varint(number << 3 | _LENGTH) + _varint(len(content)) + content


def _varint(n: int) -> bytes:
    """Returns a number in the variable-length code of protocol buffers."""
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields (number, content) of the length-delimited fields of a message and skips the others."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _read_varint(message, at)
            continue
        if kind == _LENGTH:
            length, at = _read_varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"A record has a field of wire type {kind}: it is no tf.train.Example.")
        if at + length > len(message):
            raise ValueError("A record ends within a field: it is cut short or no tf.train.Example.")
        if kind == _LENGTH:
            yield tag >> 3, message[at : at + length]
        at += length


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    """Returns the integer that starts at position `at`, and the position after it."""
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("A record ends within a number: it is cut short or no tf.train.Example.")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
