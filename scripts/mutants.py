"""Break one line of the money path at a time and check that the named test fails.

A mutant that survives means that a change of this line would go unnoticed. The list is seeded by hand
with the mistakes that cost money; extend it with every bug that slipped through. JOBS mutants are tried at a time, as
many as there are processors by default.
"""

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

M = TypeVar("M")
R = TypeVar("R")
ROOT = Path(__file__).resolve().parent.parent
SOURCES = ["core", "operator", "workloads/relayer", "workloads/miner", "workloads/localnet", "cli"]
SECONDS = 120
TESTS_FAILED, NOT_COLLECTED = 1, 2  # pytest's exit codes
PATH = "tests/integration/test_money_path.py"
RACES = "tests/integration/test_seal_races.py"
REFUSED = "tests/integration/test_refused_claims.py"
ROUNDS = "tests/integration/test_consume_rounds.py"
FEES = "tests/integration/test_second_fees.py"
EVIDENCE = "tests/unit/test_evidence.py"
WRONG = "tests/integration/test_wrong_answers.py"
STAGES = "tests/unit/test_stages.py"
DRAIN = (
    "tests/unit/test_plan.py::test_a_supplier_leaves_when_no_relayer_may_record_for_it_and_its_miner_looked_once_more"
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mutant: `new` in place of `old` in `file`.

    `test` must fail.
    """

    file: str
    old: str
    new: str
    test: str


MUTANTS = [
    Mutant("core/pocket/protocol/crypto/hashing.py", "reduced << (8 * (32 - length)) if reduced else 0", "reduced",
           "tests/vectors/test_hash_to_point.py::test_hash_to_scalar_aligns_short_values_to_the_left"),
    Mutant("core/pocket/protocol/crypto/ring.py", "return current % N == signature.start", "return True",
           "tests/unit/test_ring_and_ecdsa.py::test_every_flipped_byte_of_a_signature_is_rejected"),
    Mutant("core/pocket/protocol/crypto/ring.py", "if not expected_members.issuperset(signature.members):", "if False:",
           "tests/unit/test_ring_and_ecdsa.py::test_a_key_outside_the_expected_ring_is_refused_before_the_equation"),
    Mutant("core/pocket/protocol/crypto/ring.py", 'b"".join(sorted(pairs))', 'b"".join(pairs)',
           "tests/unit/test_ring_and_ecdsa.py::"
           "test_a_signature_has_one_identity_wherever_its_ring_begins_and_two_signatures_have_two"),
    Mutant("core/pocket/protocol/crypto/ring.py", "if len(data) != _HEAD_BYTES", "if len(data) < _HEAD_BYTES",
           "tests/unit/test_ring_and_ecdsa.py::"
           "test_a_signature_that_could_be_written_shorter_is_refused_though_the_chain_takes_it"),
    Mutant("core/pocket/protocol/crypto/ring.py", "    if not verify_ring_equation(message_hash",
           "    record_verified((signature.key_image.encoded,))\n    if not verify_ring_equation(message_hash",
           "tests/unit/test_accelerator.py::test_points_earn_a_table_by_signatures_that_held_and_no_stranger_gets_one"),
    Mutant("core/pocket/protocol/acceleration.py", "if self_test(made):", "if True:",
           "tests/unit/test_accelerator.py::test_a_library_that_computes_something_else_is_not_used"),
    Mutant("core/pocket/protocol/acceleration.py", "if self_test(made):", "if True:",
           "tests/unit/test_native_trie.py::test_a_library_that_computes_something_else_is_not_used"),
    Mutant("core/pocket/chain/node_health.py", "votes * 2 <= hashes.total()", "False",
           "tests/unit/test_standing.py::test_nodes_are_judged_by_what_most_of_them_say"),
    Mutant("core/pocket/protocol/transactions/batches.py", "- _AROUND_LEAF) // 2", "- _AROUND_LEAF)",
           "tests/unit/test_transaction_sizes.py::"
           "test_a_largest_leaf_is_proven_in_one_transaction_however_deep_it_is_and_whatever_its_sibling"),
    Mutant("workloads/relayer/pocket_relayer/pipeline/pipeline.py", "if len(mined) > self._largest_leaf:", "if False:",
           "tests/integration/test_relayer.py::"
           "test_a_relay_that_no_proof_could_hold_is_served_and_charged_but_not_mined"),
    Mutant("workloads/miner/pocket_miner/storage/trie_pool.py", "!= leaf_digest(leaf, stored.value, stored.weight)", "== b''",
           "tests/integration/test_volume_damage.py::"
           "test_a_relay_that_changed_on_the_disk_is_not_proven_with_but_read_again"),
    Mutant("workloads/miner/pocket_miner/submission/proofs.py", "if corruption_in(error) is not None:", "if False:",
           "tests/integration/test_volume_damage.py::"
           "test_a_relay_that_changed_on_the_disk_is_not_proven_with_but_read_again"),
    Mutant("core/pocket/chain/end_block_events.py", "if self._place is not _Place.AFTER:", "if False:",
           "tests/unit/test_end_events.py::test_an_answer_that_ends_too_early_is_refused"),
    Mutant("core/pocket/chain/failover.py", "next(iter(failures)) if len(failures) == 1 else", "FailureClass.PRUNED_NODE if True else",
           "tests/integration/test_large_answers.py::test_it_is_no_refusal_where_a_node_that_may_keep_more_is_away"),
    Mutant("workloads/miner/pocket_miner/suppliers/supplier_miner.py", "(row[0][0] is Action.CONCLUDE, row[0][1])", "row[0][1]",
           "tests/integration/test_settlement_blocks.py::test_what_is_over_comes_after_what_has_a_window"),
    Mutant("core/pocket/redis_store/connection.py", "if task and task.cancelling() > before:", "if False:",
           "tests/integration/test_publisher.py::test_a_cancellation_that_meets_the_end_of_sending_is_not_lost"),
    Mutant("workloads/miner/pocket_miner/submission/fees.py", "known = await store.costs(session_id)", "known = {}",
           "tests/integration/test_fees.py::test_an_owner_counts_what_former_owners_paid_and_no_word_that_cannot_be_read"),
    Mutant("workloads/relayer/pocket_relayer/pipeline/pipeline.py", "mined, header.session_end_block_height", "mined, 0",
           "tests/integration/test_relayer.py::test_a_first_relay_of_a_session_before_the_horizon_is_not_acknowledged"),
    Mutant("core/pocket/redis_store/lua_scripts.py", "ends <= cutoff", "ends < 0",
           f"{PATH}::test_the_first_relay_of_a_session_is_refused_once_there_is_no_time_to_claim_it"),
    Mutant("workloads/miner/pocket_miner/suppliers/supplier_miner.py", "if self._cutoff.session_end:", "if False:",
           f"{PATH}::test_what_is_too_late_stays_too_late_when_redis_comes_back_empty"),
    Mutant("core/pocket/redis_store/log_positions.py", "if closed.startswith(\"done\") or segment.is_rejected(pair):",
           "if closed.startswith(\"done\"):",
           "tests/integration/test_publisher.py::test_the_log_is_released_of_relays_that_came_too_late_to_be_registered"),
    Mutant("workloads/miner/pocket_miner/storage/audit.py", "if height >= below:", "if height > below + 20:",
           "tests/unit/test_audit.py::test_pruning_takes_the_oldest_outcomes_and_the_rest_still_proves_to_follow_them"),
    Mutant("core/pocket/chain_cache/invalidation.py", "cache_key if version == self.version + 1 else None", "cache_key",
           "tests/integration/test_cache_news.py::test_a_missing_number_means_that_everything_is_forgotten"),
    Mutant("core/pocket/chain_cache/cached_client.py", "if generation == self.generation or method not in CHANGING:", "if True:",
           "tests/integration/test_cache_news.py::test_an_answer_that_was_under_way_when_it_changed_is_not_kept"),
    Mutant("workloads/relayer/pocket_relayer/pipeline/simulated_relays.py", "        await self._reject_replay(signed",
           "        False and await self._reject_replay(signed",
           "tests/integration/test_simulation.py::test_a_captured_simulated_relay_is_refused_by_whoever_gets_it_next"),
    Mutant("core/pocket/protocol/crypto/curve.py", "_CONTEXT, signature, compact, encoded[0] & 1",
           "_CONTEXT, signature, compact, 0",
           "tests/unit/test_curve.py::test_the_recovery_shortcut_equals_two_multiplications"),
    Mutant("core/pocket/protocol/rings.py", "if height >= session_end_height:", "if height > session_end_height:",
           "tests/vectors/test_ring_construction.py::test_the_expected_ring_equals_the_reference"),
    Mutant("core/pocket/protocol/relays/difficulty.py", "return relay_hash < target_hash", "return relay_hash <= target_hash",
           "tests/vectors/test_relay_hashes.py::test_difficulty_is_a_strict_comparison_of_byte_strings"),
    Mutant("core/pocket/protocol/relays/messages.py", 'self.payload if self.payload_hash is None else b""', "self.payload",

                    "tests/vectors/test_response_signatures.py::test_a_response_is_accepted_exactly_when_the_reference_accepts_it"),
    Mutant("core/pocket/protocol/sessions/windows.py", "claim_open = session_end + params.claim_window_open_offset_blocks + 1",
           "claim_open = session_end + params.claim_window_open_offset_blocks",
           "tests/vectors/test_sessions.py::test_grid_and_windows_equal_the_reference"),
    Mutant("core/pocket/protocol/sessions/session_id.py", 'to_bytes(8, "little")', 'to_bytes(8, "big")',
           "tests/vectors/test_sessions.py::test_session_ids_equal_the_reference"),
    Mutant("core/pocket/protocol/sessions/session_id.py", 'int.from_bytes(digest[:8], "big", signed=True)',
           'int.from_bytes(digest[:8], "big")',
           "tests/vectors/test_sessions.py::test_the_same_suppliers_are_selected_in_the_same_order"),
    Mutant("core/pocket/protocol/smst/bulk.py", "left = d.lift(left, left_path, left_depth, branch + 1)", "pass",
           "tests/unit/test_smst_properties.py::test_the_bulk_root_equals_a_recursion_over_bits"),
    Mutant("core/pocket/protocol/smst/verify.py", '_check(current == root, "verify_false", "the proof leads to another root")',
           "pass", "tests/unit/test_smst_properties.py::test_a_proof_is_refused_under_another_root"),
    Mutant("core/pocket/protocol/claims/proof_requirement.py", "<= params.proof_request_probability",
           "< params.proof_request_probability - 1e-1",
           "tests/vectors/test_proof_requirement_decision.py::test_the_decision_and_all_its_steps_equal_the_reference"),
    Mutant("core/pocket/protocol/claims/proof_requirement.py", "if claimed_upokt >= params.proof_requirement_threshold_upokt:",
           "if False:",
           "tests/vectors/test_proof_requirement_decision.py::test_the_decision_and_all_its_steps_equal_the_reference"),
    Mutant("core/pocket/protocol/transactions/timeouts.py", "if last is not None and value <= last < value + MAXIMUM_SECONDS * 1_000_000_000:", "if False:",
           "tests/unit/test_chain_client_parts.py::test_no_supplier_ever_gets_a_timestamp_twice_and_lanes_never_meet"),
    Mutant("core/pocket/protocol/transactions/broadcast_errors.py",
           'return BroadcastFailure.TOO_EARLY if "is less than" in log else BroadcastFailure.TOO_LATE',
           "return BroadcastFailure.TOO_LATE",
           "tests/vectors/test_chain_refusals.py::test_every_recorded_refusal_gets_its_treatment"),
    Mutant("core/pocket/redis_store/lua_scripts.py", "if redis.call('HEXISTS', KEYS[1], session) == 1 then", "if false then",
           "tests/integration/test_publisher.py::test_a_closed_session_takes_no_relay_and_says_so"),
    Mutant("core/pocket/redis_store/lua_scripts.py", "if tonumber(ARGV[1]) < fence then", "if false then",
           f"{PATH}::test_an_old_owner_is_fenced_and_its_seal_counts"),
    Mutant("core/pocket/redis_store/lua_scripts.py", "if #existing > 1 then return existing end", "",
           f"{PATH}::test_a_session_is_sealed_once"),
    Mutant("core/pocket/redis_store/lua_scripts.py", "~= ARGV[at + 1] then return {'stale', ARGV[at]} end",
           "== '' then return {'stale'} end",
           f"{PATH}::test_a_seal_over_a_grown_or_open_stream_is_refused"),
    Mutant("workloads/miner/pocket_miner/suppliers/running.py", "and scanned > since + KEY_REMOVAL_GRACE_SECONDS", "",
           "tests/unit/test_miner_tasks.py::"
           "test_a_retired_supplier_goes_on_until_it_looked_for_what_relayers_recorded_last"),
    Mutant("operator/pocket_operator/decide/draining.py", "if has_finalizer(supplier) or published_generation(supplier):",
           "if published_generation(supplier):",
           "tests/unit/test_draining.py::test_keys_pods_and_reports_that_vanish_together_let_no_supplier_go"),
    Mutant("operator/pocket_operator/decide/draining.py", "if has_finalizer(supplier) or published_generation(supplier):",
           "if has_finalizer(supplier):",
           "tests/unit/test_draining.py::test_keys_pods_and_reports_that_vanish_together_let_no_supplier_go"),
    Mutant("operator/pocket_operator/decide/draining.py", "if row.open and report.owns(address)", "if False and report.owns(address)",
           "tests/unit/test_draining.py::"
           "test_a_relay_miner_waits_for_open_sessions_of_suppliers_that_somebody_removed"),
    Mutant("operator/pocket_operator/decide/draining.py", "max(row.open for row in rows)", "rows[0].open",
           "tests/unit/test_draining.py::"
           "test_two_miners_that_both_mine_for_a_supplier_must_both_have_nothing_open"),
    Mutant("operator/pocket_operator/decide/draining.py", "if owner.last_scan_began(address) <= quiet_since + REPORT_LATENCY_SECONDS:", "if False:",
           DRAIN),
    Mutant("operator/pocket_operator/decide/pod_report.py", "return not body.complete or address", "return address",
           DRAIN),
    Mutant("operator/pocket_operator/decide/plan.py", "drains, paused=True, release=release, ", "drains, paused=True, ",
           "tests/unit/test_deletion.py::test_the_annotation_ends_a_drain_also_where_the_relay_miner_is_paused_or_not_valid"),
    Mutant("operator/pocket_operator/decide/draining.py", "(pod.ready or pod.restarts)", "pod.ready",
           DRAIN),
    Mutant("operator/pocket_operator/decide/drift.py", " or foreign_fields(wanted, observed) is not None", "",
           "tests/unit/test_plan.py::test_entries_more_in_what_is_ours_alone_are_taken_out"),
    Mutant("operator/pocket_operator/controller/namespace_guard.py", ' and str(subject["metadata"]["uid"]) not in release:', ":",
           "tests/unit/test_namespace_guard.py::"
           "test_a_namespace_is_free_exactly_when_nothing_in_it_is_held_or_all_of_it_was_let_go"),
    Mutant("core/pocket/keys/sealed_box.py", "any(key_id(public) == identity for public in self.publics)", "bool(self.keys)",
           "tests/unit/test_operator_sealing.py::test_only_the_keys_that_a_text_is_sealed_to_know_it"),
    Mutant("core/pocket/redis_store/log_positions.py", "return pair not in segment.unacknowledged and bool(", "return bool(",
           "tests/integration/test_owed_relays.py::"
           "test_a_log_is_not_released_while_it_owes_relays_of_a_session_that_is_mirrored_further"),
    Mutant("core/pocket/redis_store/relay_recorder.py", "if any(segment.unacknowledged and not segment.damaged for segment in self._log.segments):", "if False:",
           "tests/integration/test_owed_relays.py::"
           "test_what_redis_did_not_take_is_appended_once_it_does_without_a_restart"),
    Mutant("core/pocket/redis_store/relay_recorder.py", "if due:", "if False:",
           "tests/integration/test_publisher.py::test_relays_survive_a_redis_that_comes_back_empty"),
    Mutant("core/pocket/redis_store/log_positions.py", "return their_origin == our_origin and", "return",
           "tests/integration/test_publisher.py::test_the_log_is_released_once_mirrored_and_not_before"),
    Mutant("core/pocket/redis_store/log_histories.py", "return history if state.histories.get(primary) == history else None", "return history",
           "tests/integration/test_redis_failover.py::"
           "test_a_log_is_not_released_by_a_failover_in_the_middle_of_a_heartbeat"),
    Mutant("core/pocket/redis_store/stream_reader.py", "if not history_id or history_id.startswith(UNREPORTED):", "if True:",
           "tests/integration/test_redis_failover.py::"
           "test_a_log_stays_until_a_miner_has_read_the_new_primary_whose_clock_is_slower"),
    Mutant("core/pocket/redis_store/cluster.py", "target, asking = self._target(error, address), True", "target, asking = self._target(error, address), False",
           "tests/integration/test_cluster.py::test_a_key_of_a_slot_that_is_being_moved_is_found_on_either_side"),
    Mutant("core/pocket/redis_store/cluster.py", "                    if isinstance(reply, _REDIRECTED):", "                    if False:",
           "tests/integration/test_cluster.py::test_a_pipeline_follows_slots_that_have_moved"),
    Mutant("core/pocket/redis_store/server_info.py", "all(row.append_only for row in rows)", "rows[0].append_only",
           "tests/integration/test_cluster.py::test_one_unsafe_primary_makes_the_cluster_unsafe"),
    Mutant("workloads/miner/pocket_miner/sessions/leaf_validation.py", "if relay.SerializeToString(deterministic=True) != relay_bytes:", "if False:",
           "tests/unit/test_gate.py::test_nothing_enters_the_index_unchecked"),
    Mutant("workloads/miner/pocket_miner/sessions/leaf_validation.py", "if not is_applicable(hashed, terms.target_hash):", "if False:",
           "tests/unit/test_gate.py::test_a_relay_at_or_above_the_target_is_refused"),
    Mutant("workloads/miner/pocket_miner/storage/relay_store.py", "INSERT OR IGNORE INTO leaf", "INSERT INTO leaf",
           f"{PATH}::test_a_relay_recorded_twice_is_one_leaf"),
    Mutant("workloads/miner/pocket_miner/sessions/stages.py", "if height >= windows.claim_close:", "if height > windows.claim_close:",
           f"{STAGES}::test_nothing_is_sent_that_the_chain_would_refuse_for_its_height"),
    Mutant("workloads/miner/pocket_miner/sessions/stages.py", "if snapshot.requirement is ProofRequirement.NOT_REQUIRED:", "if False:",
           f"{STAGES}::test_no_proof_is_sent_without_an_own_claim_on_chain_or_without_need"),
    Mutant("workloads/miner/pocket_miner/sessions/stages.py", "if snapshot.claim is ClaimState.CONFLICTING:", "if False:",
           f"{STAGES}::test_a_claim_of_which_nobody_knows_is_proven_and_one_that_is_not_there_is_not"),
    Mutant("workloads/miner/pocket_miner/submission/claims.py", "last_ids = await self.store.close(",
           "last_ids = (lambda x: dict.fromkeys(x, '0-0'))(",
           f"{PATH}::test_relays_after_the_seal_are_refused"),
    Mutant("workloads/miner/pocket_miner/submission/claims.py", "if not expected.viable:", "if False:",
           f"{PATH}::test_an_unprofitable_session_is_skipped_with_its_amounts"),
    Mutant("workloads/miner/pocket_miner/settlement/concluding.py", "if not session.evidence.confirmed(Fact.NO_SETTLEMENT_EVENT):", "if False:",
           "tests/integration/test_settlement_blocks.py::"
           "test_a_session_without_a_claim_is_missed_only_after_a_second_answer"),
    Mutant("workloads/miner/pocket_miner/submission/viability.py", "supplier_reward_upokt(claimed, tokenomics)", "claimed",
           f"{PATH}::test_an_unprofitable_session_is_skipped_with_its_amounts"),
    Mutant("workloads/miner/pocket_miner/submission/viability.py", "self.earned_upokt is None or", "self.earned_upokt is not None and",
           f"{PATH}::test_a_session_is_claimed_where_the_suppliers_share_covers_the_costs_or_is_not_known"),
    Mutant("workloads/miner/pocket_miner/settlement/verdict.py", "not end.may_be_of(sealed) or", "",
           "tests/unit/test_settlement.py::test_the_chains_event_decides_whose_claim_was_paid"),
    Mutant("core/pocket/chain/settlement_event.py", "all(value == ours for value, ours in named if value)", "True",
           "tests/unit/test_settlement.py::"
           "test_sessions_of_a_supplier_that_end_in_one_block_are_told_apart_by_everything_that_names_them"),
    Mutant("core/pocket/chain/settlement_event.py", "if row.op_reason in _SUPPLIER_REASONS", "",
           "tests/integration/test_fees.py::"
           "test_what_shareholders_and_owner_get_is_earned_by_them_and_what_others_get_is_not"),
    Mutant("workloads/miner/pocket_miner/submission/sender.py", "BroadcastFailure.NOT_REQUIRED, BroadcastFailure.RETRY, ", "BroadcastFailure.NOT_REQUIRED, ",
           "tests/unit/test_sender.py::test_what_is_refused_by_name_is_left_out_and_the_rest_is_signed"),
    Mutant("workloads/miner/pocket_miner/submission/sender.py", "if error.refusal in fewer and len(pack) > 1:", "if False:",
           "tests/integration/test_proof_sizes.py::test_claims_that_a_node_finds_too_large_together_are_sent_in_halves"),
    Mutant("workloads/miner/pocket_miner/submission/sender.py", "refused[left.pop(error.index)] = error", "raise",
           f"{REFUSED}::test_a_sealed_claim_that_is_refused_when_it_is_sent_again_holds_up_no_other"),
    Mutant("workloads/miner/pocket_miner/submission/claims.py", "for position, session in enumerate(sessions) if position not in sifted.refused",
           "for session in sessions",
           f"{REFUSED}::test_a_claim_that_the_chain_takes_after_all_is_settled"),
    Mutant("workloads/miner/pocket_miner/submission/deliveries.py",
           "kind.record_refusal(session, delivery.attempts.failed or None)", "pass",
           f"{REFUSED}::test_a_claim_that_the_chain_takes_after_all_is_settled"),
    Mutant("workloads/miner/pocket_miner/submission/deliveries.py", "if not self._is_included(session, results)]", "]",
           f"{FEES}::test_while_no_node_shows_claims_one_that_is_known_to_be_in_a_block_is_not_sent_again"),
    Mutant("workloads/miner/pocket_miner/submission/deliveries.py", "if not again or error.refusal is not BroadcastFailure.NEW_TIMESTAMP:", "if True:",
           f"{FEES}::test_neither_is_one_whose_timestamp_a_restarted_node_calls_used"),
    Mutant("workloads/miner/pocket_miner/submission/deliveries.py", "(BroadcastFailure.UNREACHABLE, BroadcastFailure.MEMPOOL_FULL)",
           "(BroadcastFailure.UNREACHABLE,)",
           f"{FEES}::test_a_full_mempool_is_offered_the_same_bytes_again_because_another_may_have_taken_them"),
    Mutant("workloads/miner/pocket_miner/submission/fees.py", "fees if fee_paid else dict.fromkeys(fees, 0)", "fees",
           f"{FEES}::test_of_a_transaction_that_fails_in_a_block_the_books_hold_what_the_chain_took"),
    Mutant("workloads/miner/pocket_miner/submission/proofs.py", " and session.terms_confirmed", "",
           "tests/integration/test_single_answers.py::"
           "test_after_a_restart_a_wrong_target_of_one_node_leaves_no_proof_out"),
    Mutant("workloads/miner/pocket_miner/suppliers/supplier_miner.py",
           'await self._isolated("adopting a claim", block, functools.partial(adopt, session))', "await adopt(session)",
           "tests/integration/test_lost_knowledge.py::test_a_claim_that_cannot_be_adopted_keeps_no_other_from_it"),
    Mutant("workloads/miner/pocket_miner/submission/known_seals.py", "asyncio.to_thread(self.audit.save_seals, self.supplier, end, seals, signed)",
           "asyncio.sleep(0)",
           f"{RACES}::test_a_seal_is_on_the_volume_and_in_redis_before_its_claim_is_broadcast"),
    Mutant("workloads/miner/pocket_miner/submission/claims.py", "await self._load_signed(sessions, block)", "pass",
           f"{RACES}::test_after_a_crash_between_seal_and_broadcast_the_same_bytes_are_sent"),
    Mutant("workloads/miner/pocket_miner/submission/proofs.py", "if root != session.seal.root:", "if False:",
           f"{RACES}::test_leaves_that_changed_after_the_seal_are_never_proven"),
    Mutant("workloads/miner/pocket_miner/sessions/claim_view.py", "(session.seal is not None and claim.root_hash != session.seal.root)", "False",
           f"{PATH}::test_a_foreign_claim_is_never_proven_and_never_overwritten"),
    Mutant("workloads/miner/pocket_miner/ingest/relay_consumer.py", "if stored not in (None, session.terms.name):", "if False:",
           "tests/integration/test_answers_and_restarts.py::test_relays_that_were_stored_by_wrong_terms_are_validated_again"),
    Mutant("workloads/miner/pocket_miner/suppliers/supplier_miner.py", "if not known and session.seal is None:", "if not known:",
           "tests/integration/test_answers_and_restarts.py::test_a_claim_is_proven_although_the_terms_of_its_session_are_unknown"),
    Mutant("workloads/miner/pocket_miner/sessions/claim_view.py", "if ours and later and not session.claim_confirmed:", "if False:",
           "tests/integration/test_answers_and_restarts.py::test_a_claim_that_one_node_showed_once_is_sent_again_while_no_node_does"),
    Mutant("workloads/miner/pocket_miner/submission/sender.py", "if remaining > LAST_BLOCKS:", "if True:",
           "tests/integration/test_answers_and_restarts.py::test_what_no_node_simulates_is_sent_with_typical_gas_before_its_window_closes"),
    Mutant("workloads/miner/pocket_miner/settlement/concluding.py", "session.windows.settlement <= self.owner_since", "False",
           "tests/integration/test_peers.py::test_a_former_owner_books_no_second_outcome_after_the_tombstone_is_deleted"),
    Mutant("workloads/miner/pocket_miner/storage/audit.py", "if self.outcome(outcome.supplier, outcome.session_id) is None:", "if True:",

                    "tests/unit/test_programs_and_logs.py::test_every_session_has_exactly_one_outcome_and_alterations_are_found"),
    Mutant("workloads/miner/pocket_miner/sessions/evidence.py", "_ENOUGH: Final = 2", "_ENOUGH: Final = 1",
           f"{EVIDENCE}::test_a_statement_is_confirmed_by_another_source_or_another_height"),
    Mutant("workloads/miner/pocket_miner/sessions/claim_view.py", "if session.claim_on_chain is not None:", "if False:",
           f"{EVIDENCE}::test_a_claim_that_was_seen_stays_whatever_is_told_afterwards"),
    Mutant("workloads/miner/pocket_miner/sessions/claim_view.py", "if answer.height <= close:", "if False:",
           f"{EVIDENCE}::test_that_no_claim_is_there_counts_after_the_window_and_by_two_answers"),
    Mutant("core/pocket/chain/votes.py", "highest >= _ENOUGH and unique and not contradicted", "True",
           f"{EVIDENCE}::test_a_seed_hash_is_confirmed_by_a_second_node_or_block_and_the_most_told_one_counts"),
    Mutant("workloads/miner/pocket_miner/sessions/submission.py", "if not last.accepted:", "if False:",
           f"{EVIDENCE}::test_what_no_block_took_is_sent_again_and_new_bytes_only_where_the_old_ones_cannot_be_it"),
    Mutant("workloads/miner/pocket_miner/suppliers/supplier_miner.py", 'await self._isolated("checking the fence", block, self.store.check_fence)',
           "pass", f"{WRONG}::test_a_former_owner_that_wakes_up_pays_no_second_fee"),
    Mutant("workloads/miner/pocket_miner/submission/proofs.py", "self._seeds().doubt(windows.proof_seed, session.proof_message[0] if session.proof_message else None)", "pass",
           f"{WRONG}::test_a_wrong_seed_hash_is_asked_for_again_and_the_proof_repaired"),
    Mutant("workloads/miner/pocket_miner/ingest/relay_consumer.py", "or origin_of(poll.incarnation, history_id) != origin:", ":",
           f"{ROUNDS}::test_a_session_that_is_new_or_of_another_redis_is_left_to_the_full_read"),
    Mutant("workloads/miner/pocket_miner/ingest/consume_rounds.py", "            if read.added is not None:", "            if True:",
           f"{ROUNDS}::test_nothing_is_published_and_no_position_moves_before_the_relays_are_durable"),
    Mutant("workloads/miner/pocket_miner/ingest/consume_rounds.py", "if len(rows) > 1 and not of_all:", "if False:",
           f"{ROUNDS}::test_what_cannot_be_stored_of_one_supplier_keeps_no_other_from_the_volume"),
    Mutant("workloads/miner/pocket_miner/ingest/relay_consumer.py", "await self._replace_terms(session, best)", "pass",
           f"{WRONG}::test_terms_of_a_node_that_lags_are_corrected_before_anything_is_sealed"),
    Mutant("core/pocket/chain/plausible_heights.py", "if not self._above.observe(block, now):", "if False:",
           f"{EVIDENCE}::test_a_height_that_time_does_not_allow_is_never_taken_and_changes_nothing"),
    Mutant("core/pocket/chain/response_checks.py", "if missing := [path for path in paths if not _has(message, path)]:",
           "if missing := []:",
           "tests/unit/test_failures.py::test_every_recorded_answer_is_taken_and_none_that_was_emptied"),
    Mutant("workloads/miner/pocket_miner/submission/claims.py", "if any(session.claim.sent is not None",
           "if False and any(session.claim.sent is not None",
           "tests/unit/test_rebroadcast.py::test_a_claim_that_failed_is_signed_again_unless_the_chain_shows_one_with_its_root"),
    Mutant("workloads/miner/pocket_miner/storage/trie_pool.py", "    if not sealed_root:", "    if True:",
           "tests/unit/test_sealed_leaves.py::"
           "test_a_volume_proves_the_sealed_leaves_in_whatever_order_their_paths_are"),
    Mutant("workloads/miner/pocket_miner/ingest/relay_consumer.py", "                if known != origin:", "                if False:",
           "tests/integration/test_redis_watch.py::test_positions_on_a_volume_hold_for_the_history_in_which_they_were_read"),
    Mutant("core/pocket/chain/client.py", "        check_answer(method, request, answer)", "        pass",
           "tests/integration/test_wrong_node_answers.py::"
           "test_a_wrong_answer_is_replaced_by_another_nodes_and_kept_nowhere"),
    Mutant("core/pocket/chain/client.py", "if 0 < committed < needed:", "if False:",
           "tests/integration/test_wrong_node_answers.py::test_a_statement_of_a_node_that_lags_is_none"),
    Mutant("workloads/miner/pocket_miner/ingest/consume_rounds.py", "or streams + len(request.positions) > _MOST_STREAMS", "",
           "tests/integration/test_consume_rounds.py::"
           "test_a_pipeline_reads_a_bounded_number_of_streams_and_the_next_one_the_others"),
    Mutant("workloads/relayer/pocket_relayer/pipeline/admission.py", "turn(address, cost, header.application_address)",
           "turn(header.application_address, cost, address)",
           "tests/integration/test_admission_bounds.py::test_a_flood_of_one_does_not_delay_the_verification_of_another"),
    Mutant("core/pocket/redis_store/lua_scripts.py", "redis.call('HDEL', KEYS[4], ARGV[2])", "",
           "tests/integration/test_publisher.py::test_the_log_is_released_when_the_session_is_finished"),
    Mutant("core/pocket/redis_store/redis_leases.py", "(redis.call('HGET', KEYS[1], ARGV[i]) or '') == ARGV[i + 1]", "true",
           "tests/integration/test_damaged_rows.py::test_a_lease_that_another_member_wrote_meanwhile_is_not_overwritten"),
    Mutant("core/pocket/chain/claim_pages.py", " if row.supplier_operator_address == supplier]", "]",
           "tests/unit/test_one_wrong_answer.py::test_claims_of_other_suppliers_on_any_page_are_not_taken_for_ours"),
    Mutant("core/pocket/chain/response_checks.py", "if not 0 < first <= (height or first) <= last or", "if",
           "tests/unit/test_failures.py::test_a_session_is_taken_as_the_answer_to_its_own_heights_only"),
    Mutant("core/pocket/chain_cache/cached_client.py", "if lifetime is None or height:", "if lifetime is None:",
           "tests/unit/test_cached_queries.py::test_an_answer_of_the_present_is_none_about_a_height"),
    Mutant("workloads/miner/pocket_miner/submission/proofs.py", " or session.sample[0] != seed_hash:", ":",
           "tests/unit/test_requirements.py::test_the_requirement_is_that_of_a_session_without_a_past"),
    Mutant("workloads/miner/pocket_miner/sessions/submission.py", "(result is not None and result.code)", "result is not None",
           "tests/unit/test_evidence.py::"
           "test_what_no_block_took_is_sent_again_and_new_bytes_only_where_the_old_ones_cannot_be_it"),
    Mutant("workloads/miner/pocket_miner/suppliers/supplier_miner.py", "        await self._merge_peers()\n        if free:", "        if free:",
           "tests/integration/test_peers.py::test_without_redis_relays_of_peers_are_in_the_claim"),
    Mutant("operator/pocket_operator/decide/draining.py", "snapshot.published is not None and address in snapshot.published.entries", "False",
           "tests/unit/test_draining.py::"
           "test_one_trace_of_a_published_key_is_enough_to_wait_where_supplier_and_status_lost_theirs"),
    Mutant("operator/pocket_operator/decide/stake_decision.py", "if sight.status.spent_upokt + plan.cost", "if plan.cost",
           "tests/unit/test_stake_decisions.py::test_a_difference_has_its_reason_and_step"),
]  # fmt: skip


class Verdict(StrEnum):
    """Result for a mutant.

    Only KILLED is good.
    """

    KILLED = "killed"
    SURVIVED = "SURVIVED"
    TIMED_OUT = "TIMED OUT"
    FAULTY = "FAULTY"


def judged(mutant: Mutant, copy: Path) -> tuple[Verdict, str]:
    """Return the verdict, and why it is not KILLED."""
    target = copy / mutant.file
    original = target.read_text(encoding="utf-8")
    if original.count(mutant.old) < 1:
        return Verdict.FAULTY, "the line to break is gone: update the list"
    target.write_text(original.replace(mutant.old, mutant.new, 1), encoding="utf-8")
    try:
        return _tested(mutant.test, copy)
    finally:
        target.write_text(original, encoding="utf-8")


def _tested(test: str, copy: Path) -> tuple[Verdict, str]:
    code, output = run_tests([test], copy, SECONDS)
    if code is None:
        return Verdict.TIMED_OUT, f"no verdict within {SECONDS} s: let the test fail where it now waits"
    if code == TESTS_FAILED:
        return Verdict.KILLED, ""
    if code == 0:
        return Verdict.SURVIVED, "no test failed"
    return Verdict.FAULTY, f"pytest ended with {code}: {output[-300:]}"


def run_tests(arguments: Sequence[str], copy: Path, seconds: float) -> tuple[int | None, str]:
    """Run tests against a copy of the sources until one fails.

    Returns pytest's exit code, None if it took too long, and its output.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(copy / source) for source in SOURCES),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", *arguments],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as child:  # fmt: skip
        try:
            output, _ = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # and what it has started
            return None, ""
    return child.returncode, output


@contextlib.contextmanager
def judging(judge: Callable[[M, Path], R], jobs: int) -> Iterator[Callable[[Sequence[M]], Iterator[R]]]:
    """Judge mutants side by side, each on a copy of the sources of its own. Results come in the mutants' order."""
    copies: queue.SimpleQueue[Path] = queue.SimpleQueue()

    def judged_on_a_copy(mutant: M) -> R:
        copy = copies.get()
        try:
            return judge(mutant, copy)
        finally:
            copies.put(copy)

    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        for job in range(jobs):
            copy = Path(folder, str(job))
            for source in SOURCES:
                shutil.copytree(ROOT / source, copy / source, ignore=shutil.ignore_patterns("*.egg-info"))
            copies.put(copy)
        yield lambda mutants: pool.map(judged_on_a_copy, mutants)


def main() -> int:
    """Exit code 1 unless every mutant is killed. ONLY=<text> tries those whose file or test holds the text."""
    chosen = [mutant for mutant in MUTANTS if os.environ.get("ONLY", "") in f"{mutant.file} {mutant.test}"]
    jobs = int(os.environ.get("JOBS") or os.cpu_count() or 1)
    counts: Counter[Verdict] = Counter()
    with judging(judged, jobs) as results:
        for number, (mutant, (verdict, why)) in enumerate(zip(chosen, results(chosen), strict=True), start=1):
            counts[verdict] += 1
            print(f"{number:2} {verdict:9} {mutant.file.rsplit('/', 1)[1]}: {mutant.old[:60]!r}", flush=True)
            if why:
                print(f"   {why}\n   expected to fail: {mutant.test}")
    print(f"{len(chosen)} mutants: {', '.join(f'{number} {verdict}' for verdict, number in counts.items())}")
    return 0 if counts.total() == counts[Verdict.KILLED] else 1


if __name__ == "__main__":
    sys.exit(main())
