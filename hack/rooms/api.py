import pathlib, re, subprocess

from edits import sub

P = pathlib.Path
W = [  # whole word, everywhere
    ("AllWell", "Ready"),
    ("SuppliersWait", "SuppliersNotReady"),
    ("StakedBeyond", "StakedServiceNotConfigured"),
    ("ClaimsSettle", "ClaimsHealthy"),
    ("NodesDiffer", "ChainNodesDisagree"),
    ("SealForAnother", "SealedKeyScopeMismatch"),
    ("SealBroken", "SealedKeyInvalid"),
    ("SealKeyUnknown", "SealingKeyNotFound"),
    ("RefusedByAPI", "APIServerRejected"),
    ("ALL_WELL", "READY"),
    ("SUPPLIERS_WAIT", "SUPPLIERS_NOT_READY"),
    ("STAKED_BEYOND", "STAKED_SERVICE_NOT_CONFIGURED"),
    ("CLAIMS_SETTLE", "CLAIMS_HEALTHY"),
    ("NODES_DIFFER", "CHAIN_NODES_DISAGREE"),
    ("SEAL_FOR_ANOTHER", "SEALED_KEY_SCOPE_MISMATCH"),
    ("SEAL_BROKEN", "SEALED_KEY_INVALID"),
    ("SEAL_KEY_UNKNOWN", "SEALING_KEY_NOT_FOUND"),
    ("REFUSED_BY_API", "API_SERVER_REJECTED"),
    ("HeldNamespaces", "ProtectedNamespaces"),
    ("HeldNamespacesSpec", "ProtectedNamespacesSpec"),
    ("heldnamespaces", "protectednamespaces"),
    ("HELD_NAMESPACES", "PROTECTED_NAMESPACES"),
    ("held_namespaces", "protected_namespaces"),
    ("pocket_operator_leads", "pocket_operator_leader"),
    ("pocket_miner_relays_followed_total", "pocket_miner_standby_relays_total"),
    ("pocket_miner_chain_answers_total", "pocket_miner_chain_cache_requests_total"),
    ("pocket_relayer_chain_answers_total", "pocket_relayer_chain_cache_requests_total"),
    ("pocket_relayer_relays_waiting", "pocket_relayer_relays_queued"),
    ("pocket_relayer_chain_node_standing", "pocket_relayer_chain_node_health"),
    ("pocket_miner_foreign_claims_total", "pocket_miner_conflicting_claims_total"),
    ("PocketForeignClaim", "PocketConflictingClaim"),
]
W += [
    ("_standings", "_node_health"),
    ("standing", "health"),
    ("standings", "node_health"),
    ("PocketChainNodesDiffer", "PocketChainNodesDisagree"),
]
T = [  # text
    ("Chain node b:1 is behind:", "Chain node b:1 is lagging:"),
    ('"health": "behind"', '"health": "lagging"'),
    ('health="good"', 'health="healthy"'),
    ('health="behind"', 'health="lagging"'),
    ('health!="good"', 'health!="healthy"'),
    ('health!=\\"good\\"', 'health!=\\"healthy\\"'),
    (
        "health: good, disputed, behind, silent, forked, foreign",
        "health: healthy, disputed, lagging, unreachable, forked, wrong_chain",
    ),
    ("ClaimState.FOREIGN", "ClaimState.CONFLICTING"),
    ("NodeHealth.GOOD", "NodeHealth.HEALTHY"),
    ("NodeHealth.BEHIND", "NodeHealth.LAGGING"),
    ("NodeHealth.SILENT", "NodeHealth.UNREACHABLE"),
    ("NodeHealth.FOREIGN", "NodeHealth.WRONG_CHAIN"),
    ("pocket.network/v1alpha1", "pocket.network/v1beta1"),
]
pat = re.compile(
    r"(?<![A-Za-z0-9_])(%s)(?![A-Za-z0-9_])" % "|".join(re.escape(a) for a, _ in sorted(W, key=lambda r: -len(r[0])))
)
D = dict(W)
for f in subprocess.run(["git", "ls-files"], capture_output=True, text=True).stdout.split("\n")[:-1]:
    p = P(f)
    if not p.exists() or f.startswith(("docs/decisions", "tests/vectors/data")) or f == "CHANGELOG.md" or "_pb2" in f:
        continue
    try:
        t = p.read_text()
    except UnicodeDecodeError:
        continue
    n = pat.sub(lambda m: D[m[1]], t)
    for a, b in T:
        n = n.replace(a, b)
    if n != t:
        p.write_text(n)


sub("core/pocket/api/base.py", ('VERSION = "v1alpha1"', 'VERSION = "v1beta1"'))
subprocess.run(
    "git mv crds/heldnamespaces.yaml crds/protectednamespaces.yaml; git mv manifests/crds/heldnamespaces.yaml manifests/crds/protectednamespaces.yaml; git mv manifests/chart/crds/heldnamespaces.yaml manifests/chart/crds/protectednamespaces.yaml",
    shell=True,
)
sub("workloads/miner/pocket_miner/sessions/stages.py", ('    FOREIGN = "foreign"', '    CONFLICTING = "conflicting"'))
sub(
    "core/pocket/chain/node_health.py",
    ('GOOD = "good"', 'HEALTHY = "healthy"'),
    ('BEHIND = "behind"', 'LAGGING = "lagging"'),
    ('SILENT = "silent"', 'UNREACHABLE = "unreachable"'),
    ('FOREIGN = "foreign"', 'WRONG_CHAIN = "wrong_chain"'),
)
