"""An answer of an HTTP client whose body comes in pieces."""


class ChunkedResponse:
    """Looks like aiohttp's response to its reader. `pieces` is an asynchronous iterator of bytes."""

    def __init__(self, pieces):
        self._pieces = pieces

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        return

    @property
    def content(self):
        return self

    def iter_chunked(self, _):
        return self._pieces
