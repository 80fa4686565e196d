"""The health script as Argo CD runs it: Lua with the object as `obj`."""

from pathlib import Path

import pytest
import yaml
from lupa.lua54 import LuaRuntime

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = (ROOT / "manifests/argocd/health.lua").read_text()


def condition(kind, status, reason="R", message="m"):
    return {"type": kind, "status": status, "reason": reason, "message": message}


def health(status=None, generation=2):
    lua = LuaRuntime(unpack_returned_tuples=True, register_eval=False)
    obj = {"metadata": {"generation": generation}}
    if status is not None:
        obj["status"] = status
    lua.globals().obj = lua.table_from(obj, recursive=True)
    found = lua.execute(SCRIPT)
    return found.status, found.message


WELL = [condition("Ready", "True"), condition("Reconciling", "False"), condition("Stalled", "False")]


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (None, "Progressing"),
        ({"observedGeneration": 2}, "Progressing"),
        ({"observedGeneration": 1, "conditions": WELL}, "Progressing"),
        ({"observedGeneration": 2, "conditions": WELL}, "Healthy"),
        ({"observedGeneration": 2, "conditions": [condition("Ready", "False")]}, "Degraded"),
        ({"observedGeneration": 2, "conditions": [condition("Ready", "Unknown")]}, "Progressing"),
        (
            {"observedGeneration": 2, "conditions": [condition("Ready", "False"), condition("Reconciling", "True")]},
            "Progressing",
        ),
        (
            {"observedGeneration": 2, "conditions": [condition("Stalled", "True"), condition("Reconciling", "True")]},
            "Degraded",
        ),
        ({"observedGeneration": 2, "conditions": [*WELL, condition("Paused", "True")]}, "Suspended"),
    ],
)
def test_the_health_follows_the_conditions(status, wanted):
    assert health(status)[0] == wanted


def test_the_message_is_the_reason_and_what_to_do():
    found = health({"observedGeneration": 2, "conditions": [condition("Stalled", "True", "KeyInUse", "Delete one.")]})
    assert found == ("Degraded", "KeyInUse: Delete one.")


def test_the_config_map_for_argo_cd_holds_the_script_for_both_kinds():
    patch = yaml.safe_load((ROOT / "manifests/argocd/argocd-cm-patch.yaml").read_text())
    assert set(patch["data"].values()) == {SCRIPT}
    assert {key.rpartition("_")[2] for key in patch["data"]} == {"RelayMiner", "Supplier"}
