"""Turn the entries of a stream into leaves to store."""

import structlog
from structlog.typing import FilteringBoundLogger

from pocket.protocol.smst.digest import Root
from pocket_miner import miner_metrics
from pocket_miner.ingest.consume_rounds import SessionRead
from pocket_miner.relay_rows import Leaf, LeafBatch
from pocket_miner.sessions.leaf_validation import InvalidEntry, LeafBuilder
from pocket_miner.sessions.recorded_terms import encode_params
from pocket_miner.sessions.tracked_session import TrackedSession
from pocket_miner.storage.dead_letters import DeadLetters
from pocket_miner.storage.relay_store import RelayStore, SessionEndFile

_LOG: FilteringBoundLogger = structlog.get_logger()


class EntryValidator:
    """Validates the entries of one supplier."""

    def __init__(self, supplier: str, relay_store: RelayStore, dead_letters: DeadLetters | None = None) -> None:
        self._supplier = supplier
        self._relay_store = relay_store
        self._dead_letters = dead_letters

    def validate(self, read: SessionRead) -> LeafBatch:
        """Validate the entries of a session.

        Invalid ones are counted, logged and kept as dead letters. The supplier is logged explicitly, because a round
        may run in the task of another one.
        """
        session, session_id = read.session, read.session.session_id
        builder, leaves, refused = LeafBuilder(read.terms), [], []
        for entry in read.entries:
            try:
                leaves.append(builder.build(entry.relay))
            except InvalidEntry as error:
                refused.append((entry.id, str(error), entry.relay))
                miner_metrics.REFUSED.labels(error.reason).inc()
                _LOG.warning(
                    "entry rejected", error=error, supplier=self._supplier, session=session_id, entry=entry.id
                )  # fmt: skip
        if self._dead_letters is not None:
            self._dead_letters.add(self._supplier, session_id, refused)
        if session.seal is not None:
            leaves = self._of_seal(session, Root(session.seal.root).count, self._relay_store.file(session.end), leaves)
        last, terms, params = read.entries[-1], read.terms.name, encode_params(session.params)
        return LeafBatch(self._supplier, session_id, leaves, len(refused), last.id, read.origin, terms, params)

    def _of_seal(self, session: TrackedSession, sealed: int, file: SessionEndFile, leaves: list[Leaf]) -> list[Leaf]:
        """Return the leaves that may be of the sealed set.

        There are none once the volume has as many as were sealed. A Redis that lost its data no longer knows that the
        session is closed, and a relayer that was frozen may record relays in it. With them the set has another root
        than the claim, and no proof could be built.
        """
        missing = sealed - file.count(self._supplier, session.session_id)
        if missing > 0:
            return leaves
        late = len(file.unknown(self._supplier, session.session_id, [leaf.path for leaf in leaves]))
        if late:
            miner_metrics.REFUSED.labels(miner_metrics.RefusedEntry.SEALED).inc(late)
            _LOG.error(
                "relays were recorded after their session was sealed and are not paid",
                supplier=self._supplier,
                session=session.session_id,
                relays=late,
            )
        return []
