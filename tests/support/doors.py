"""A TCP door whose target can change while connections that are open stay where they are, as behind a Service."""

import asyncio
import contextlib


class Door:
    """TCP proxy from its own port on 127.0.0.1 to `port`.

    `opened` counts connections by target. With an SSL context in `tls` clients speak TLS to it. While there is an
    `answer`, it is what each command of Redis gets.
    """

    answer = None

    def __init__(self, port, tls=None):
        self.port = port
        self.tls = tls
        self.opened = {}
        self._tasks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0, ssl=self.tls)
        self.url = f"redis{'s' if self.tls else ''}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def _forward(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self.opened[self.port] = self.opened.get(self.port, 0) + 1

        async def pipe(source, sink):
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    if self.answer is None or source is not reader:
                        sink.write(data)
                        await sink.drain()
                    else:
                        writer.write(self.answer * data.count(b"*"))
            sink.close()

        with contextlib.closing(writer):  # also where it is cancelled: an open socket fails some later test
            there, back = await asyncio.open_connection("127.0.0.1", self.port)
            with contextlib.closing(back):
                await asyncio.gather(pipe(reader, back), pipe(there, writer))

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
