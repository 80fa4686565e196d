"""Windows of HTTP/2 clients: every response is sent to its end, and a byte more of a window wakes one of them."""

import random

from h2.events import DataReceived, StreamEnded
from h2.settings import SettingCodes

from http2_peer import Client, Http2Relayer, iterations
from pocket_relayer.transports.client_timeouts import ClientTimeouts
from pocket_relayer.transports.replies import OutgoingResponse

STREAMS, BYTES = 40, 300


class Echo:
    """Answers each request with as many bytes as its path names."""

    async def answer(self, request):
        return OutgoingResponse(200, {}, b"x" * int(request.path[1:]))


def blocked(sizes, window):
    """Return a client whose requests were answered as far as its windows allow."""
    relayer = Http2Relayer(ClientTimeouts())
    relayer.server.router = Echo()
    client = Client(relayer)
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
    for size in sizes:
        client.open(end=True, path=f"/{size}")
    return client


def arrived(client):
    """Return the bytes of each response that has ended."""
    ended = {one.stream_id for one in client.events if isinstance(one, StreamEnded)}
    sizes = dict.fromkeys(ended, 0)
    for one in client.events:
        if isinstance(one, DataReceived) and one.stream_id in ended:
            sizes[one.stream_id] += len(one.data)
    return sizes


async def test_responses_arrive_whole_however_their_client_opens_its_windows():
    for seed in range(6):
        chance = random.Random(seed)
        sizes = [chance.choice([0, 1, 500, 8000]) for _ in range(STREAMS)]
        client = blocked(sizes, chance.choice([0, 1, 100, 65_535]))
        left, spare = dict(enumerate(sizes)), 65_535
        await iterations(30)
        for _ in range(2000):
            if len(arrived(client)) == STREAMS:
                break
            number = chance.randrange(STREAMS)
            if left[number] and 2 * number + 1 not in arrived(client):
                client.h2.increment_flow_control_window(left[number], 2 * number + 1)
                left[number] = 0
            if spare < sum(sizes):
                step = chance.choice([1, 1000, 60_000])
                client.h2.increment_flow_control_window(step)
                spare += step
            client.send()
            await iterations(3)
        assert arrived(client) == {2 * number + 1: size for number, size in enumerate(sizes)}


async def test_a_byte_more_of_the_connections_window_wakes_one_response():
    client = blocked([BYTES] * STREAMS, 0)
    await iterations(200)
    asked, window_of = [], client.protocol._h2.local_flow_control_window
    client.protocol._h2.local_flow_control_window = lambda number: asked.append(number) or window_of(number)
    for _ in range(100):
        client.h2.increment_flow_control_window(1)
        client.send()
        await iterations(5)
    assert len(asked) < 300


async def test_a_larger_window_of_all_streams_is_paid_by_those_that_it_wakes():
    client = blocked([BYTES] * STREAMS, 0)
    await iterations(200)
    for window in range(1, 60):
        if client.ended():
            break
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        client.send()
        await iterations(20)
    assert client.ended() == [11]
