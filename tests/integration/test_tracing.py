"""Spans of relays, by the real SDK: stages, refusals, and one trace from gateway to backend."""

import asyncio
import os
import sys

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pocket_relayer.pipeline.tracing import NO_TRACING, OpenTelemetry, tracing_from
from relays import listening, relaying
from world import address

pytestmark = pytest.mark.redis
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("validation", ["eager", "optimistic"])
async def test_a_relay_is_one_span_with_its_stages_between_the_gateways_and_the_backends(redis, tmp_path, validation):
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    service = {"validation": validation}
    async with relaying(redis, tmp_path, tracing=OpenTelemetry(provider), service=service) as relayer:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        assert (await relayer.send(relayer.request(), headers))[0] == 200
        (span,) = spans.get_finished_spans()
        assert f"{span.context.trace_id:032x}" == TRACE
        assert f"{span.parent.span_id:016x}" == PARENT
        stages = [event.name for event in span.events]
        assert stages == ["admitted", "answered", "recorded"] if validation == "eager" else ["answered", "recorded"]
        assert span.attributes["pocket.supplier"] == address("alice")
        ((_, _, seen, _),) = relayer.backend.requests
        assert seen["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
        relayer.backend.answer = (503, {}, b"")
        assert (await relayer.send(relayer.request(body=b"2")))[0] == 503
        refused = spans.get_finished_spans()[1]
        assert (refused.status.is_ok, refused.attributes["pocket.reason"]) == (False, "backend_error")


async def test_spans_reach_a_collector_and_without_one_nothing_is_made(monkeypatch):
    received = []

    async def collector(request):
        received.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response()

    assert tracing_from({}, 0) is NO_TRACING
    async with listening(collector) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        tracing = tracing_from(os.environ, 3)
        with tracing._tracer.start_as_current_span("relay"):
            pass
        await asyncio.to_thread(tracing.close)
    (resource,) = received[0].resource_spans
    told = {row.key: row.value for row in resource.resource.attributes}
    assert (told["service.name"].string_value, told["pocket.worker"].int_value) == ("relayer", 3)
    assert resource.scope_spans[0].spans[0].name == "relay"


def test_an_image_without_the_extra_says_so_and_serves_on(monkeypatch, captured_logs):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert tracing_from({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, 0) is NO_TRACING
    assert "Install the extra 'tracing'" in str(captured_logs)
