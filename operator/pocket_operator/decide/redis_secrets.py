"""Secrets that name a Redis and hold the login to it."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pocket.api.relayminer import RelayMiner
from pocket_operator.decide.reasons import BlockingProblem, ConditionReason
from pocket_operator.decide.sections import section
from pocket_operator.decide.snapshot import SecretView, Snapshot

Object = dict[str, Any]


def redis_secret(parsed: RelayMiner, snapshot: Snapshot) -> tuple[str, BlockingProblem | None]:
    """Return a digest of the Redis URL in the Secret, and the Secret's problem.

    A changed digest rolls the pods.
    """
    missing = _missing_redis_file(parsed, snapshot)
    reference = parsed.spec.redis.url_secret_ref
    if missing is not None or reference is None:
        return "", missing
    secret = snapshot.secrets.get(reference.name)
    if secret is None:
        return "", BlockingProblem(
            ConditionReason.REDIS_SECRET_MISSING,
            f"Secret {reference.name}, named by spec.redis.urlSecretRef, does not exist. Create it.",
        )
    if secret.problem:
        return "", BlockingProblem(ConditionReason.API_SERVER_REJECTED, f"{secret.problem}.")
    url = secret.entries.get(reference.key)
    if not url:
        return "", BlockingProblem(
            ConditionReason.REDIS_SECRET_MISSING,
            f"Secret {reference.name} {secret.lacks(reference.key)}. Correct spec.redis.urlSecretRef.key or the "
            "Secret.",
        )
    uid = str((snapshot.relay_miner or {})["metadata"]["uid"])
    return _url_digest(url, uid), None


def _missing_redis_file(parsed: RelayMiner, snapshot: Snapshot) -> BlockingProblem | None:
    """Return the problem with a Secret that pods mount for Redis.

    They do not start without it.
    """
    redis = parsed.spec.redis
    login = redis.credentials_secret_ref
    bundle = redis.ca_bundle.secret_ref if redis.ca_bundle is not None else None
    wanted = [("credentialsSecretRef", login.name, login.password_key)] if login is not None else []
    wanted += [("caBundle.secretRef", bundle.name, bundle.key)] if bundle is not None else []
    for field, name, key in wanted:
        secret = snapshot.secrets.get(name)
        if secret is not None and secret.problem:
            return BlockingProblem(ConditionReason.API_SERVER_REJECTED, f"{secret.problem}.")
        if secret is None or not secret.entries.get(key):
            problem = "does not exist" if secret is None else secret.lacks(key)
            return BlockingProblem(
                ConditionReason.REDIS_SECRET_MISSING,
                f"Secret {name}, named by spec.redis.{field}, {problem}. Create it.",
            )
    return None


@lru_cache(maxsize=1024)
def _url_digest(url: str, uid: str) -> str:
    """Return 16 hex digits.

    The hash is slow, so that the URL cannot be guessed from it.
    """
    return hashlib.scrypt(url.encode(), salt=uid.encode(), n=2**14, r=8, p=1, dklen=8).hex()


def redis_of(relay_miner: Object, secrets: Mapping[str, SecretView | None]) -> str:
    """Return what identifies a RelayMiner's Redis.

    The result is empty if its Secret was not read or is invalid.
    """
    redis = section(relay_miner, "spec", "redis")
    if redis.get("trial") is not None:
        return f"trial of {relay_miner['metadata']['namespace']}/{relay_miner['metadata']['name']}"
    reference = section(redis, "urlSecretRef")
    for kind in ("sentinel", "cluster"):
        if redis.get(kind) is not None:
            return f"{kind} {json.dumps(redis[kind], sort_keys=True)}"
    view = secrets.get(str(reference.get("name", "")))
    return str(redis.get("url") or (view.entries.get(str(reference.get("key", ""))) if view is not None else "") or "")


def redis_secrets_of(relay_miner: Object | None) -> set[str]:
    """Return the names of the Secrets with a RelayMiner's Redis URL and login."""
    redis = section(relay_miner, "spec", "redis")
    references = (("urlSecretRef",), ("credentialsSecretRef",), ("caBundle", "secretRef"))
    return {str(section(redis, *path).get("name", "")) for path in references}
