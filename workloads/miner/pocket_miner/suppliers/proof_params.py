"""Read the proof parameters at each block.

Governance may change them until a proof window closes.
"""

import asyncio
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Final

from pocket.chain import convert
from pocket.chain.client import ChainClient
from pocket.errors import ChainError
from pocket.protocol.claims.proof_requirement import ProofParams
from pocket.protocol.pb import pocket_proof_pb2 as proof_pb

_METHOD: Final = "/pocket.proof.Query/Params"
_SECONDS: Final = 5.0
_EVERY_PROOF: Final = ProofParams(proof_request_probability=1.0, proof_requirement_threshold_upokt=0)
"""Unknown parameters: an unneeded proof costs a fee, a missing one the penalty."""


def most_demanding(answers: Collection[ProofParams]) -> ProofParams:
    """Return parameters that require a proof wherever one of the answers does.

    The fee is the lowest one, so that no claim looks unprofitable by a single answer.
    """
    return replace(
        next(iter(answers)),
        proof_request_probability=max(row.proof_request_probability for row in answers),
        proof_requirement_threshold_upokt=min(row.proof_requirement_threshold_upokt for row in answers),
        proof_submission_fee_upokt=min(row.proof_submission_fee_upokt for row in answers),
    )


@dataclass(slots=True)
class ProofParamsByHeight:
    """Queries every node once per block for all suppliers, without caches."""

    chain: ChainClient
    _latest: tuple[int, ProofParams] | None = None
    _before: frozenset[ProofParams] = frozenset()
    """The answers of the latest block that had any."""
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def at(self, height: int) -> ProofParams:
        """Return the params at a height, as two nodes state them, or one at two blocks.

        Until then the most demanding of the answers count. If no node returns them in time, the latest known ones are
        returned, and without any those by which every proof is required. Never raises: what is sealed must be sent.
        """
        async with self._asking:
            if self._latest is None or self._latest[0] != height:
                self._latest = (height, await self._ask(height))
            return self._latest[1]

    async def _ask(self, height: int) -> ProofParams:
        # A node without historical state cannot answer queries at a height.
        try:
            async with asyncio.timeout(_SECONDS):
                answers = await self._answers(height) or await self._answers(0)
        except TimeoutError:
            answers = Counter()
        if not answers:
            return self._latest[1] if self._latest is not None else _EVERY_PROOF
        (best, votes), *others = answers.most_common()
        certain = votes > max((number for _, number in others), default=0) and (votes > 1 or best in self._before)
        params = best if certain else most_demanding({*answers, *self._before})
        self._before = frozenset(answers)
        return params

    async def _answers(self, height: int) -> Counter[ProofParams]:
        try:
            by_node = await self.chain.decoded_by_node(
                _METHOD, proof_pb.QueryParamsRequest(), proof_pb.QueryParamsResponse,
                lambda row: convert.proof_params(row.params), height,
            )  # fmt: skip
        except (ChainError, TimeoutError):
            return Counter()
        return Counter(by_node.values())
