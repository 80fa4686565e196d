"""Read the proof parameters at each block.

Governance may change them until a proof window closes.
"""

import asyncio
from dataclasses import dataclass, field

from pocket.chain.client import ChainClient
from pocket.errors import ChainError, DecodingError
from pocket.protocol.claims.proof_requirement import ProofParams


@dataclass(slots=True)
class ProofParamsByHeight:
    """Queries the chain once per block for all suppliers of a process, without caches."""

    chain: ChainClient
    _latest: tuple[int, ProofParams] | None = None
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def at(self, height: int) -> ProofParams:
        """Return the params at a height.

        If no node returns them, the latest known ones are returned. Raises ChainError if there are none.
        """
        async with self._asking:
            if self._latest is not None and self._latest[0] == height:
                return self._latest[1]
            try:
                found = await self.chain.proof_params(height)
            except (ChainError, DecodingError, TimeoutError):
                # A node without historical state cannot answer queries at a height.
                found = self._latest[1] if self._latest is not None else await self.chain.proof_params()
            self._latest = (height, found)
            return found
