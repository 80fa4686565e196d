"""Decisions at the exact height, number or size at which they change."""

import asyncio
import pickle
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from pocket.coordination.leader_lease import record_of
from pocket.errors import ChainUnavailable, DecodingError
from pocket.protocol.relays.messages import SessionHeader
from pocket.protocol.sessions.windows import SharedParams, Windows
from pocket.protocol.transactions.build import Timestamp
from pocket.redis_store.stream_reader import StreamExtent
from pocket_miner.ingest.peers import PeerSession
from pocket_miner.relay_rows import Leaf, StoredSession
from pocket_miner.sessions.cutoff import cutoff_at, cutoff_height
from pocket_miner.sessions.recorded_terms import encode_params, restored_session
from pocket_miner.sessions.stages import Stage, in_last_third, is_late_to_seal
from pocket_miner.sessions.submission import Attempts, Submission, is_last_chance
from pocket_miner.sessions.terms import ask_terms, rejection_of
from pocket_miner.sessions.tracked_session import header_of
from pocket_miner.storage.corruption import VolumeCorrupted
from pocket_miner.storage.ended_sessions import settled_long_ago
from pocket_miner.storage.outcome_archive import is_cut_off
from pocket_miner.storage.relay_store import RelayStore
from supplier_parts import supplier_miner, tracked

HEADER = SessionHeader("app", "eth", "s", 1, 10)


@pytest.mark.parametrize(
    ("start", "end", "valid"),
    [
        (1, 1, True), (0, 5, False), (5, 4, False), (1, 100_001, True), (1, 100_002, False),
        (2**53, 2**53, True), (2**53 - 1, 2**53, True), (2**53, 2**53 + 1, False),
    ],
)  # fmt: skip
def test_a_session_reaches_from_a_first_block_to_no_earlier_one_within_bounds(start, end, valid):
    header = SessionHeader("app", "eth", "s", start, end)
    if valid:
        assert header_of(header.encode()) == header
        return
    with pytest.raises(DecodingError, match="cannot reach"):
        header_of(header.encode())


@pytest.mark.parametrize("session_id", ["line\n", "é", "\x00"])
def test_a_session_id_is_printable_ascii(session_id):
    with pytest.raises(DecodingError, match="printable"):
        header_of(SessionHeader("app", "eth", session_id, 1, 10).encode())


@pytest.mark.parametrize(("steps", "factor"), [(0, 1.0), (1, 2.5), (2, 6.25), (3, 15.625), (4, 15.625), (9, 15.625)])
def test_gas_grows_by_two_and_a_half_three_times(steps, factor):
    assert Attempts(gas_steps=steps).gas_factor == factor


@pytest.mark.parametrize(
    ("sent", "height", "close", "last"),
    [(10, 11, 14, False), (10, 11, 13, False), (10, 12, 14, True), (10, 13, 14, True), (12, 13, 14, True),
     (11, 12, 14, False), (10, 12, 15, False)],
)  # fmt: skip
def test_bytes_that_nodes_keep_are_given_up_in_the_last_blocks_of_a_window_alone(sent, height, close, last):
    kept = Submission(b"raw", "hash", sent, known_at=sent)
    assert is_last_chance(kept, height, close) is last
    assert not is_last_chance(Submission(b"raw", "hash", sent), height, close), "they may be included yet"
    assert not is_last_chance(None, height, close)


@pytest.mark.parametrize(("left", "third", "late"), [(4, False, False), (3, True, True), (2, True, True),
                                                     (1, True, True), (0, False, True)])  # fmt: skip
def test_a_third_of_a_window_is_the_last_from_its_first_block_on(left, third, late):
    windows = Windows.after(10, SharedParams(claim_window_close_offset_blocks=9, proof_window_close_offset_blocks=9))
    for stage, close in ((Stage.CLAIMABLE, windows.claim_close), (Stage.SEALED, windows.claim_close),
                         (Stage.PROOFABLE, windows.proof_close)):  # fmt: skip
        assert in_last_third(windows, stage, close - left) is third
    assert is_late_to_seal(windows, windows.claim_close - left) is late
    assert not any(in_last_third(None, stage, 20) for stage in Stage)


@pytest.mark.parametrize(("close", "after", "height"), [(4, 1, 13), (9, 1, 13), (2, 1, 12), (1, 1, 11), (0, 1, 10)])
async def test_a_session_without_relays_accepts_none_from_two_blocks_before_its_window_closes(close, after, height):
    params = SharedParams(claim_window_close_offset_blocks=close)
    assert cutoff_height(params.windows(1), after) == height
    asked = []

    async def shared_params(at):
        asked.append(at)
        assert at > 0, "no block has such a height"
        return params

    for at in (height - 1, height, height + 9, height + 10):
        cutoff = await cutoff_at(at, after, shared_params)
        ends = [end for end in (10, 20) if cutoff_height(params.windows(end), after) <= at]
        assert (cutoff.session_end, cutoff.height) == (max(ends, default=0), at)
        following = cutoff_height(params.windows(cutoff.session_end + 1), after)
        assert at < cutoff.changes_at <= max(following, at + 1)


def test_a_lease_without_fields_counts_as_released():
    record = record_of({})
    epoch = datetime.fromtimestamp(0, UTC)
    assert (record.holder, record.lease_seconds, record.transitions) == ("", 1, 0)
    assert (record.acquired, record.renewed) == (epoch, epoch)


@pytest.mark.parametrize(("seconds", "year"), [(-1, 1970), (0, 1970), (10**15, 9999)])
def test_a_time_is_shown_within_what_dates_hold(seconds, year):
    moment = Timestamp(seconds).moment
    assert moment.year == year
    assert seconds > 0 or moment == datetime.fromtimestamp(0, UTC)


def test_damage_that_a_trie_process_finds_is_told_with_its_file():
    assert pickle.loads(pickle.dumps(VolumeCorrupted("/a"))).path == "/a"  # noqa: S301 - made here


def test_the_largest_relay_of_a_session_without_any_has_no_bytes(tmp_path):
    with RelayStore(tmp_path) as store:
        file = store.file(10)
        file.add_session("alice", "s", HEADER.encode())
        assert (file.largest("alice", "s"), file.largest("alice", "unknown")) == (0, 0)
        file.add("alice", "s", [Leaf(bytes([n]) * 32, b"digest", 1, b"x" * n) for n in (3, 7, 5)])
        assert file.largest("alice", "s") == 7
        assert [file.exceeds("alice", "s", number) for number in (2, 3, 4)] == [True, False, False]


@pytest.mark.parametrize(("content", "cut_off"), [(b"", False), (b"\n", False), (b"x", True), (b"{}\n{", True)])
def test_an_archive_is_cut_off_where_its_last_line_does_not_end(tmp_path, content, cut_off):
    file = tmp_path / "archive"
    file.write_bytes(content)
    assert is_cut_off(file) is cut_off


@pytest.mark.parametrize(("end", "height", "settled"), [(None, 10**6, False), (5, 10_005, False), (5, 10_006, True)])
def test_a_session_settled_long_ago_ten_thousand_blocks_after_its_end(end, height, settled):
    assert settled_long_ago(end, height) is settled


@pytest.mark.parametrize(("units", "known"), [(0, False), (1, True), (2**32 - 1, True), (2**32, False)])
async def test_terms_have_compute_units_whose_sums_fit_into_a_root(units, known):
    class Chain:
        async def shared_params(self, start):
            assert start == 1
            return SharedParams()

        async def session(self, application, service, start):
            assert (application, service, start) == ("app", "eth", 1)
            return SimpleNamespace(header=HEADER, supplier_addresses=["alice"])

        async def compute_units_per_relay(self, service, start):
            assert (service, start) == ("eth", 1)
            return units

        async def difficulty(self, service, start):
            assert (service, start) == ("eth", 1)
            return SimpleNamespace(target_hash=b"\x0f" * 32)

    if not known:
        with pytest.raises(ChainUnavailable):
            await ask_terms(Chain(), "alice", HEADER)
        return
    terms = (await ask_terms(Chain(), "alice", HEADER)).terms
    assert (terms.compute_units_per_relay, terms.target_hash) == (units, b"\x0f" * 32)
    other = SimpleNamespace(header=HEADER, supplier_addresses=["bob"])
    assert rejection_of("alice", HEADER, other) is not None


@pytest.mark.parametrize(
    ("terms", "params", "known"),
    [
        (f"{'ff' * 32}/1", encode_params(SharedParams()), (True, True)),
        (f"{'ff' * 32}/0", encode_params(SharedParams()), (False, True)),
        (f"{'ff' * 31}/1", encode_params(SharedParams()), (False, True)),
        (f"{'ff' * 33}/1", encode_params(SharedParams()), (False, True)),
        (f"{'ff' * 32}/1", encode_params(SharedParams(num_blocks_per_session=0)), (False, False)),
        (f"{'ff' * 32}/1", encode_params(SharedParams(num_blocks_per_session=1)), (True, True)),
        (f"{'ff' * 32}/1", encode_params(SharedParams(compute_unit_cost_granularity=0)), (False, False)),
        (f"{'ff' * 32}/1", encode_params(SharedParams(compute_unit_cost_granularity=1)), (True, True)),
        ("", "", (False, False)),
    ],
)
def test_terms_and_params_on_a_volume_count_if_a_chain_may_state_them(terms, params, known):
    session = restored_session(StoredSession("alice", "s", HEADER.encode(), "5-0", "origin", terms, params))
    assert (session.terms is not None, session.params is not None) == known
    assert (session.header, session.position, session.origin) == (HEADER, "5-0", "origin")


@pytest.mark.parametrize(
    ("count", "position", "origin", "more"),
    [(0, "9-0", "other", False), (1, "1-0", "other", True), (5, "5-0", "here", False), (6, "5-0", "here", True),
     (1, "5-1", "here", True), (1, "4-9", "here", False)],
)  # fmt: skip
def test_a_peer_may_have_more_than_a_stream_by_origin_number_or_position(count, position, origin, more):
    row = PeerSession("http://peer", "s", b"", position, origin, count)
    assert row.may_have_more("here", StreamExtent("5-0", 5)) is more


async def test_decisions_wait_for_peers_for_a_while_and_copies_of_sessions_as_long_as_they_take():
    miner, parts = supplier_miner(tracked())
    miner.merge_seconds = 0.0

    async def hangs(supplier):
        parts.told("merge")
        await asyncio.Event().wait()

    miner.peers.seals = hangs
    await miner._merge_peers()
    patient = asyncio.create_task(miner._merge_peers(patient=True))
    await asyncio.wait({patient}, timeout=0.05)
    assert (parts.names(), patient.done()) == (["merge", "merge"], False)
    patient.cancel()
