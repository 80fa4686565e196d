"""Know the gas of claims and proofs.

That is what is typical, and the bounds within which a node's simulation is believed.
"""

from typing import Final

from pocket.protocol.transactions.decode import decode_tx

CLAIM_GAS: Final = 130_000
PROOF_GAS: Final = 400_000
"""Typical gas of a transaction with one message."""
USUAL_RELAY_BYTES: Final = 1000
"""Size of a proven relay up to which a proof uses its typical gas."""
PROOF_GAS_PER_BYTE: Final = 70
"""Gas limit for each further byte: the chain takes 10 for a byte of a transaction and 30 to store one, times 1.7."""
_TYPICAL_PER_BYTE: Final = 40
_MOST_PER_TRANSACTION: Final = 2_000_000
_MOST_PER_BYTE: Final = 5_000
_LEAST: Final = 6
"""Part of the typical gas that every transaction uses: a sixth."""


def typical_gas(raw: bytes) -> int:
    """Return the gas that claims and proofs typically use, rather more than less."""
    transaction = decode_tx(raw)
    messages = CLAIM_GAS * len(transaction.claims) + PROOF_GAS * len(transaction.proofs)
    return messages + _TYPICAL_PER_BYTE * len(raw)


def believed_gas(used: int, raw: bytes) -> int:
    """Return the simulated gas of a transaction, within plausible bounds.

    At most some thirty times what such ones use, and not absurdly little. The fee follows from it and is taken in full,
    so a single wrong answer must not spend the balance. Where it is too low, a few attempts with more gas must be
    enough.
    """
    return max(min(used, _MOST_PER_TRANSACTION + _MOST_PER_BYTE * len(raw)), typical_gas(raw) // _LEAST)
