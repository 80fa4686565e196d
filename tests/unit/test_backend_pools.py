"""Backends: breaker, retries, active checks, freshness, credentials, and services replaced while they serve."""

import asyncio
import os

import pytest

from pocket.api.services import Backend, HealthCheck, ServiceSpec
from pocket.errors import ConfigurationError
from pocket.protocol.relays.envelope import HttpRequest
from pocket_relayer.backends import health, service_registry
from pocket_relayer.backends.credentials import Credentials
from pocket_relayer.backends.health import check_problem, checkers, endpoints_behind, height_in
from pocket_relayer.backends.pools import Pool
from pocket_relayer.backends.service import ServiceBackends
from pocket_relayer.backends.service_registry import ServiceRegistry
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from relays import Backend as Scripted
from relays import listening


def pool(**fields):
    return Pool(Backend.model_validate({"urls": ["http://a", "http://b"], **fields}))


def service(name="eth", url="http://a", **fields):
    return ServiceSpec.model_validate({"id": name, "backends": {"jsonRpc": {"urls": [url]}}, **fields})


def test_an_open_breaker_lets_one_request_try_at_a_time():
    found = pool(urls=["http://a"], unhealthyThreshold=2, recoverySeconds=10)
    (endpoint,) = found.endpoints
    endpoint.failed(0.0)
    assert found.choose(1.0, set()) is endpoint
    endpoint.failed(1.0)
    assert found.choose(5.0, set()) is None
    assert found.choose(11.0, set()) is endpoint, "the one that tries"
    assert found.choose(11.0, set()) is None, "the others wait for what it finds"
    endpoint.succeeded()
    assert found.choose(11.1, set()) is endpoint


def breaker(threshold=3):
    (endpoint,) = pool(urls=["http://a"], unhealthyThreshold=threshold, recoverySeconds=30).endpoints
    return endpoint


def fail(endpoint, now, *clients):
    for client in clients:
        endpoint.failed(now, client)
    return not endpoint.available(now)


@pytest.mark.parametrize(("recovery", "available"), [(0, False), (10, True)])
def test_without_a_time_of_recovery_an_endpoint_stays_out_until_it_is_checked(recovery, available):
    found = pool(urls=["http://a"], unhealthyThreshold=1, recoverySeconds=recovery)
    (endpoint,) = found.endpoints
    endpoint.failed(0.0)
    assert (found.choose(10**6, set()) is endpoint) is available
    endpoint.succeeded()
    assert endpoint.available(10**6)


def test_errors_in_response_to_one_client_leave_an_endpoint_that_serves_others():
    endpoint = breaker()
    for now in range(100):
        endpoint.succeeded("honest")
        assert not fail(endpoint, float(now), *["attacker"] * 5)
        endpoint.succeeded("attacker")  # does not make it the only client


def test_errors_in_response_to_two_clients_open_the_breaker():
    endpoint = breaker()
    endpoint.succeeded("third")
    assert not fail(endpoint, 1.0, "one", "two")
    assert fail(endpoint, 1.0, "one")


def test_an_endpoint_with_one_client_is_taken_out_by_its_errors():
    endpoint = breaker()
    endpoint.succeeded("only")
    assert fail(endpoint, 1.0, "only", "only", "only")


def test_a_client_that_was_served_long_ago_does_not_speak_for_an_endpoint():
    endpoint = breaker()
    endpoint.succeeded("honest")
    assert not fail(endpoint, 100.0, *["other"] * 5)
    assert not fail(endpoint, 130.0, "other")
    assert fail(endpoint, 130.1, "other")


@pytest.mark.parametrize("failures", [[""] * 3, ["one", "", "one"]])
def test_failures_that_no_request_causes_open_the_breaker_at_once(failures):
    endpoint = breaker()
    endpoint.succeeded("honest")
    assert fail(endpoint, 1.0, *failures)


def test_a_success_ends_a_streak_of_errors():
    endpoint = breaker()
    endpoint.succeeded("third")
    assert not fail(endpoint, 1.0, "one", "two")
    endpoint.succeeded("third")
    assert not fail(endpoint, 1.0, "one", "one", "one")


def test_the_clients_of_an_endpoint_are_remembered_up_to_a_limit():
    endpoint = breaker()
    for number in range(1000):
        endpoint.succeeded(f"client {number}")
    assert len(endpoint._served) == 64


@pytest.mark.parametrize(("attacker", "honest", "opened"), [
    ("app1", "app2", False), ("app1 10.0.0.1", "app2 10.0.0.2", False), ("app1", "app1", True),
    ("app1 10.0.0.1", "app2 10.0.0.1", True),
])  # fmt: skip
async def test_requests_that_make_a_backend_fail_cost_other_clients_nothing(attacker, honest, opened):
    backend = Scripted((200, {}, b""))
    async with listening(backend.handle) as url:
        made = service(backends={"jsonRpc": {"urls": [url], "unhealthyThreshold": 3}})
        backends = ServiceBackends(made, lambda: 0.0)
        request = HttpRequest("POST", "/", {}, b"")
        await backends.forward("jsonRpc", request, {}, {}, honest)
        backend.answer = (500, {}, b"")
        for _ in range(3):
            with pytest.raises(Rejected):
                await backends.forward("jsonRpc", request, {}, {}, attacker)
        assert (backends.state()["healthy"] == 0) is opened
        await backends.close()


def test_endpoints_take_turns_and_a_failing_pool_is_not_asked_twice_as_much():
    found = pool()
    assert {found.choose(0.0, set()).url for _ in range(4)} == {"http://a", "http://b"}
    retried = 0
    for _ in range(200):
        first = found.choose(0.0, set())
        retried += found.choose(0.0, {first.url}) is not None
    assert 30 <= retried <= 55, "a fifth in the long run, and ten at once"


@pytest.mark.parametrize(("body", "field", "height"), [
    (b'{"result":"0x1b4"}', "result", 436),
    (b'{"result":{"sync_info":{"latest_block_height":"77"}}}', "result.sync_info.latest_block_height", 77),
    (b'[{"h":5}]', "0.h", 5),
    (b'{"result":true}', "result", None),
    (b'{"result":null}', "result", None),
    (b"not json", "result", None),
    (b'{"result":"-0x1"}', "result", None),
    (b'{"result":"0x7fffffffffffffff"}', "result", 2**63 - 1),
    (b'{"result":"0x8000000000000000"}', "result", None),
    (b'{"result":"0x' + b"f" * 6000 + b'"}', "result", None),
    (b'{"result":' + b"9" * 6000 + b"}", "result", None),
    (b'{"result":"-5"}', "result", None),
    (b"[" * 100_000, "0", None),
])  # fmt: skip
def test_the_block_height_is_found_where_the_check_says(body, field, height):
    assert height_in(body, field) == height


def test_endpoints_that_lag_are_named_with_their_distance():
    assert endpoints_behind({"a": 100, "b": 95, "c": 94}, 5) == {"c": "6 blocks behind"}
    assert endpoints_behind({}, 5) == {}


ALL = ("a", "b", "c", "d")


@pytest.mark.parametrize(("heights", "advancing", "behind"), [
    ({"a": 10**9, "b": 5000, "c": 4999}, ALL, {}),
    ({"a": 10**9, "b": 5000, "c": 4999, "d": 4000}, ALL, {"d": "1000 blocks behind"}),
    ({"a": 10**9, "b": 5000, "c": 4000}, ALL, {"b": "999995000 blocks behind", "c": "999996000 blocks behind"}),
    ({"a": 5100, "b": 5000, "c": 5000}, ("a",), {"b": "100 blocks behind", "c": "100 blocks behind"}),
    ({"a": 5100, "b": 5000, "c": 5000}, ("a", "b"), {"b": "100 blocks behind", "c": "100 blocks behind"}),
    ({"a": 5100, "b": 5100, "c": 5000, "d": 5000}, ALL, {"c": "100 blocks behind", "d": "100 blocks behind"}),
    ({"a": 5100, "b": 5000}, ALL, {"b": "100 blocks behind"}),
    ({"a": 5001, "b": 5000, "c": 4990}, ALL, {"c": "11 blocks behind"}),
])  # fmt: skip
def test_one_height_alone_counts_only_against_endpoints_that_stand_still(heights, advancing, behind):
    assert endpoints_behind(heights, 5, advancing) == behind


async def test_an_endpoint_of_another_network_takes_no_other_one_out():
    chain, other = [Scripted((200, {}, b"")) for _ in range(2)], Scripted((200, {}, b""))
    async with listening(chain[0].handle) as a, listening(chain[1].handle) as b, listening(other.handle) as c:
        check = {"freshness": {"maxBehindBlocks": 5}, "unhealthyThreshold": 3}
        made = service(backends={"jsonRpc": {"urls": [a, b, c], "healthCheck": check}})
        backends = ServiceBackends(made, lambda: 0.0)
        (checker,) = checkers(backends)

        async def check_at(height, foreign):
            for backend in chain:
                backend.answer = (200, {}, b'{"result":%d}' % height)
            other.answer = (200, {}, b'{"result":%d}' % foreign)
            await checker.check_once()

        for n in range(6):
            await check_at(100 + n, 10**9 + n)
        assert backends.state()["healthy"] == 3
        for n in range(11):
            await check_at(105, 10**9 + n)
        assert backends.state()["healthy"] == 3, "their last blocks are ten checks old, and that was found twice"
        await check_at(105, 10**9 + 11)
        assert [row["healthy"] for row in backends.endpoints()] == [False, False, True]
        await backends.close()


async def test_a_check_that_fails_unexpectedly_ends_no_other_check(monkeypatch):
    asked = asyncio.Event()
    sound = Scripted((200, {}, b""), asked=asked)

    def fail_for_eth(check, status, body):
        if b"eth" in body:
            raise RuntimeError("a defect")
        return ""

    monkeypatch.setattr(health, "check_problem", fail_for_eth)
    broken, failed = Scripted((200, {}, b"eth")), asyncio.Event()
    monkeypatch.setattr(service_registry, "_count_restart", failed.set)
    async with listening(broken.handle) as one, listening(sound.handle) as two:
        rows = [
            service(name, backends={"jsonRpc": {"urls": [url], "healthCheck": {"intervalSeconds": 0.1}}})
            for name, url in (("eth", one), ("base", two))
        ]
        registry = ServiceRegistry(rows, lambda: 0.0)
        running = asyncio.create_task(registry.run())
        await asyncio.wait_for(failed.wait(), 10)
        before = len(sound.requests)
        while len(sound.requests) < before + 3:
            asked.clear()
            await asyncio.wait_for(asked.wait(), 10)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await registry.close()


def test_an_answer_is_held_to_status_and_text():
    check = HealthCheck(expect_body="pong")
    assert check_problem(check, 200, b"ping pong") == ""
    assert "text" in check_problem(check, 200, b"ping")
    assert "503" in check_problem(check, 503, b"pong")
    assert check_problem(HealthCheck(expect_status=(503,)), 503, b"") == ""


async def test_active_checks_take_an_endpoint_out_and_back(tmp_path):
    first, second = Scripted((200, {}, b'{"result":"0x64"}')), Scripted((200, {}, b'{"result":"0x10"}'))
    async with listening(first.handle) as one, listening(second.handle) as two:
        check = {"path": "/status", "method": "POST", "body": "{}", "freshness": {"maxBehindBlocks": 5},
                 "unhealthyThreshold": 2, "healthyThreshold": 2}  # fmt: skip
        made = service(backends={"jsonRpc": {"urls": [one + "/v1", two], "healthCheck": check, "headers": {"X": "1"}}})
        backends = ServiceBackends(made, lambda: 0.0)
        (checker,) = checkers(backends)
        lagging = backends.pools["jsonRpc"].endpoints[1]
        await checker.check_once()
        assert lagging.available(0.0), "once is not enough"
        await checker.check_once()
        assert lagging.failed_check == "84 blocks behind"
        assert backends.state()["healthy"] == 1
        assert backends.endpoints()[1]["problem"] == "84 blocks behind"
        second.answer = (200, {}, b'{"result":"0x63"}')
        await checker.check_once()
        assert lagging.failed_check
        await checker.check_once()
        assert not lagging.failed_check
        assert first.requests[0][:2] == ("POST", "/v1/status")
        assert first.requests[0][2]["X"] == "1"
        first.answer = (500, {}, b"")
        for _ in range(2):
            await checker.check_once()
        assert backends.pools["jsonRpc"].endpoints[0].failed_check == "the check got status 500"
        await backends.close()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://127.0.0.1:1", "it cannot be reached (connection refused)"),
        (None, "no answer within 0.1 s"),
    ],
)
async def test_a_failed_check_is_described_in_words(url, problem):
    async def silent(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        url = url or f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        check = {"path": "/", "timeoutSeconds": 0.1 if problem.startswith("no answer") else 5, "unhealthyThreshold": 1}
        backends = ServiceBackends(service(backends={"jsonRpc": {"urls": [url], "healthCheck": check}}), lambda: 0.0)
        (checker,) = checkers(backends)
        await checker.check_once()
        assert backends.pools["jsonRpc"].endpoints[0].failed_check == problem
        await backends.close()


def with_auth(kind, **fields):
    return Backend.model_validate({"urls": ["http://a"], "auth": {"type": kind, "secretRef": {"name": "s"}, **fields}})


def test_credentials_come_from_the_mounted_secret_and_are_read_again(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    for name, text in (("username", "u"), ("password", "p"), ("token", "t1\n"), ("value", "v")):
        (folder / name).write_text(text)
    credentials = Credentials(tmp_path)
    assert credentials.headers(with_auth("basic")) == {"Authorization": "Basic dTpw"}
    assert credentials.headers(with_auth("bearer")) == {"Authorization": "Bearer t1"}
    assert credentials.headers(with_auth("header", header="X-Key")) == {"X-Key": "v"}
    (folder / "token").write_text("t2")
    os.utime(folder / "token", (1, 1))
    assert credentials.headers(with_auth("bearer")) == {"Authorization": "Bearer t2"}


@pytest.mark.parametrize("text", [None, "two\nlines"])
def test_a_secret_that_cannot_be_used_is_named_without_its_value(tmp_path, text):
    if text is not None:
        (tmp_path / "s").mkdir()
        (tmp_path / "s" / "token").write_text(text)
    with pytest.raises(ConfigurationError, match="Secret s") as caught:
        Credentials(tmp_path).headers(with_auth("bearer"))
    assert "lines" not in str(caught.value).replace("single line", "")


async def test_a_changed_service_gets_new_backends_and_the_others_keep_theirs():
    registry = ServiceRegistry([service(), service("base")], lambda: 0.0)
    old, base = registry.get("eth"), registry.get("base")
    with old.used():
        changed = registry.update([service(url="http://b"), service("base"), service("new")])
        assert changed == ["eth", "new"]
        assert registry.get("base") is base
        assert registry.get("eth") is not old
        assert not old.http.kept.closed, "a running request ends with what it began with"
    assert registry.update([service(url="http://b"), service("base")]) == ["new"]
    assert registry.get("new") is None
    await registry.close()
    assert old.http.kept.closed


async def test_a_rejection_does_not_name_the_missing_secret():
    auth = {"type": "bearer", "secretRef": {"name": "geth-token"}}
    made = service(backends={"jsonRpc": {"urls": ["http://127.0.0.1:1"], "auth": auth}})
    backends = ServiceBackends(made, lambda: 0.0)
    with pytest.raises(Rejected) as refused:
        await backends.forward("jsonRpc", HttpRequest("POST", "/", {}, b""), {}, {})
    assert refused.value.reason is RejectionReason.BACKEND_UNHEALTHY
    assert "geth-token" not in refused.value.message
    await backends.close()
