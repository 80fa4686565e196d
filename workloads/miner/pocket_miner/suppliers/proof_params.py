"""The proof parameters as of each block: governance may change them until a proof window closes."""

import asyncio
from dataclasses import dataclass, field

from pocket.chain.client import ChainClient
from pocket.errors import ChainError, DecodingError
from pocket.protocol.claims.proof_requirement import ProofParams


@dataclass(slots=True)
class ProofParamsByHeight:
    """Asks once a block, for all suppliers of a process, past all caches."""

    chain: ChainClient
    _latest: tuple[int, ProofParams] | None = None
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def at(self, height: int) -> ProofParams:
        """Return the params as of a height; while no node tells them, those of the block before. Raises ChainError."""
        async with self._asking:
            if self._latest is not None and self._latest[0] == height:
                return self._latest[1]
            try:
                found = await self.chain.proof_params(height)
            except (ChainError, DecodingError, TimeoutError):
                # A node that keeps no states answers no question with a height.
                found = self._latest[1] if self._latest is not None else await self.chain.proof_params()
            self._latest = (height, found)
            return found
