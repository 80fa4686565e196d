"""Secrets that name a Redis and hold the login to it."""

import hashlib
from functools import lru_cache

from pocket.api.relayminer import RelayMiner
from pocket_operator.decide.reasons import BlockingProblem, ConditionReason
from pocket_operator.decide.snapshot import Snapshot


def redis_secret(parsed: RelayMiner, snapshot: Snapshot) -> tuple[str, BlockingProblem | None]:
    """Return a digest of the Redis URL in the Secret, which rolls the pods, and the problem with that Secret."""
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
    url = secret.entries.get(reference.key)
    if not url:
        return "", BlockingProblem(
            ConditionReason.REDIS_SECRET_MISSING,
            f"Secret {reference.name} has no entry {reference.key}. Correct spec.redis.urlSecretRef.key or the Secret.",
        )
    uid = str((snapshot.relay_miner or {})["metadata"]["uid"])
    return _url_digest(url, uid), None


def _missing_redis_file(parsed: RelayMiner, snapshot: Snapshot) -> BlockingProblem | None:
    """Return the problem with a Secret that pods mount for Redis: without it they do not start."""
    redis = parsed.spec.redis
    login = redis.credentials_secret_ref
    bundle = redis.ca_bundle.secret_ref if redis.ca_bundle is not None else None
    wanted = [("credentialsSecretRef", login.name, login.password_key)] if login is not None else []
    wanted += [("caBundle.secretRef", bundle.name, bundle.key)] if bundle is not None else []
    for field, name, key in wanted:
        secret = snapshot.secrets.get(name)
        if secret is None or not secret.entries.get(key):
            problem = "does not exist" if secret is None else f"has no entry {key}"
            return BlockingProblem(
                ConditionReason.REDIS_SECRET_MISSING,
                f"Secret {name}, named by spec.redis.{field}, {problem}. Create it.",
            )
    return None


@lru_cache(maxsize=1024)
def _url_digest(url: str, uid: str) -> str:
    """Return 16 hex digits. The hash is slow, so that the URL cannot be guessed from it."""
    return hashlib.scrypt(url.encode(), salt=uid.encode(), n=2**14, r=8, p=1, dklen=8).hex()
