import pathlib as _p

HERE = str(_p.Path(__file__).parent)
import pathlib, re, shutil
import pathlib as _p

HERE = str(_p.Path(__file__).parent)
P = pathlib.Path
p = P("docs/architecture.md")
t = p.read_text()
i = t.index("## The parts")
j = t.index("## A relay's way")
t = (
    t[:i]
    + """## The parts

```mermaid
flowchart LR
  gateway([gateway]) -->|ring-signed relay| relayer
  relayer -->|request| backend([backend])
  relayer -->|record| redis[(Redis)]
  redis -->|read| miner
  miner -->|claim, proof| chain([chain nodes])
  relayer -->|query| chain
  operator -->|Deployment, StatefulSet, keys| kubernetes([Kubernetes API])
  miner -->|Leases| kubernetes
```

| import root | folder | what |
|--|--|--|
| `pocket` | `core/pocket` | what every process stands on |
| `pocket_relayer` | `workloads/relayer` | serves and records relays |
| `pocket_miner` | `workloads/miner` | claims and proves what was recorded |
| `pocket_operator` | `operator` | reconciles `RelayMiner` and `Supplier` |
| `pocket_localnet` | `workloads/localnet` | a small chain for trials and tests |
| `relayctl` | `cli` | the command line and `make demo` |

The rooms of each, lowest first. A room imports only what stands above it in the table; import-linter checks it (`make lint`).

| room | what |
|--|--|
| `pocket.errors` | the one hierarchy of errors |
| `pocket.protocol` | the Shannon protocol without I/O: `crypto`, `smst`, `sessions`, `rings`, `relays`, `claims`, `transactions` |
| `pocket.api` | `RelayMiner`, `Supplier`, status, the workloads' configuration (pydantic) |
| `pocket.runtime`, `pocket.kube` | program start, logs, statistics; the Kubernetes API client |
| `pocket.keys` | supplier keys: files, folders, sealed keys |
| `pocket.chain` | chain nodes: gRPC and CometBFT clients, failover, block feed, node health, settlement events |
| `pocket.redis_store` | what lies in Redis: relay streams, recorder, write-ahead log, seals, budgets |
| `pocket.coordination` | elections, Leases, shards |
| `pocket.chain_cache` | chain answers, heights and invalidations shared through Redis |
| `pocket_relayer.backends` | pools, health checks, HTTP and gRPC calls |
| `pocket_relayer.pipeline` | a relay's way: admission, metering, forwarding, signing, recording |
| `pocket_relayer.transports` | HTTP/1.1, HTTP/2, gRPC, WebSocket |
| `pocket_relayer.process` | supervisor and workers |
| `pocket_miner.storage` | the volume: relays, seals, audit trail, trie processes |
| `pocket_miner.sessions`, `pocket_miner.ownership` | what is known of a session and its stage; shards and Leases |
| `pocket_miner.ingest`, `pocket_miner.status` | streams and peers into the volume; `/report` and readiness |
| `pocket_miner.submission` | build, sign and send claims and proofs |
| `pocket_miner.settlement` | conclude sessions from what the chain states |
| `pocket_miner.suppliers` | one loop for each supplier that is owned |
| `pocket_operator.resources` | build Kubernetes objects |
| `pocket_operator.decide` | decide what should be, pure functions of a snapshot |
| `pocket_operator.controller` | watches, queue, reconciliation |

"""
    + t[j:]
)
p.write_text(t)
for f in [*P("docs").glob("*.md"), *P("docs/fragile").glob("*.md"), P("README.md"), P("CONTRIBUTING.md")]:
    t = f.read_text()
    n = (
        t.replace("-m miner.console", "-m pocket_miner.console")
        .replace("pocket-relayer[tracing]", "pocket-relay-mining[relayer,tracing]")
        .replace("`miner.stages.decide`", "`pocket_miner.sessions.stages.decide`")
        .replace("`miner.gate.leaf_of`", "`pocket_miner.sessions.leaf_validation.leaf_of`")
        .replace("`miner.gate`", "`pocket_miner.sessions.leaf_validation`")
    )
    if n != t:
        f.write_text(n)
p = P("CONTRIBUTING.md")
t = p.read_text()
t = re.sub(
    r"- \*\*Where things are\.\*\*.*?(?=\n- \*\*)",
    """- **Where things are.** `core/pocket` is what every process stands on (protocol, chain, Redis, coordination, API models),
  `workloads/relayer`, `workloads/miner` and `workloads/localnet` the workloads, `operator` the reconciliation, `cli` relayctl.
  [docs/architecture.md](docs/architecture.md) has a line for each room. Rooms import in one direction; `make lint` enforces it.""",
    t,
    flags=re.S,
)
p.write_text(t)
for n in ("0023-layout.md", "0024-v1beta1.md"):
    shutil.copy(HERE + f"/docs/{n}", f"docs/decisions/{n}")
p = P("CHANGELOG.md")
t = p.read_text()
i = t.index("### Changed") if "### Changed" in t.split("## ", 2)[1] or "### Changed" in t else None
note = """- **Names.** The API version is `pocket.network/v1beta1`; change the first line of your files. The kind `HeldNamespaces` is
  `ProtectedNamespaces` now. Reasons of conditions: `AllWell` is `Ready`, `SuppliersWait` `SuppliersNotReady`, `StakedBeyond`
  `StakedServiceNotConfigured`, `ClaimsSettle` `ClaimsHealthy`, `NodesDiffer` `ChainNodesDisagree`, `SealForAnother`
  `SealedKeyScopeMismatch`, `SealBroken` `SealedKeyInvalid`, `SealKeyUnknown` `SealingKeyNotFound`, `RefusedByAPI`
  `APIServerRejected`. Metrics: `pocket_operator_leads` is `pocket_operator_leader`, `pocket_miner_relays_followed_total`
  `pocket_miner_standby_relays_total`, `…_chain_answers_total` `…_chain_cache_requests_total`, `pocket_relayer_relays_waiting`
  `pocket_relayer_relays_queued`, `pocket_relayer_chain_node_standing` `pocket_relayer_chain_node_health` (label `health`:
  healthy, disputed, lagging, unreachable, forked, wrong_chain), `pocket_miner_foreign_claims_total`
  `pocket_miner_conflicting_claims_total`. Alerts: `PocketForeignClaim` is `PocketConflictingClaim`, `PocketChainNodesDiffer`
  `PocketChainNodesDisagree`.
- Everything is one distribution, `pocket-relay-mining`, with extras; containers run `python -m pocket_relayer` and
  `python -m pocket_miner` ([docs/decisions/0023-layout.md](docs/decisions/0023-layout.md)).
"""
if i is not None:
    e = t.index("\n", i) + 1
    while t[e] == "\n":
        e += 1
    t = t[:e] + note + t[e:]
else:
    i = t.index("### Added")
    t = t[:i] + "### Changed\n\n" + note + "\n" + t[i:]
p.write_text(t)
shutil.copy(HERE + "/docs/glossary.md", "docs/glossary.md")
