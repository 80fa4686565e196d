"""Settings that the Go programs' parsers were seen to know, and configurations that hold them."""

import copy

NODE = {"query_node_rpc_url": "tcp://node:26657", "query_node_grpc_url": "node:9090", "grpc_insecure": True}
BACKEND = {"url": "http://geth:8545"}
RELAYER = {
    "redis": {"url": "redis://redis:6379/0"},
    "pocket_node": NODE,
    "services": {"eth": {"backends": {"jsonrpc": BACKEND}}},
}
ETH = "services.eth."
JSON_RPC = f"{ETH}backends.jsonrpc."
CHECK = f"{JSON_RPC}health_check."
OF_RELAYER = {
    "listen_addr": "0.0.0.0:8081", "redis.pool_size": 50, "redis.min_idle_conns": 5, "redis.pool_timeout_seconds": 4,
    "redis.conn_max_idle_time_seconds": 300, "redis.namespace.base_prefix": "ha",
    "redis.namespace.cache_prefix": "cache", "redis.namespace.streams_prefix": "relays",
    "redis.namespace.events_prefix": "events",
    "redis.namespace.supplier_prefix": "supplier", "redis.namespace.miner_prefix": "miner",
    "redis.namespace.meter_prefix": "meter", "redis.namespace.params_prefix": "params",
    "keys.keys_file": "/k.yaml", "keys.keys_dir": "/keys", "keys.keyring.backend": "test", "keys.keyring.dir": "/r",
    "keys.keyring.app_name": "pocket", "keys.keyring.key_names": ["alice"],
    f"{ETH}validation_mode": "eager", f"{ETH}timeout_profile": "x", f"{ETH}pool_profile": "x",
    f"{ETH}max_body_size_bytes": 1000, f"{ETH}default_backend": "jsonrpc",
    f"{JSON_RPC}base_path": "/v1", f"{JSON_RPC}load_balancing": "first_healthy", f"{JSON_RPC}headers": {"A": "b"},
    f"{JSON_RPC}authentication.username": "u", f"{JSON_RPC}authentication.password": "p",
    f"{JSON_RPC}authentication.bearer_token": "t", f"{JSON_RPC}authentication.plain_token": "t",
    f"{CHECK}enabled": True, f"{CHECK}endpoint": "/h", f"{CHECK}interval_seconds": 5, f"{CHECK}timeout_seconds": 2,
    f"{CHECK}unhealthy_threshold": 2, f"{CHECK}healthy_threshold": 2, f"{CHECK}method": "POST",
    f"{CHECK}request_body": "{}", f"{CHECK}content_type": "application/json", f"{CHECK}expected_body": "ok",
    f"{CHECK}expected_status": [200], f"{CHECK}headers": {"A": "b"},
    f"{JSON_RPC}max_retries": 2, f"{JSON_RPC}recovery_timeout_seconds": 9,
    "default_validation_mode": "eager", "default_request_timeout_seconds": 20, "default_max_body_size_bytes": 100,
    "timeout_profiles.x.name": "x", "timeout_profiles.x.request_timeout_seconds": 7,
    "timeout_profiles.x.response_header_timeout_seconds": 7, "timeout_profiles.x.dial_timeout_seconds": 3,
    "timeout_profiles.x.tls_handshake_timeout_seconds": 9, "pool_profiles.x.max_conns_per_host": 44,
    "pool_profiles.x.max_idle_conns_per_host": 4, "http_transport.max_idle_conns": 500,
    "http_transport.max_idle_conns_per_host": 100, "http_transport.max_conns_per_host": 77,
    "http_transport.idle_conn_timeout_seconds": 90, "http_transport.dial_timeout_seconds": 4,
    "http_transport.tls_handshake_timeout_seconds": 10, "http_transport.response_header_timeout_seconds": 30,
    "http_transport.expect_continue_timeout_seconds": 1, "http_transport.tcp_keep_alive_seconds": 30,
    "http_transport.disable_compression": True, "response_compression.enabled": True,
    "response_compression.min_size_bytes": 2048, "relay_meter.enabled": False, "relay_meter.redis_key_prefix": "ha",
    "relay_meter.fail_behavior": "closed", "relay_meter.cache_ttl": "2h", "cache_warmup.enabled": True,
    "cache_warmup.warmup_concurrency": 10, "cache_warmup.warmup_timeout_seconds": 5,
    "cache_warmup.known_applications": ["pokt1a"], "metrics.enabled": True, "metrics.addr": ":9090",
    "health_check.enabled": True, "health_check.addr": ":8081", "pprof.enabled": True, "pprof.addr": ":6060",
    "logging.level": "warn", "logging.format": "json", "logging.output": "stdout", "logging.async": True,
    "logging.async_buffer_size": 100000, "logging.async_poll_interval": 100, "logging.sampling": False,
    "logging.sampling_initial": 100, "logging.sampling_thereafter": 10, "logging.enable_caller": False,
    "simulation.enabled": True, "simulation.identities": [{"key_id": "a", "max_rps": 5}],
}  # fmt: skip
OF_MINER = {
    "redis.consumer_name": "m", "redis.claim_idle_timeout_ms": 60000, "redis.pool_size": 9,
    "redis.namespace.base_prefix": "ha", "pocket_node.chain_id": "pocket-beta", "pocket_node.query_timeout_seconds": 8,
    "pocket_node.grpc_insecure": True, "keys.keyring.backend": "test", "transaction.gas_limit": 0,
    "transaction.gas_price": "0.00001upokt", "transaction.gas_adjustment": 2.0,
    "transaction.disable_claim_batching": False,
    "transaction.disable_proof_batching": False, "transaction.tx_timeout_min_seconds": 120,
    "transaction.tx_timeout_max_seconds": 590, "transaction.tx_timeout_default_seconds": 120,
    "transaction.disable_pre_proof_claim_verification": False, "transaction.disable_inclusion_reconciler": False,
    "transaction.inclusion_reconciler_max_concurrent": 64, "transaction.max_rebroadcasts": 1,
    "transaction.rebroadcast_safety_blocks": 1, "transaction.inclusion_reconciler_per_group_timeout_ms": 10000,
    "leader_election.leader_ttl_seconds": 30, "leader_election.heartbeat_rate_seconds": 10,
    "supplier_claiming.claim_ttl_seconds": 90, "supplier_claiming.renew_rate_seconds": 10,
    "supplier_claiming.rebalance_interval_seconds": 30, "session_lifecycle.max_concurrent_transitions": 10,
    "worker_pools.master_pool_size": 0, "worker_pools.query_workers": 20, "worker_pools.settlement_workers": 2,
    "balance_monitor.enabled": True, "balance_monitor.check_interval_seconds": 300,
    "balance_monitor.balance_threshold_upokt": 1000000, "balance_monitor.stake_warning_proof_threshold": 10,
    "balance_monitor.stake_critical_proof_threshold": 3, "block_health_monitor.enabled": True,
    "block_health_monitor.slowness_threshold": 1.5, "block_time_seconds": 45, "settlement_monitor.enabled": True,
    "deduplication_ttl_blocks": 10, "batch_size": 1000, "ack_batch_size": 50, "hot_reload_enabled": True,
    "session_ttl": "24h", "cache_ttl": "2h", "smst_live_root_checkpoint_interval": 10, "submission_tracking_ttl": "24h",
    "supplier_reconcile_interval_seconds": 60, "known_applications": ["pokt1a"], "default_service_factor": 0.5,
    "service_factors": {"eth": 0.25}, "metrics.enabled": True, "metrics.addr": ":9092", "pprof.enabled": False,
    "pprof.addr": ":6060", "logging.level": "info", "logging.async": True,
}  # fmt: skip

NODE_RELAYMINER = """
default_signing_key_names: [second]
default_request_timeout_seconds: 10
default_max_body_size: 20MB
smt_store_path: /home/pocket/.pocket/smt
enable_over_servicing: false
enable_eager_relay_request_validation: true
metrics: {enabled: true, addr: ":9090"}
pprof: {enabled: false, addr: "localhost:6060"}
ping: {enabled: true, addr: "localhost:8081"}
pocket_node:
  query_node_rpc_url: tcp://node:26657
  query_node_grpc_url: tcp://node:9090
  tx_node_rpc_url: tcp://node:26657
suppliers:
- service_id: anvil
  listen_url: http://0.0.0.0:8545
  signing_key_names: [supplier1]
  service_config:
    backend_url: http://anvil:8547
    authentication: {username: user, password: pwd}
    headers: {X-A: b}
    publicly_exposed_endpoints: [relay.example]
    forward_pocket_headers: true
  rpc_type_service_configs:
    rest: {backend_url: "http://rest:8080"}
    websocket: {backend_url: "ws://anvil:8546"}
- service_id: llm
  request_timeout_seconds: 120
  max_body_size: 1GB
  service_config: {backend_url: "http://ollama:11434"}
"""


def put(tree, path, value):
    """Return the tree with a value at a path."""
    tree = copy.deepcopy(tree)
    *folders, name = path.split(".")
    node = tree
    for folder in folders:
        node = node.setdefault(folder, {})
    node[name] = value
    return tree
