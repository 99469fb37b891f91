"""Answers that are read no further than a coordinator has anything to say."""

from collections.abc import Iterator

import httpx

LARGEST = 8 * 2**20
"""Bytes of one answer. Flower cuts what is larger into pieces of 5 MiB."""
TOO_LARGE = f"an answer of more than {LARGEST} bytes, or one that is packed"


class _Counted(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self._stream:
            size += len(part)
            if size > LARGEST:
                raise httpx.RemoteProtocolError(TOO_LARGE)
            yield part

    def close(self) -> None:
        self._stream.close()


def bounded(response: httpx.Response) -> None:
    """Before any of it is read: an answer that is too large is not taken into memory, whatever it says of its length."""
    length = response.headers.get("content-length", "0")
    if "content-encoding" in response.headers or not length.isdigit() or int(length) > LARGEST:
        raise httpx.RemoteProtocolError(TOO_LARGE)
    assert isinstance(response.stream, httpx.SyncByteStream)
    response.stream = _Counted(response.stream)
