"""The operator's Lease is renewed whatever its process does, and given up after everything else."""

import asyncio
import contextlib
import copy
import threading

import pytest

from pocket.coordination.elector import LeaseTiming
from pocket.coordination.leader_lease import LeaseElector
from pocket.kube.api_client import Conflict, KubeApi, KubeError, ObjectNotFound
from pocket_operator.controller.lease_thread import LeaseThread
from pocket_operator.resources.kinds import LEASES

TIMING = LeaseTiming(lease=8.0, renew=5.0, retry=0.01, call=1.0)
SECONDS = 10.0


class LeaseServer:
    """One Lease. `renewed` is set at its fifth write."""

    def __init__(self):
        self.lease, self.version, self.renewed, self.away = None, 0, threading.Event(), False

    async def call(self, method, path, body=None, timeout_seconds=None):
        if self.away:
            raise KubeError("the API server is away")
        if method == "GET":
            if self.lease is None:
                raise ObjectNotFound("no such Lease")
            return copy.deepcopy(self.lease)
        if method == "PUT" and body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise Conflict("a stale version")
        self.version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)
        if self.version == 5:
            self.renewed.set()
        return copy.deepcopy(self.lease)

    @property
    def holder(self):
        return self.lease["spec"]["holderIdentity"]


@pytest.fixture
def server():
    return LeaseServer()


def lease_thread(server):
    @contextlib.asynccontextmanager
    async def connection():
        yield server

    return LeaseThread(connection, lambda api: LeaseElector(api, "ns", "leader", "one_a_1", timing=TIMING))


async def test_a_process_that_is_busy_keeps_its_lease(server):
    async with lease_thread(server) as lease:
        assert await lease.acquire(asyncio.Event())
        assert server.renewed.wait(SECONDS), "nothing else runs in this loop until then"
        assert lease.leads


async def test_the_lease_is_released_after_what_it_led(server):
    async with lease_thread(server) as lease:
        assert await lease.acquire(asyncio.Event())
        waiting = asyncio.create_task(lease.lost())
        await asyncio.sleep(0)
        waiting.cancel()  # as it is when the operator stops
        server.renewed.wait(SECONDS)
        assert server.holder == "one_a_1"
    assert (server.holder, lease.leads) == ("", False)


async def test_another_holder_ends_leadership_and_is_left_alone(server):
    async with lease_thread(server) as lease:
        assert await lease.acquire(asyncio.Event())
        server.renewed.wait(SECONDS)
        server.lease["spec"]["holderIdentity"], server.lease["metadata"]["resourceVersion"] = "two_b_2", "99"
        async with asyncio.timeout(SECONDS):
            assert "two_b_2" in await lease.lost()
        assert not lease.leads
    assert server.holder == "two_b_2"


async def test_a_replica_that_waits_for_the_lease_can_be_stopped(server):
    server.away, stop = True, asyncio.Event()
    async with asyncio.timeout(SECONDS), lease_thread(server) as lease:
        waiting = asyncio.create_task(lease.acquire(stop))
        await asyncio.sleep(0)
        stop.set()
        assert not await waiting


async def test_a_connection_that_cannot_be_made_ends_the_wait():
    @contextlib.asynccontextmanager
    async def connection():
        raise KubeError("no cluster configured")
        yield

    async with LeaseThread(connection, None) as lease:
        for wait in (lease.acquire(asyncio.Event()), lease.lost()):
            with pytest.raises(KubeError, match="no cluster configured"):
                await wait


async def test_who_may_no_longer_lead_sends_no_write():
    api = KubeApi(None)
    api.may_write = lambda: False
    with pytest.raises(KubeError, match="may no longer write"):
        await api.delete(LEASES, "ns", "one")
