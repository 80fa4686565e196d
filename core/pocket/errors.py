"""Hierarchy of the product's errors."""

import enum
import os
import ssl
from typing import ClassVar, Final


def system_reason(error: BaseException) -> str:
    """Return the words for an error of a file or connection.

    The name of its class and its address are left out.
    """
    cause = getattr(error, "os_error", error)
    number = cause.errno if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) else None
    if number is not None and number > 0:
        return os.strerror(number)
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


class PocketError(Exception):
    """Base of every error this product raises on purpose."""


class DecodingError(PocketError):
    """External bytes or text that violate the protocol's format."""


class InvalidPoint(DecodingError):
    """Bytes that encode no point of secp256k1."""


class InvalidSignature(PocketError):
    """An invalid ring or response signature."""


class InvalidAddress(DecodingError):
    """A text that is no bech32 address of this chain."""


class InvalidRelay(PocketError):
    """A relay request or response that fails validation."""


class InvalidProof(PocketError):
    """An invalid Merkle proof.

    `stage` is unmarshal, decompact, verify_error or verify_false.
    """

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(f"{stage}: {message}")
        self.stage = stage


class ConfigurationError(PocketError):
    """An unusable configuration. The message names the place and the remedy."""


class FailureClass(enum.StrEnum):
    """Cause of a failed call: the node, the message or the session."""

    TRANSIENT = "transient"  # unknown or temporary: retry, or query another node
    LAGGING_NODE = "lagging_node"  # the node does not have the height yet: query another node
    PRUNED_NODE = "pruned_node"  # the node does not keep the height any more: query another node
    WRONG_NODE = "wrong_node"  # the node belongs to another network
    UNSUPPORTED = "unsupported"  # the node does not know the method
    ABSENT = "absent"  # the chain's state has no such entity
    MESSAGE_NEVER = "message_never"  # the chain always rejects this message
    SESSION_NEVER = "session_never"  # the chain always rejects this session


STATED: Final = frozenset({FailureClass.ABSENT, FailureClass.MESSAGE_NEVER, FailureClass.SESSION_NEVER})
"""Statements about the chain, as opposed to a node's own failures."""


class ChainError(PocketError):
    """A chain node gave no usable answer.

    `failure` is the cause, `height` the committed height of the statement (0 if unknown), `nodes` the nodes that
    made it. `unanswered` are healthy nodes that failed otherwise, so that the statement is not final.
    """

    default: ClassVar[FailureClass] = FailureClass.TRANSIENT

    def __init__(
        self,
        message: str,
        *,
        failure: FailureClass | None = None,
        height: int = 0,
        nodes: tuple[str, ...] = (),
        unanswered: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.failure = failure or self.default
        self.height = height
        self.nodes = nodes
        self.unanswered = unanswered


class ChainUnavailable(ChainError):
    """No node gave a usable answer. A later retry may help."""


class NotFound(ChainError):
    """The chain knows no such entity."""

    default = FailureClass.ABSENT


class ChainQueryRejected(ChainError):
    """The chain rejects the request, according to every node that answered."""

    default = FailureClass.SESSION_NEVER


class MethodNotImplemented(ChainError):
    """No healthy node knows the method (older release)."""

    default = FailureClass.UNSUPPORTED
