"""Find the mining targets on which the chain nodes agree.

Relays do not wait for them. A target decides which relays are recorded. One that a single node states too strictly
would lose all others of a session, although they were served.
"""

from collections.abc import Callable
from typing import Final

from pocket.chain.agreement import ConfirmableChain, agreed_target
from pocket.errors import ChainError, DecodingError
from pocket.protocol.relays.difficulty import BASE_TARGET
from pocket.runtime.bounded_dict import BoundedDict
from pocket_relayer.pipeline.background_queries import BackgroundQueries

_KEPT: Final = 4096
_Key = tuple[str, int]
"""Service id and session start height."""


class AgreedTargets:
    """Queries every node for the target of a service at a session start.

    Once for all sessions of both.
    """

    def __init__(self, chain: ConfirmableChain, height: Callable[[], int], background: BackgroundQueries) -> None:
        self._chain = chain
        self._background = background
        self._height = height
        self._agreed: BoundedDict[_Key, bytes] = BoundedDict(_KEPT)
        self._unanswered: BoundedDict[_Key, int] = BoundedDict(_KEPT)

    def of(self, service_id: str, start: int, stated: bytes) -> bytes:
        """Return the target to record by, where one node stated one.

        Until the nodes have answered, every relay is recorded: the miner leaves out what is not applicable. While no
        node answers, the stated target counts, and they are queried again at every block.
        """
        if stated == BASE_TARGET:
            return stated  # every relay is recorded
        key = (service_id, start)
        if (agreed := self._agreed.get(key)) is not None:
            return agreed
        unanswered = self._unanswered.get(key)
        if unanswered != self._height():
            self._background.start(key, lambda: self._ask(key))
        return BASE_TARGET if unanswered is None else stated

    async def _ask(self, key: _Key) -> None:
        height = self._height()
        try:
            target = await agreed_target(self._chain, *key)
        except (ChainError, DecodingError, TimeoutError):
            target = None
        if target is None:
            self._unanswered[key] = height
        else:
            self._agreed[key] = target
