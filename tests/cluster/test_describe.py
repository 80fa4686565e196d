"""`kubectl describe` names the cause and the remedy of what is broken."""

import json

import pytest
from waits import create

from kube import condition, eventually
from pocket.keys.sealed_box import Controller, Subject, seal
from pocket_operator.resources.kinds import BY_KIND, RELAY_MINERS, SUPPLIERS
from resources import address, changed, key_of, key_secret, relay_miner, secret, supplier

FOREIGN = seal(Controller.of([bytes(range(32))]).newest, Subject("x", "alice", address("alice")), key_of("alice"))
ROW = {"staked": True, "stake": {"amount_upokt": 10, "services": ["eth"], "unstake_session_end_height": 0}}


def nothing(namespace, nodes):
    return []


def broken_pods(reason, message, component="relayer"):
    def prepare(namespace, nodes):
        nodes.broken[component] = (reason, message)
        return []

    return prepare


def rows(**row):
    def prepare(namespace, nodes):
        nodes.rows[address("alice")] = {**ROW, **row}
        return []

    return prepare


def redis_down(namespace, nodes):
    nodes.redis_problem = "Redis at redis:6379 refused the connection."
    return []


def chain(reason, text):
    def prepare(namespace, nodes):
        nodes.chain = [{"reason": reason, "text": text}]
        return []

    return prepare


def foreign(kind, api_version, name, **body):
    def prepare(namespace, nodes):
        return [{"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, **body}]

    return prepare


# what is broken: preparation, changes of RelayMiner and Supplier by path, Secrets, object looked at, what it says
CASES = {
    "the key Secret is missing": (nothing, {}, {}, [], "sup", ["SecretMissing", "Create it"]),
    "the Secret lacks the entry": (
        nothing,
        {},
        {"spec.key.secretRef.key": "hexx"},
        ["alice"],
        "sup",
        ["SecretKeyMissing", "has no entry hexx"],
    ),
    "the key is no key": (nothing, {}, {}, [secret("", "alice-key", hex="zz")], "sup", ["KeyMalformed", "64 hex"]),
    "the key is another's": (
        nothing,
        {},
        {},
        [secret("", "alice-key", hex=key_of("bob"))],
        "sup",
        ["AddressMismatch", address("bob")],
    ),
    "the sealed key is for another operator": (
        nothing,
        {},
        {"spec.key": {"sealed": FOREIGN}},
        [],
        "sup",
        ["SealingKeyNotFound", "seal the key again"],
    ),
    "the sealed key is nonsense": (
        nothing,
        {},
        {"spec.key": {"sealed": "QUJD" * 30}},
        [],
        "sup",
        ["SealedKeyInvalid", "relayctl keys seal"],
    ),
    "the RelayMiner does not exist": (nothing, None, {}, ["alice"], "sup", ["RelayMinerMissing", "Create it"]),
    "the supplier is not staked": (rows(staked=False), {}, {}, ["alice"], "sup", ["NotStaked", "Stake it"]),
    "a service is not staked": (
        rows(),
        {},
        {"spec.services": ["eth", "base"]},
        ["alice"],
        "sup",
        ["ServicesNotStaked", "Not staked for base"],
    ),
    "the supplier unstaked": (
        rows(stake={"services": ["eth"], "unstake_session_end_height": 9}),
        {},
        {},
        ["alice"],
        "sup",
        ["Unstaking", "last sessions"],
    ),
    "the last session was lost": (
        rows(lost_recently=1, last={"loss": "s1 at 9: claim_missed: too late"}),
        {},
        {},
        ["alice"],
        "sup",
        ["SessionLost", "claim_missed: too late"],
    ),
    "the stake is for more than is served": (
        rows(stake={"services": ["base", "eth"]}, transports={"eth": [2, 3]}),
        {},
        {},
        ["alice"],
        "sup",
        ["StakedServiceNotConfigured", "base, eth over webSocket"],
    ),
    "the account cannot pay fees": (rows(balance_upokt=5), {}, {}, ["alice"], "sup", ["BalanceLow", "Send it some"]),
    "the account has no public key": (
        rows(public_key_on_chain=False),
        {},
        {},
        ["alice"],
        "sup",
        ["PublicKeyMissing", "sign a transaction"],
    ),
    "a public URL leads nowhere": (
        rows(endpoint_problems=["https://r.example: its name does not resolve"]),
        {},
        {},
        ["alice"],
        "sup",
        ["EndpointsBroken", "r.example: its name does not resolve"],
    ),
    "no Supplier names it": (nothing, {}, None, [], "rm", ["NoSuppliers", "Create one"]),
    "the Redis Secret is missing": (
        nothing,
        {"spec.redis": {"urlSecretRef": {"name": "r", "key": "url"}}},
        {},
        ["alice"],
        "rm",
        ["RedisSecretMissing", "Create it"],
    ),
    "the Redis Secret lacks the entry": (
        foreign("Secret", "v1", "r", data={"uri": "eA=="}),
        {"spec.redis": {"urlSecretRef": {"name": "r", "key": "url"}}},
        {},
        ["alice"],
        "rm",
        ["RedisSecretMissing", "has no entry url"],
    ),
    "Redis is away": (redis_down, {}, {}, ["alice"], "rm", ["RedisUnreachable", "refused the connection"]),
    "Redis is away for a Supplier": (
        redis_down,
        {},
        {},
        ["alice"],
        "sup",
        ["RedisUnreachable", "refused the connection"],
    ),
    "the gas price is too low for the node": (
        chain("GasPriceTooLow", "Raise spec.chain.gasPrice."),
        {},
        {},
        ["alice"],
        "rm",
        ["GasPriceTooLow", "Raise spec.chain.gasPrice"],
    ),
    "a clock is slow": (
        chain("ClockSkewed", "Start time synchronisation."),
        {},
        {},
        ["alice"],
        "rm",
        ["ClockSkewed", "Start time synchronisation"],
    ),
    "a chain node strayed": (
        chain("ChainNodesDisagree", "Chain node b:1 is forked: see spec.chain.nodes."),
        {},
        {},
        ["alice"],
        "rm",
        ["ChainNodesDisagree", "b:1 is forked"],
    ),
    "the image cannot be pulled": (
        broken_pods("ImagePullBackOff", "not found"),
        {},
        {},
        ["alice"],
        "rm",
        ["PodsNotReady", "ImagePullBackOff"],
    ),
    "the miner crashes": (
        broken_pods("CrashLoopBackOff", "back-off", "miner"),
        {},
        {},
        ["alice"],
        "rm",
        ["PodsNotReady", "miner: CrashLoopBackOff"],
    ),
    "a Service of that name is there": (
        foreign("Service", "v1", "main-miner", spec={"ports": [{"port": 1}]}),
        {},
        {},
        ["alice"],
        "rm",
        ["ForeignObject", "Service main-miner", "Rename or delete"],
    ),
    "a ConfigMap of that name is there": (
        foreign("ConfigMap", "v1", "main-config", data={}),
        {},
        {},
        ["alice"],
        "rm",
        ["ForeignObject", "ConfigMap main-config"],
    ),
    "the API refuses the pod's affinity": (
        nothing,
        {
            "spec.relayer": {
                "podTemplate": {
                    "affinity": {
                        "nodeAffinity": {
                            "requiredDuringSchedulingIgnoredDuringExecution": {
                                "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In"}]}]
                            }
                        }
                    }
                }
            }
        },
        {},
        ["alice"],
        "rm",
        ["APIServerRejected", "matchExpressions[0].values"],
    ),
    "it is paused": (nothing, {"spec.paused": True}, {}, ["alice"], "rm", ["Paused", "spec.paused"]),
    "nothing is reported yet": (broken_pods("ContainerCreating", ""), {}, {}, ["alice"], "rm", ["RollingOut"]),
}


@pytest.mark.parametrize("case", CASES)
async def test_describe_names_cause_and_remedy_when(api, cluster, namespace, operator, nodes, case):
    prepare, miner_changes, supplier_changes, secrets, resource, said = CASES[case]
    for body in prepare(namespace, nodes):
        await api.create(BY_KIND[body["kind"]], namespace, body)
    for one in secrets:
        body = key_secret(namespace, one) if isinstance(one, str) else one
        await create(api, {**body, "metadata": {**body["metadata"], "namespace": namespace}})
    if miner_changes is not None:
        body = relay_miner(namespace)
        for path, value in miner_changes.items():
            body = changed(body, path, value)
        await create(api, body)
    if supplier_changes is not None:
        body = supplier(namespace)
        for path, value in supplier_changes.items():
            body = changed(body, path, value)
        await create(api, body)
    kind, name = (SUPPLIERS, "alice") if resource == "sup" else (RELAY_MINERS, "main")

    async def told():
        found = await api.get(kind, namespace, name)
        text = json.dumps(found.get("status", {}).get("conditions", []))
        missing = [word for word in said if word not in text]
        assert not missing, (missing, text)
        shown = cluster.kubectl("-n", namespace, "describe", resource, name).stdout
        assert all(word in shown for word in said), "what is told first may be over"
        return found

    found = await eventually(told, 40, case)
    assert condition(found, "Ready")["status"] != "True" or case in (
        "the supplier unstaked",
        "the last session was lost",
        "the stake is for more than is served",
        "the account cannot pay fees",
        "the account has no public key",
        "a clock is slow",
        "a public URL leads nowhere",
        "a chain node strayed",
    )
