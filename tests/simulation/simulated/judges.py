"""What must hold, whatever goes wrong: at every block, and when everything is over."""

import functools
import itertools
import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pocket.protocol.claims.proof_requirement import VALIDATED
from pocket.protocol.relays.messages import SessionHeader, relay_hash
from pocket.protocol.sessions.windows import Windows
from pocket.protocol.smst.digest import path_of
from pocket.protocol.transactions.build import transaction_hash
from pocket.redis_store.log_records import decode_records
from pocket_localnet.ante import decode
from simulated.plan import SUPPLIERS, Fault, Kind
from simulated.redis_model import Data, Stream
from simulated.system import KEYS, STAKE, Program, System
from slow_curve import trie_root
from world import address

Pair = tuple[str, str]
_SUBSETS = 200
_CALM_SECONDS = 18.0  # after which every copy must have been made again
_SERVED_SECONDS = 9.0  # after which relays must be served again
_MIRRORED_SECONDS = 6.0
_OUT_OF_GAS = 11
_BLOCKS_TO_LEARN_OF_A_PROOF = 3
_LIES_ABOUT_PROOFS = (Kind.NODE_LAGS, Kind.NODE_STALE, Kind.NODE_HOLLOW, Kind.NODE_HEADLESS)


def in_redis(data: Data, pairs: list[Pair]) -> Iterator[tuple[Pair, bytes]]:
    for pair in pairs:
        found = data.values.get(KEYS.stream(*pair).encode())
        if isinstance(found, Stream):
            for row in found.rows:
                yield pair, row[1]


def on_volume(folder: Path) -> Iterator[tuple[Pair, bytes]]:
    """Leaves of a miner's relay store. Files that are just being made have no tables yet."""
    for path in sorted((folder / "mirror").glob("end-*.sqlite")):
        database = sqlite3.connect(path)
        try:
            for supplier, session, value in database.execute(
                "SELECT supplier, session_id, value FROM leaf JOIN session ON leaf.session = session.id"
            ):
                yield (supplier, session), bytes(value)
        except sqlite3.OperationalError:
            continue
        finally:
            database.close()


def in_log(folder: Path) -> Iterator[tuple[Pair, bytes]]:
    for path in sorted((folder / "relay-log").glob("*/*.log")):
        for row in filter(None, decode_records(path.read_bytes())):
            yield (row.supplier, row.session_id), row.relay


class Judges:
    """Collects what is wrong, each once.

    Sessions of which calls were made to fail for long are excused from being paid. Those of the other suppliers and
    applications are not: that is how a fault of one is shown to change nothing of the others.
    """

    def __init__(self, system: System, faults: Sequence[Fault]) -> None:
        self.system = system
        self._excused = {f.target for f in faults if f.kind in (Kind.SUPPLIER_AWAY, Kind.APPLICATION_AWAY)}
        self._seeds_are_doubted = any(f.kind is Kind.NODE_OTHER_HASH for f in faults)
        self._redis_is_troubled = any(f.kind.name.startswith("REDIS") for f in faults)
        self._gas_is_wrong = any(f.kind is Kind.NODE_LOW_GAS for f in faults)
        self._nodes_lie = any(f.kind in _LIES_ABOUT_PROOFS for f in faults)
        self.problems: list[str] = []
        self._paid: dict[Pair, int] = {}
        self._relays: dict[Pair, int] = {}
        self._counted = 0
        self._included: dict[tuple[str, Pair], list[tuple[str, int]]] = defaultdict(list)

    def wrong(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)
            self.system.tell(f"WRONG: {text}")

    def _is_excused(self, supplier: str, service: str) -> bool:
        return bool(self._excused & {name_of(supplier), service})

    def _wanted(self) -> dict[Pair, set[bytes]]:
        """Acknowledged relays that must be paid."""
        rows, headers = self.system.acknowledged, self.system.headers
        return {p: relays for p, relays in sorted(rows.items()) if not self._is_excused(p[0], headers[p[1]].service_id)}

    def _open(self) -> list[Pair]:
        """Sessions with acknowledged relays that are not over on chain."""
        system = self.system
        found = []
        for pair in system.acknowledged:
            end = system.headers[pair[1]].session_end_block_height
            if system.chain.height < Windows.after(end, system.chain.state.shared_params_at(end)).settlement:
                found.append(pair)
        return found

    def unclaimed_ends(self) -> set[int]:
        """Return the ends of open sessions with acknowledged relays and without a claim on chain."""
        claims, headers = self.system.chain.state.claims, self.system.headers
        return {headers[pair[1]].session_end_block_height for pair in self._open() if pair[::-1] not in claims}

    def unproven_ends(self) -> set[int]:
        """Return the ends of sessions with a claim on chain that lacks a valid proof."""
        claims = self.system.chain.state.claims.values()
        return {c.header.session_end_block_height for c in claims if c.proof_validation_status != VALIDATED}

    def missing(
        self, *, without: Program | None = None, redis: Data | None = None, apart: bool = False,
        gone: Collection[Program] = (),
    ) -> int:  # fmt: skip
        """How many acknowledged relays of open sessions nobody holds.

        `without` a program's volume, or with other data in `redis`, is what would be. `apart` counts volumes only
        where each miner's has a relay. Volumes of programs that are `gone` do not count.
        """
        system, pairs = self.system, self._open()
        out = {*gone, *([] if without is None else [without])}
        held = self._held(pairs, out=out, redis=redis, apart=apart)
        return sum(len(system.acknowledged[pair] - held[pair]) for pair in pairs)

    def _held(
        self, pairs: list[Pair], *, out: Collection[Program] = (), redis: Data | None = None, apart: bool = False
    ) -> dict[Pair, set[bytes]]:
        system, held = self.system, defaultdict[Pair, set[bytes]](set)
        for pair, relay in in_redis(redis or system.redis.primary.model.data, pairs):
            held[pair].add(relay)
        volumes: list[set[tuple[Pair, bytes]]] = []
        for program in system.programs.values():
            if program in out or not program.folder.exists():
                continue
            if program.relayer:
                for pair, relay in in_log(program.folder):
                    if pair not in system.roots:  # a sealed session takes no relays from a log
                        held[pair].add(relay)
            else:
                volumes.append(set(on_volume(program.folder)))
        merge = set.intersection if apart else set.union
        for pair, relay in merge(*volumes) if volumes else ():
            held[pair].add(relay)
        return held

    def at_block(self) -> None:
        system = self.system
        for text in system.observed:
            self.wrong(text)
        if number := self.missing():
            self.wrong(f"{number} acknowledged relays of open sessions are nowhere")
        if self._is_calm(system.loop.time(), _CALM_SECONDS):
            self._check_copies()
        for (supplier, session), roots in system.roots.items():
            if len(roots) > 1:
                self.wrong(f"claims of {len(roots)} roots were sent for {name_of(supplier)}, {session[:8]}")
        self._count_included()
        for event in system.chain.blocks[system.chain.height].end_events:
            if event.type.endswith("EventClaimSettled"):
                pair = (event.attributes["supplier_operator_address"], event.attributes["session_id"])
                self._paid[pair] = int(event.attributes["settled_upokt"].removesuffix("upokt"))
                self._relays[pair] = int(event.attributes["num_relays"])
            if event.type.endswith(("EventClaimExpired", "EventSupplierSlashed")):
                header = self.system.headers.get(event.attributes.get("session_id", ""))
                service = header.service_id if header else ""
                if self._is_excused(event.attributes["supplier_operator_address"], service):
                    continue
                told = {k: v for k, v in event.attributes.items() if k in ("expiration_reason", "session_end_height")}
                self.wrong(f"{event.type.rsplit('.', 1)[1]} of {name_of(event.attributes['supplier_operator_address'])}"
                           f" {json.dumps(told)}")  # fmt: skip

    def refused(self, header: SessionHeader, supplier: str, sent_at: float) -> None:
        """Check that something was wrong when no relayer served a relay of an open session."""
        if self._is_calm(sent_at, _SERVED_SECONDS) and not self._is_excused(address(supplier), header.service_id):
            self.wrong(f"no relayer serves {supplier}, {header.session_id[:8]} though nothing is wrong any more")

    def _is_calm(self, at: float, seconds: float) -> bool:
        """Return whether nothing had gone wrong for so many seconds then, nor has since."""
        system = self.system
        running = all(program.alive for program in system.programs.values() if program.wanted)
        return running and not system.network.holding and at - system.disturbed_at > seconds

    def _check_copies(self) -> None:
        """Check that relays are on a miner's volume and seals in Redis, where the next owner finds them."""
        system = self.system
        pairs = [pair for pair in self._open() if pair in self._wanted()]
        mirrored = defaultdict[Pair, set[bytes]](set)
        for program in system.programs.values():
            if not program.relayer and program.wanted and program.folder.exists():
                for pair, relay in on_volume(program.folder):
                    mirrored[pair].add(relay)
        recent = system.loop.time() - _MIRRORED_SECONDS
        for pair in pairs:
            who = f"{name_of(pair[0])}, {pair[1][:8]}"
            missing = system.acknowledged[pair] - mirrored[pair]
            if number := sum(system.acknowledged_at[relay] < recent for relay in missing):
                self.wrong(f"no volume has {number} relays of {who} though nothing is wrong any more")
            seals = system.redis.primary.model.data.values.get(KEYS.seals(pair[0]).encode(), {})
            if pair in system.roots and isinstance(seals, dict) and pair[1].encode() not in seals:
                self.wrong(f"Redis lacks the seal of {who} though nothing is wrong any more")

    def _count_included(self) -> None:
        rows = list(self.system.chain.transactions.values())
        for row in rows[self._counted :]:
            if row.result.code == _OUT_OF_GAS and not self._gas_is_wrong:
                self.wrong(f"a transaction ran out of gas: {row.result.log[:60]}")
            if row.result.code:
                continue
            name = transaction_hash(row.raw)
            for message in decode(row.raw).messages:
                kind = "claim" if hasattr(message, "root_hash") else "proof"
                pair = (message.supplier_operator_address, message.session_header.session_id)
                earlier = self._included[kind, pair]
                if kind == "claim" and not earlier:
                    self._check_root(pair, bytes(message.root_hash))
                if earlier and not self._may_be_a_second_proof(kind, name, earlier):
                    self.wrong(f"two fees for the {kind} of {name_of(pair[0])}, {pair[1][:8]}")
                earlier.append((self.system.senders[name], row.result.height))
        self._counted = len(rows)

    def _may_be_a_second_proof(self, kind: str, name: str, earlier: list[tuple[str, int]]) -> bool:
        """Whether its sender could not know of the former one: a former owner's, sent or included just before."""
        if kind == "claim":
            return False
        if self._seeds_are_doubted:
            return True  # the former one was for another seed: the chain found it invalid, and it is repaired
        if self.system.senders[name] in {sender for sender, _ in earlier}:
            return False
        if (
            self.system.senders[name].partition(",")[0] == earlier[-1][0].partition(",")[0]
            and not self._redis_is_troubled
        ):
            return False  # the same miner before a restart: it has shared its proof
        late = self.system.sent_at[name] > earlier[-1][1] + _BLOCKS_TO_LEARN_OF_A_PROOF
        return self._nodes_lie or not late

    def _check_root(self, pair: Pair, root: bytes) -> None:
        """Check that a claim covers all acknowledged relays and otherwise only recorded ones.

        An independent trie computes the root.
        """
        acknowledged = self.system.acknowledged.get(pair, set())
        extra = sorted(self._held([pair])[pair] - acknowledged)
        total, count = (int.from_bytes(root[at : at + 8], "big") for at in (32, 40))
        if count < len(acknowledged):
            self.wrong(f"the claim of {name_of(pair[0])}, {pair[1][:8]} lacks {len(acknowledged) - count} relays")
            return
        if self._excused or len(extra) < count - len(acknowledged):
            return  # what it is over is on a volume that was lost
        chosen = itertools.islice(itertools.combinations(extra, count - len(acknowledged)), _SUBSETS)
        if not any(_root_of(frozenset(acknowledged | set(more)), total // count) == root for more in chosen):
            self.wrong(f"the claim of {name_of(pair[0])}, {pair[1][:8]} is not over its relays")

    def unsettled(self) -> list[Pair]:
        """Sessions with acknowledged relays that no volume has a settled outcome of."""
        booked = self._outcomes()
        settled = {pair for pair, rows in booked.items() if any(row["outcome"] == "settled" for row in rows)}
        return [pair for pair in self._wanted() if pair not in settled]

    def _outcomes(self) -> dict[Pair, list[dict]]:
        found: dict[Pair, list[dict]] = defaultdict(list)
        for program in self.system.programs.values():
            path = program.folder / "audit.sqlite"
            if program.relayer or not path.exists():
                continue
            database = sqlite3.connect(path)
            try:
                for (body,) in database.execute("SELECT body FROM outcome"):
                    row = json.loads(body)
                    found[row["supplier"], row["session_id"]].append(row)
            finally:
                database.close()
        return found

    def at_end(self) -> None:
        system, booked = self.system, self._outcomes()
        if not system.acknowledged:
            self.wrong("no relay was acknowledged")
        for pair, relays in self._wanted().items():
            who = f"{name_of(pair[0])}, {pair[1][:8]}"
            paid, rows = self._paid.get(pair), booked[pair]
            if paid is None:
                self.wrong(f"{len(relays)} acknowledged relays of {who} were not paid; books: {_shown(rows)}")
                continue
            if self._relays[pair] < len(relays):
                self.wrong(f"{self._relays[pair]} of {len(relays)} acknowledged relays of {who} were paid")
            if not rows and not self.system.lost_volumes:
                self.wrong(f"no book knows what {who} earned")
            for row in rows:
                if row["outcome"] != "settled" or int(row["details"].get("settled_upokt", -1)) != paid:
                    self.wrong(f"a book says {_shown([row])} of {who}, the chain paid {paid} upokt")
        for name in SUPPLIERS:
            gone = STAKE - system.chain.state.suppliers[address(name)].stake_upokt
            if gone and not self._excused:
                self.wrong(f"{gone} upokt of {name}'s stake were slashed")


@functools.cache
def _root_of(relays: frozenset[bytes], weight: int) -> bytes:
    made: bytes = trie_root({path_of(relay_hash(relay)): (relay, weight) for relay in relays})
    return made


def name_of(supplier: str) -> str:
    return next((name for name in SUPPLIERS if address(name) == supplier), supplier)


def _shown(rows: list[dict]) -> str:
    told = (f"{r['outcome']} ({r['reason']}, {r['details'].get('settled_upokt')} upokt)" for r in rows)
    return "; ".join(told) or "none"
