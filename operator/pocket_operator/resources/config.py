"""Build the workloads' ConfigMaps and key Secrets."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from pocket.api.redis import RedisAccess
from pocket.api.workload import LeaseOwner, MinerConfig, RelayerConfig, config_text
from pocket_operator.resources import names
from pocket_operator.resources.context import Context, Object
from pocket_operator.resources.workload_config import RuntimePaths, miner_config, relayer_config, reloadable_config

CONFIG_DIR, KEYS_DIR, HOT_DIR, SECRETS_DIR, DATA_DIR = (
    Path(p) for p in ("/config", "/keys", "/hot", "/secrets", "/data")
)
REDIS_LOGIN_DIR, REDIS_CA_DIR, SIGNER_DIR = Path("/redis/login"), Path("/redis/ca"), Path("/signer")
HOT_FILE = "hot.json"
ADMIN_PORT = 9090
REDIS_URL_VARIABLE = "POCKET_REDIS_URL"


def redis_access(context: Context) -> RedisAccess:
    """Return where the files are mounted with which workloads get access to Redis."""
    redis = context.relay_miner.spec.redis
    login, bundle = redis.credentials_secret_ref, redis.ca_bundle
    reference = None if bundle is None else bundle.secret_ref or bundle.config_map_ref
    return RedisAccess(
        username_file=None if login is None else str(REDIS_LOGIN_DIR / login.username_key),
        password_file=None if login is None else str(REDIS_LOGIN_DIR / login.password_key),
        ca_file=None if reference is None else str(REDIS_CA_DIR / reference.key),
        durability=redis.durability,
    )


def _runtime_paths(context: Context) -> RuntimePaths:
    return RuntimePaths(
        redis_url=f"env:{REDIS_URL_VARIABLE}",
        redis_access=redis_access(context),
        keys_dir=KEYS_DIR,
        data_dir=DATA_DIR,
        hot_file=HOT_DIR / HOT_FILE,
        secrets_dir=SECRETS_DIR,
        signer_dir=SIGNER_DIR,
        admin_port=ADMIN_PORT,
        lease=names.miner(context.name),
        lease_owner=LeaseOwner(
            api_version="pocket.network/v1beta1", kind="RelayMiner", name=context.name, uid=context.uid
        ),
        peer_domain=f"{names.miner(context.name)}.{context.namespace}.svc",
        keys_required=False,
    )


def configurations(context: Context) -> tuple[RelayerConfig, MinerConfig]:
    """Return the configurations that roll the pods when they change.

    So neither contains suppliers or services.
    """
    paths = _runtime_paths(context)
    return relayer_config(context.relay_miner, paths), miner_config(context.relay_miner, paths)


def digest(value: Any) -> str:
    """Return a digest of a JSON value, 16 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def config_digests(context: Context) -> tuple[str, str]:
    """Return the digests of both workloads' configuration.

    Changed ones roll the pods.
    """
    relayer, miner = configurations(context)
    return digest(config_text(relayer)), digest(config_text(miner))


def config_maps(context: Context) -> list[Object]:
    """Build the ConfigMaps: one that rolls the pods, and one that relayers reload."""
    relayer, miner = (
        context.kept[component].revision.config if component in context.kept else text(context)
        for component, text in ((names.RELAYER, relayer_text), (names.MINER, miner_text))
    )
    rolling = {
        "relayer.json": relayer if context.rollout is None else context.rollout.steady.config,
        "miner.json": miner,
    }
    return [
        context.object("v1", "ConfigMap", names.config(context.name), "config", data=rolling),
        context.object(
            "v1", "ConfigMap", names.hot(context.name), "config",
            data={HOT_FILE: reloadable_text(context)},
        ),
    ]  # fmt: skip


def relayer_text(context: Context) -> str:
    """Return the configuration that relayers read when they start."""
    return config_text(configurations(context)[0])


def miner_text(context: Context) -> str:
    """Return the configuration that miners read when they start."""
    return config_text(configurations(context)[1])


def reloadable_text(context: Context) -> str:
    """Return the configuration that relayers reload while they run."""
    serving = [(s.address, s.services) for s in context.suppliers if not s.draining]
    return config_text(reloadable_config(context.relay_miner, serving))


def auth_secrets(context: Context) -> list[str]:
    """Return the names of the Secrets that backends' auth needs, which relayers mount."""
    backends = [b for service in context.relay_miner.spec.services for b in service.backends.by_type().values()]
    return sorted({backend.auth.secret_ref.name for backend in backends if backend.auth})


def key_secrets(context: Context) -> list[Object]:
    """Build the key set of each workload.

    Miners keep a draining supplier's key until its sessions are over.
    """
    secrets = []
    for component in (names.MINER,) if context.deleting else (names.RELAYER, names.MINER):
        keys = {
            s.address: base64.b64encode(s.key_hex.encode()).decode()
            for s in context.suppliers
            if component == names.MINER or not s.draining
        }
        secrets.append(
            context.object("v1", "Secret", names.keys(context.name, component), component, type="Opaque", data=keys)
        )
    return secrets
