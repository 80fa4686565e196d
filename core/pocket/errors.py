"""The one hierarchy of errors: what is wrong, where, and what to do."""

import enum
from typing import ClassVar, Final


class PocketError(Exception):
    """Base of every error this product raises on purpose."""


class DecodingError(PocketError):
    """Bytes or text from outside do not have the form the protocol demands."""


class InvalidPoint(DecodingError):
    """Not the encoding of a point of secp256k1."""


class InvalidSignature(PocketError):
    """A ring or response signature that does not hold."""


class InvalidAddress(DecodingError):
    """Not a bech32 address of this chain."""


class InvalidRelay(PocketError):
    """A relay request or response that fails its basic validation or its checks."""


class InvalidProof(PocketError):
    """A Merkle proof that is refused; `stage` is unmarshal, decompact, verify_error or verify_false."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(f"{stage}: {message}")
        self.stage = stage


class ConfigurationError(PocketError):
    """What the user wrote cannot be used; the message names the place and the remedy."""


class FailureClass(enum.StrEnum):
    """What a failed call says about the node, the message or the session it was about."""

    TRANSIENT = "transient"  # unknown or temporary: ask again, or ask another node
    LAGGING_NODE = "lagging_node"  # the node does not have the height yet: ask another node
    PRUNED_NODE = "pruned_node"  # the node does not keep the height any more: ask another node
    WRONG_NODE = "wrong_node"  # the node belongs to another network
    UNSUPPORTED = "unsupported"  # the node does not know the method
    ABSENT = "absent"  # the chain's state has no such entity
    MESSAGE_NEVER = "message_never"  # the chain rejects this message, whoever asks
    SESSION_NEVER = "session_never"  # the chain rejects this session, whoever asks


STATED: Final = frozenset({FailureClass.ABSENT, FailureClass.MESSAGE_NEVER, FailureClass.SESSION_NEVER})
"""What a node says about the chain, as opposed to what it says about itself."""


class ChainError(PocketError):
    """A chain node gave no usable answer.

    failure: what the failure says. height: as of which committed height, 0 where the node did not tell.
    nodes: names of the nodes that said so.
    """

    default: ClassVar[FailureClass] = FailureClass.TRANSIENT

    def __init__(
        self, message: str, *, failure: FailureClass | None = None, height: int = 0, nodes: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.failure = failure or self.default
        self.height = height
        self.nodes = nodes


class ChainUnavailable(ChainError):
    """No node gave a usable answer. Asking again later may help."""


class NotFound(ChainError):
    """The chain knows no such entity."""

    default = FailureClass.ABSENT


class ChainQueryRejected(ChainError):
    """The chain rejects the request, as every node that answered says."""

    default = FailureClass.SESSION_NEVER


class MethodNotImplemented(ChainError):
    """No node knows the method (older release)."""

    default = FailureClass.UNSUPPORTED
