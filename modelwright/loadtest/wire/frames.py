"""Frames of HTTP/2 (RFC 9113), as far as a gRPC client needs them, and messages of gRPC.

The peer is asked not to use the header table (size 0), so header blocks are read without a state and equal blocks only
once. `hpack` decodes them.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from modelwright.triton.access import Address

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 4, 5
WORD = struct.Struct(">I")
FRAME_HEAD = struct.Struct(">IBI")  # size and kind in one word, flags, stream


class MalformedError(Exception):
    """What is wrong with a frame."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return b"%b%b%b" % (WORD.pack(len(payload))[1:] + bytes((kind, flags)), WORD.pack(stream), payload)


def message_bytes(message: bytes) -> bytes:
    """A gRPC message as DATA frames carry it: a flag (not compressed), its length, its bytes."""
    return b"\0" + WORD.pack(len(message)) + message


@lru_cache(maxsize=64)
def request_headers(address: Address, path: str) -> bytes:
    from hpack import Encoder

    fields = [
        (":method", "POST"),
        (":scheme", "https" if address.is_tls else "http"),
        (":path", path),
        (":authority", address.authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "modelwright"),
        *((name.lower(), value) for name, value in address.access.headers),
    ]
    encoder = Encoder()
    encoder.header_table_size = 0  # the block is sent many times and must not depend on earlier ones
    return bytes(encoder.encode(fields))


@lru_cache(maxsize=256)
def read_headers(block: bytes) -> dict[str, str]:
    from hpack import Decoder, HPACKError

    try:
        return {_text(name): _text(value) for name, value in Decoder().decode(block)}
    except HPACKError as error:
        raise MalformedError(f"headers that cannot be read: {error}") from None


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise MalformedError("more padding than the frame has bytes")
    return payload[1 : len(payload) - payload[0]]
