"""CPU time between addresses and applications: a flood or costly relays of one delay another by one quantum a round."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.fair_queue import MAX_WAIT_SECONDS, PER_ITERATION, FairQueue

pytestmark = pytest.mark.timeout(20)  # a turn that is never granted is the failure that these tests look for


async def granted(queue, turns):
    """Return the keys in the order of their turns, all requested in one iteration of the event loop."""
    order = []

    async def take(key, cost):
        await queue.turn(key, cost)
        order.append(key)

    await asyncio.gather(*(take(key, cost) for key, cost in turns))
    return order


async def test_a_flood_of_one_application_delays_another_by_one_relay_per_round():
    queue = FairQueue(lambda: 0.0)
    order = await granted(queue, [("flood", 1.0)] * 1000 + [("other", 1.0)] * 3)
    places = [number for number, key in enumerate(order) if key == "other"]
    assert places == [9, 11, 13], "one by one, after those that needed no wait"


@pytest.mark.parametrize("cost", [1.0, 5.0])
async def test_an_address_that_names_many_applications_delays_another_by_one_relay_per_round(cost):
    queue = FairQueue(lambda: 0.0)
    order = []

    async def take(address, application, cost):
        await queue.turn(address, cost, application)
        order.append(address)

    flood = [take("stranger", f"application {n}", cost) for n in range(1000)]
    await asyncio.gather(*flood, *(take("honest", "application 7", 1.0) for _ in range(8)))
    spent = cost * order[: len(order) - order[::-1].index("honest")].count("stranger")
    assert spent <= PER_ITERATION + 8.0 + 2 * cost, "what needed no wait, and as much time as the honest relays"


async def test_the_applications_of_one_address_take_turns():
    queue = FairQueue(lambda: 0.0)
    order = []

    async def take(application, cost):
        await queue.turn("proxy", cost, application)
        order.append(application)

    await asyncio.gather(*(take("flood", 4.0) for _ in range(100)), *(take("other", 1.0) for _ in range(8)))
    until_last_other = order[: len(order) - order[::-1].index("other")]
    assert until_last_other.count("flood") <= 5, "as much time as the others, after those that needed no wait"


async def test_costly_relays_take_their_share_of_the_time_and_not_of_the_turns():
    queue = FairQueue(lambda: 0.0)
    order = await granted(queue, [("large", 10.0)] * 50 + [("small", 1.0)] * 200)
    until_last_small = order[: len(order) - order[::-1].index("small")]
    spent = {"large": 10.0 * until_last_small.count("large"), "small": 200.0}
    assert abs(spent["large"] - spent["small"]) <= 20.0


async def test_a_turn_needs_no_wait_without_contention():
    queue = FairQueue(lambda: 0.0)
    for _ in range(3):
        turn = queue.turn("one")
        with pytest.raises(StopIteration):
            turn.send(None)
        await asyncio.sleep(0)


async def test_a_full_queue_rejects_those_that_fill_it_and_serves_another_application():
    queue = FairQueue(lambda: 0.0, max_waiting=10)
    flood = [asyncio.create_task(queue.turn("flood")) for _ in range(20)]
    other = asyncio.create_task(queue.turn("other"))
    results = await asyncio.gather(*flood, return_exceptions=True)
    await other
    rejected = [result for result in results if isinstance(result, Rejected)]
    assert len(rejected) == 20 - int(PER_ITERATION) - 10
    assert {result.reason for result in rejected} == {RejectionReason.OVERLOADED}


@pytest.mark.parametrize("cancelled", [False, True])
async def test_relays_that_waited_leave_their_places_to_later_ones(cancelled):
    queue = FairQueue(lambda: 0.0, max_waiting=3, per_iteration=1.0)
    for _ in range(5):
        tasks = [asyncio.ensure_future(queue.turn("address")) for _ in range(4)]
        await asyncio.sleep(0)
        if cancelled:
            tasks[-1].cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [error for error in ended if isinstance(error, Rejected)] == []


async def test_a_relay_that_waited_too_long_is_rejected_and_the_next_one_gets_its_turn():
    now = [0.0]
    queue = FairQueue(lambda: now[0])
    await queue.turn("first", PER_ITERATION)
    late = queue.turn("late")
    late.send(None)
    now[0] = MAX_WAIT_SECONDS + 0.1
    following = queue.turn("following")
    following.send(None)
    await asyncio.sleep(0)
    with pytest.raises(Rejected) as rejected:
        late.send(None)
    assert rejected.value.reason is RejectionReason.OVERLOADED
    with pytest.raises(StopIteration):
        following.send(None)


async def test_cancelled_relays_take_no_turn():
    queue = FairQueue(lambda: 0.0)
    await queue.turn("first", PER_ITERATION)
    tasks = [asyncio.create_task(queue.turn("gone", PER_ITERATION)) for _ in range(5)]
    last = asyncio.create_task(queue.turn("last"))
    asyncio.get_running_loop().call_soon(lambda: [task.cancel() for task in tasks])
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert any(isinstance(result, asyncio.CancelledError) for result in results)
    await last


@given(st.lists(st.tuples(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), st.floats(0.1, 8.0)), max_size=60))
def test_every_turn_is_granted_once_and_in_the_order_of_its_application(turns):
    numbered = [(key, cost, number) for number, (key, cost) in enumerate(turns)]

    async def run():
        queue, order = FairQueue(lambda: 0.0), []

        async def take(key, cost, number):
            await queue.turn(key[0], cost, key[1])
            order.append((key, number))

        async with asyncio.timeout(10):
            await asyncio.gather(*(take(*row) for row in numbered))
        return order

    order = asyncio.run(run())
    assert sorted(number for _, number in order) == list(range(len(turns)))
    for name in {key for key, _ in turns}:
        mine = [number for key, number in order if key == name]
        assert mine == sorted(mine)


async def test_a_turn_beyond_the_limit_of_an_iteration_leaves_the_next_iterations_to_other_work():
    queue, order, iterations = FairQueue(lambda: 0.0, per_iteration=2.0), [], 0

    async def take(cost):
        await queue.turn("stranger", cost)
        order.append((cost, iterations))

    tasks = [asyncio.create_task(take(cost)) for cost in (20.0, 1.0, 1.0, 1.0)]
    while len(order) < len(tasks):
        await asyncio.sleep(0)
        iterations += 1
    (_, costly), *others = order
    assert [costly + 9 <= number <= costly + 12 for _, number in others] == [True] * 3


@pytest.mark.parametrize(("serving", "distance"), [(False, 1), (True, 8)])
async def test_turns_give_way_to_relays_that_are_served_but_go_on(serving, distance):
    queue, places, iterations = FairQueue(lambda: 0.0, per_iteration=1.0, gives_way=lambda: serving), [], 0

    async def take():
        await queue.turn("stranger")
        places.append(iterations)

    tasks = [asyncio.create_task(take()) for _ in range(10)]
    while len(places) < len(tasks):
        await asyncio.sleep(0)
        iterations += 1
    later = places[1:]
    assert [after - before for before, after in itertools.pairwise(later)] == [distance] * 8
