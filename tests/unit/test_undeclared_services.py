"""Relays over transports that the supplier's stake does not declare are served, counted and warned of."""

from types import SimpleNamespace

from pocket_relayer.pipeline import admission
from pocket_relayer.pipeline.admission import Admission


def test_an_undeclared_service_is_warned_of_once_per_supplier_and_transport_and_not_without_end(
    captured_logs, monkeypatch
):
    monkeypatch.setattr(admission, "_MAX_WARNINGS", 3)
    made = Admission.__new__(Admission)
    made._undeclared = set()
    for supplier, service, rpc_type in (
        ("alice", "eth", "grpc"), ("alice", "eth", "grpc"), ("alice", "eth", "rest"), ("bob", "eth", "grpc"),
        ("carol", "eth", "grpc"), ("alice", "eth", "rest"),
    ):  # fmt: skip
        made._count_undeclared(SimpleNamespace(operator_address=supplier), service, rpc_type)
    assert [(row["supplier"], row["rpc_type"]) for row in captured_logs] == [
        ("alice", "grpc"), ("alice", "rest"), ("bob", "grpc"),
    ]  # fmt: skip
