"""What the relayer's figures say of backends and of the parts of a relay."""

import pytest

from metric_growth import Growth
from relays import relaying

pytestmark = pytest.mark.redis


def outcome(growth, name):
    return growth.of("pocket_relayer_backend_answers_total", service="eth", outcome=name)


@pytest.mark.parametrize(("answer", "status", "counted"), [
    ((200, {}, b"{}"), 200, "success"),
    ((404, {}, b"no"), 200, "client_error"),
    ((500, {}, b"broken"), 500, "backend_error"),
])  # fmt: skip
async def test_a_backends_answer_is_counted_once_by_its_outcome(redis, tmp_path, answer, status, counted):
    async with relaying(redis, tmp_path) as relayer:
        relayer.backend.answer = answer
        growth = Growth()
        found, _, _ = await relayer.send(relayer.request())
        assert found == status
        assert outcome(growth, counted) == 1
        assert sum(outcome(growth, name) for name in ("success", "client_error", "backend_error", "aborted")) == 1
        parts = [growth.of("pocket_relayer_stage_seconds_count", stage=s) for s in ("admitted", "recorded")]
        assert parts == [1, 1 if status == 200 else 0]


async def test_retries_are_counted_beside_the_answer(redis, tmp_path):
    backends = {"jsonRpc": {"urls": ["http://127.0.0.1:1", "http://127.0.0.1:2"], "maxRetries": 1}}
    async with relaying(redis, tmp_path, backends=backends) as relayer:
        growth = Growth()
        status, _, _ = await relayer.send(relayer.request())
        assert (status, outcome(growth, "backend_failed")) == (502, 1)
    alive = {"jsonRpc": {"urls": ["http://127.0.0.1:1", "LIVE"], "maxRetries": 1, "strategy": "first_healthy"}}
    async with relaying(redis, tmp_path / "second") as first:
        alive["jsonRpc"]["urls"][1] = first.backend.url
        async with relaying(redis, tmp_path / "third", backends=alive) as relayer:
            growth = Growth()
            status, _, body = await relayer.send(relayer.request(body=b"another"))
            assert status == 200, body
            assert growth.of("pocket_relayer_backend_retries_total", service="eth") == 1
            assert relayer.registry.unhealthy()["eth", "jsonRpc"] == 0


async def test_endpoints_that_are_not_asked_are_counted_by_service_and_transport(redis, tmp_path):
    backends = {"jsonRpc": {"urls": ["http://127.0.0.1:1", "http://127.0.0.1:2"], "unhealthyThreshold": 1}}
    async with relaying(redis, tmp_path, backends=backends) as relayer:
        assert relayer.registry.unhealthy() == {("eth", "jsonRpc"): 0, ("eth", "rest"): 0}
        await relayer.send(relayer.request())
        assert relayer.registry.unhealthy()["eth", "jsonRpc"] == 2
