"""`kubectl pocket` reads the kubeconfig as kubectl does."""

import pytest
import yaml
from click.testing import CliRunner

from relayctl.k8s.cluster_view import default_namespace
from relayctl.k8s.plugin import k8s


def test_the_namespace_is_the_context_s(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    config = tmp_path / "config"
    contexts = [{"name": "a", "context": {"namespace": "team"}}, {"name": "b", "context": {}}]
    config.write_text(yaml.safe_dump({"current-context": "a", "contexts": contexts}))
    assert default_namespace(str(config), None) == "team"
    assert default_namespace(str(config), "b") == "default"
    assert default_namespace(str(tmp_path / "none"), None) == "default"


def test_files_of_a_kubeconfig_are_merged(tmp_path, monkeypatch):
    (tmp_path / "chosen").write_text(yaml.safe_dump({"current-context": "a"}))
    (tmp_path / "contexts").write_text(yaml.safe_dump({"contexts": [{"name": "a", "context": {"namespace": "team"}}]}))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", f"~/chosen:{tmp_path / 'contexts'}:")
    assert default_namespace(None, None) == "team"


@pytest.mark.parametrize("variable", ["", "none-a:none-b"])
def test_a_missing_kubeconfig_is_named(tmp_path, monkeypatch, caplog, variable):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", variable)
    done = CliRunner().invoke(k8s, ["status"])
    assert done.exit_code == 1
    missing = "none-a, none-b" if variable else f"{tmp_path}/.kube/config"
    assert f"no cluster configured: {missing} does not exist" in done.output
    assert caplog.records == []


def test_a_cluster_that_cannot_be_reached_is_reported_before_the_keys_are_watched(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    done = CliRunner().invoke(k8s, ["clean", "main", "-n", "team", "--redis", "redis://127.0.0.1:1/0"])
    assert "no cluster configured" in done.output


@pytest.mark.parametrize("command", ["explain", "bundle"])
def test_a_form_is_an_option_of_what_has_one(command):
    assert "No such option '-o'" in CliRunner().invoke(k8s, [command, "x", "-o", "json"]).output


def test_a_broken_kubeconfig_is_an_error_without_a_traceback(tmp_path):
    config = tmp_path / "config"
    config.write_text("contexts: []")
    done = CliRunner().invoke(k8s, ["status", "--kubeconfig", str(config)])
    assert done.exit_code == 1
    assert "no cluster configured" in done.output
