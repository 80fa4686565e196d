"""The one hierarchy of errors: what is wrong, where, and what to do."""


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


class ChainError(PocketError):
    """A chain node gave no usable answer."""


class ChainUnavailable(ChainError):
    """No node answered in time; asking again later may help."""


class NotFound(ChainError):
    """The chain knows no such entity."""


class ChainRefusal(ChainError):
    """A node understood the question and refused it; asking again will not help."""
