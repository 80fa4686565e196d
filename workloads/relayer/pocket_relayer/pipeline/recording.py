"""Record relays exactly as they are served.

Source: relay-lifecycle.md, section 8.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from pocket.api.relayminer import Recording
from pocket.protocol.relays.difficulty import is_applicable
from pocket.protocol.relays.messages import RelayResponse, relay_hash
from pocket.protocol.relays.wire import bytes_field
from pocket.protocol.transactions.batches import MAX_TRANSACTION_BYTES, largest_leaf
from pocket.redis_store.log_records import WalRecord
from pocket.redis_store.relay_recorder import RelayRecorder
from pocket.redis_store.store_errors import LogUnavailable, QueueFull, RedisStoreError, SessionClosed
from pocket_relayer import relayer_metrics
from pocket_relayer.limits.rejection import Rejected, RejectionReason
from pocket_relayer.pipeline.authorization import Admitted
from pocket_relayer.pipeline.metering import Metered
from pocket_relayer.pipeline.recently_mined import RecentlyMined
from pocket_relayer.pipeline.relay import AdmissibleRelay
from pocket_relayer.pipeline.relay_metrics import mined_series
from pocket_relayer.relayer_metrics import Unrecorded

LARGEST_LEAF = largest_leaf(MAX_TRANSACTION_BYTES)
_UNRECORDED: Final[Mapping[type, Unrecorded]] = {
    SessionClosed: Unrecorded.SESSION_CLOSED, LogUnavailable: Unrecorded.LOG,
}  # fmt: skip


class RelayRecording:
    """Records the mined relays of one worker."""

    def __init__(
        self,
        recorder: RelayRecorder,
        refund: Callable[[Metered], None],
        mode: Recording = Recording.STRICT,
        *,
        largest_leaf: int = LARGEST_LEAF,
        is_below: Callable[[int], Awaitable[bool]] | None = None,
        seal_after_blocks: int = 1,
    ) -> None:
        """`is_below` returns True if the chain has certainly not reached a height yet.

        None: that is not checked.
        """
        self.recorder = recorder
        self._refund = refund
        self._mode = mode
        self._largest_leaf = largest_leaf
        self._is_below = is_below
        self._seal_after_blocks = seal_after_blocks
        self._recently_mined = RecentlyMined()

    async def record(
        self, relay: AdmissibleRelay, admitted: Admitted, metered: Metered, response: RelayResponse
    ) -> None:
        """Record a relay with its signed response, which is stored without its payload.

        Strict recording waits until the relay is in Redis. A rejected relay is refunded, unless it may still be mined:
        from the write-ahead log, or because only the wait was cancelled. Such a request must not be paid a second
        time. Raises Rejected.
        """
        if not metered.paid:
            return
        mined = bytes_field(1, relay.request.encode()) + bytes_field(2, response.encode_without_payload())
        if len(mined) > self._largest_leaf:
            # A leaf that cannot be proven costs a penalty instead of earning its price. The charge stays: the session's
            # budget limits what is served for nothing, and the request cannot be sent again.
            relayer_metrics.UNPROVABLE.labels(relay.service.id).inc()
            return
        digest = relay_hash(mined)
        if not is_applicable(digest, admitted.target_hash):
            relayer_metrics.NOT_APPLICABLE.labels(relay.service.id).inc()
            return
        header = relay.header
        record = WalRecord(relay.supplier, header.session_id, header.encode(), mined, header.session_end_block_height)
        try:
            await self._submit(relay.service.id, digest, record)
            await self._check_not_sealed(admitted)
        except Rejected as rejected:
            if rejected.reason is not RejectionReason.NOT_RECORDED:
                self._refund(metered)
            raise

    async def _submit(self, service_id: str, digest: bytes, record: WalRecord) -> None:
        """Hand a relay to the recorder, and wait if recording is strict.

        Raises Rejected.
        """
        try:
            done = self.recorder.submit(record)
            # Recording outlives the client's connection: a cancelled request cancels only its own wait.
            wait = done.get_loop().create_future() if self._mode is Recording.STRICT else None
            done.add_done_callback(functools.partial(self._on_recorded, service_id, digest, wait))
            if wait is not None:
                await wait
                done.result()
        except SessionClosed as error:
            raise Rejected(
                RejectionReason.SESSION_CLOSED, "the session is closed: it is too late to claim this relay"
            ) from error
        except LogUnavailable as error:
            raise Rejected(
                RejectionReason.OVERLOADED, "relays cannot be recorded here, try another supplier"
            ) from error
        except QueueFull as error:
            relayer_metrics.NOT_RECORDED.labels(Unrecorded.FULL).inc()
            raise Rejected(RejectionReason.OVERLOADED, str(error)) from error
        except RedisStoreError as error:
            raise Rejected(RejectionReason.NOT_RECORDED, "the relay could not be recorded") from error

    async def _check_not_sealed(self, admitted: Admitted) -> None:
        """Check that the session of a recorded relay is certainly not sealed yet.

        A Redis that lost its data takes relays of sealed sessions, until the owner closes them again. Raises Rejected.
        """
        windows, is_below = admitted.windows, self._is_below
        if windows and is_below and not await is_below(windows.seal_height(self._seal_after_blocks)):
            raise Rejected(RejectionReason.NOT_RECORDED, "it may be too late to claim this relay")

    def _on_recorded(
        self, service_id: str, digest: bytes, wait: "asyncio.Future[None] | None", end: "asyncio.Future[None]"
    ) -> None:
        """Count the result of recording a relay, and end the wait for it.

        Fast recording does not wait.
        """
        if wait is not None and not wait.done():
            wait.set_result(None)
        error = None if end.cancelled() else end.exception()
        if end.cancelled() or error is not None:
            relayer_metrics.NOT_RECORDED.labels(_UNRECORDED.get(type(error), Unrecorded.UNAVAILABLE)).inc()
            return
        mined_series(service_id).inc()
        if self._recently_mined.is_duplicate(digest):
            relayer_metrics.DUPLICATES.labels(service_id).inc()
