"""Versions beside each other: what another version wrote is used as far as it is known, and the rest is named."""

import json

import pytest
from pydantic import ValidationError

from pocket.api.base import ManifestError
from pocket.api.lenient import read_known
from pocket.api.relayminer import RelayMiner
from pocket.api.workload import MinerConfig, RelayerConfig, ReloadableConfig, parse_reloadable_config, read_config
from pocket_operator.decide.plan import plan
from pocket_operator.resources.config import configurations, reloadable_text
from resources import changed
from snapshots import RM, snapshot


@pytest.fixture(params=[RelayerConfig, MinerConfig])
def written(request, tmp_path):
    """Return a workload's configuration as the operator writes it, and its model."""
    config = next(c for c in configurations(plan(snapshot()).context) if isinstance(c, request.param))
    return request.param, json.loads(config.model_dump_json(by_alias=True)), tmp_path / "config.json"


def test_a_workload_warns_about_fields_of_a_newer_operator_and_uses_all_others(written, captured_logs):
    model, body, path = written
    path.write_text(json.dumps({**body, "shiny": 1, "chain": {**body["chain"], "brightness": {"deep": []}}}))
    newer = read_config(model, path, {"POCKET_REDIS_URL": "redis://r"})
    assert captured_logs[0]["fields"] == ["chain.brightness", "shiny"]
    captured_logs.clear()
    path.write_text(json.dumps(body))
    assert newer == read_config(model, path, {"POCKET_REDIS_URL": "redis://r"})
    assert captured_logs == []


def test_a_relayer_takes_up_the_known_part_of_a_newer_hot_configuration(tmp_path, captured_logs):
    text = reloadable_text(plan(snapshot()).context)
    body = json.loads(text)
    body["services"][0]["backends"]["jsonRpc"]["hue"] = "red"
    newer = parse_reloadable_config(json.dumps(body).encode(), tmp_path / "hot.json")
    assert newer == ReloadableConfig.model_validate_json(text)
    assert newer.suppliers
    assert "services.0.backends.jsonRpc.hue" in str(captured_logs)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"suppliers": 3}', b'{"shiny": 1, "logLevel": "loud"}', b"\xff"])
def test_a_wrong_value_is_refused_whether_or_not_unknown_fields_are_beside_it(tmp_path, content):
    with pytest.raises(ManifestError):
        parse_reloadable_config(content, tmp_path / "hot.json")


def test_reading_what_is_known_changes_nothing_of_what_is_read_and_names_every_unknown_field():
    newer = changed(changed(RM, "spec.relayer.shiny", 1), "spec.chain.nodes.0.colour", {"a": 1})
    before = json.dumps(newer)
    parsed, unknown = read_known(RelayMiner, newer)
    assert (parsed, unknown) == (RelayMiner.model_validate(RM), ("spec.chain.nodes.0.colour", "spec.relayer.shiny"))
    assert json.dumps(newer) == before
    with pytest.raises(ValidationError):
        read_known(RelayMiner, changed(newer, "spec.chain.blockSeconds", 0))
