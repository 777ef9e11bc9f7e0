"""What each scenario consists of: the tests that carry it out, at the front door where it is about the front door.

A test that is not there, or is skipped, is no proof: then the scenario fails, or is skipped.
"""

from collections.abc import Mapping
from dataclasses import dataclass

#: The eight proofs of the sign-off board, each with the tests that prove it.
PROOFS: Mapping[str, tuple[str, ...]] = {
    "proof-api-run-idem": (
        "tests/api/test_starts.py::test_the_same_start_again_is_a_replay_of_the_same_run",
        "tests/api/test_starts.py::test_a_hundred_equal_starts_at_once_make_one_run",
        "tests/steps/test_ingress.py::test_what_is_no_part_of_a_runs_identity_may_differ_in_a_replay",
    ),
    "proof-api-run-drift": (
        "tests/api/test_starts.py::test_the_same_ask_with_other_particulars_is_a_conflict",
        "tests/api/test_starts.py::test_two_versions_that_render_the_same_intent_are_a_conflict",
        "tests/steps/test_ingress.py::test_other_particulars_for_the_same_intent_are_a_conflict",
    ),
    "proof-malformed-400": (
        "tests/api/test_front_door.py::test_a_body_that_is_not_json_is_refused_before_anything_is_written",
        "tests/api/test_front_door.py::test_a_body_of_another_json_type_is_refused",
        "tests/api/test_starts.py::test_a_malformed_start_is_refused_and_writes_nothing",
        "tests/api/test_starts.py::test_a_malformed_intent_is_refused_with_details_and_writes_nothing",
        "tests/api/test_starts.py::test_a_start_against_the_rules_of_the_queues_is_refused_and_writes_nothing",
        "tests/steps/test_ingress.py::test_a_refused_start_writes_nothing",
    ),
    "proof-x1-audit": (
        "tests/steps/test_run_workflow.py::test_a_success_leaves_one_receipt",
        "tests/steps/test_schema.py::test_the_ledger_of_replies_takes_each_key_once_and_is_never_changed",
        "tests/crash/test_kill_loop.py",
        "tests/crash/test_crash_points.py::test_an_approved_run_of_the_product_survives_the_death_of_its_worker_at_every_write",
        "tests/api/test_signoff.py::test_a_side_effect_that_happened_twice_is_against_it",
        "tests/api/test_signoff.py::test_a_reply_that_counted_twice_is_against_it",
    ),
    "proof-split-parity": ("tests/crash/test_split_topology.py",),
    "proof-hitl-dedupe": (
        "tests/api/test_gates.py::test_the_same_reply_again_is_a_replay_and_is_sent_once",
        "tests/api/test_gates.py::test_a_recorded_reply_is_agreed_to_even_after_the_run_has_moved_on",
        "tests/api/test_gates.py::test_equal_replies_at_once_are_recorded_and_sent_once",
        "tests/api/test_gates.py::test_different_replies_at_once_under_one_key_are_recorded_once",
        "tests/api/test_gates.py::test_a_reply_and_an_event_with_one_key_are_one_answer",
    ),
    "proof-queue-fairness": (
        "tests/engine/test_queue_fairness.py",
        "tests/engine/test_queue_limits.py",
        "tests/engine/test_queue_races.py",
        "tests/engine/test_enqueue.py::test_urgent_work_starts_first_and_then_the_oldest",
        "tests/engine/test_enqueue.py::test_a_worker_runs_no_more_of_a_queue_than_it_may",
        "tests/api/test_queues.py",
    ),
    "proof-budget-guard": (
        "tests/steps/test_policy.py::test_more_than_the_budget_is_refused",
        "tests/steps/test_run_workflow.py::test_a_broken_budget_ends_the_run_and_says_which",
        "tests/steps/test_run_workflow.py::test_the_wall_clock_budget_counts_from_the_start_of_the_run",
        "tests/api/test_views.py::test_a_blocked_budget_stands_among_the_steps",
        "tests/api/test_throughput.py::test_a_run_over_its_budget_reaches_the_board",
        "tests/api/test_signoff.py::test_a_budget_that_stopped_a_run_in_the_last_day_is_against_it",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """proves: tiles of the board that rest on it. note: what it does not cover."""

    id: str
    name: str
    checks: tuple[str, ...] = ()
    proves: tuple[str, ...] = ()
    note: str | None = None

    @property
    def tests(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*(test for proof in self.proves for test in PROOFS[proof]), *self.checks]))


SCENARIOS = (
    Scenario(
        id="S00",
        name="Bootstrap and claim scope",
        checks=(
            "tests/platform/test_commands.py::test_start_brings_up_everything_on_a_machine_with_nothing_and_drains_on_ctrl_c",
            "tests/platform/test_bootstrap.py::test_the_first_use_installs_and_says_so_and_the_second_does_not",
            "tests/platform/test_lanes.py::test_the_lanes_fan_out",
            "tests/api/test_signoff.py::test_the_claim_scope_is_shown_by_runs_and_by_the_board",
        ),
    ),
    Scenario(
        id="S01",
        name="Canonical run, happy path",
        checks=(
            "tests/api/test_story.py::test_a_run_is_started_asked_approved_and_executed",
            "tests/api/test_starts.py::test_a_fresh_start_is_created_and_shown_as_enqueued",
            "tests/steps/test_ingress.py::test_a_start_writes_the_intent_its_run_and_its_workflow",
            "tests/steps/test_run_workflow.py::test_an_approved_plan_is_executed_and_leaves_four_steps",
        ),
    ),
    Scenario(id="S02", name="Idempotent replay and drift", proves=("proof-api-run-idem", "proof-api-run-drift")),
    Scenario(id="S03", name="Fail-closed ingress, zero writes", proves=("proof-malformed-400",)),
    Scenario(
        id="S04",
        name="Gate, canonical path",
        checks=(
            "tests/api/test_gates.py::test_an_open_gate_is_pending",
            "tests/api/test_gates.py::test_a_gate_shows_what_came_of_it",
            "tests/api/test_gates.py::test_gates_are_listed_in_the_order_of_their_opening",
            "tests/api/test_gates.py::test_a_timeout_out_of_bounds_is_refused_even_for_an_unknown_run",
            "tests/api/test_gates.py::test_a_reply_is_recorded_and_sent",
            "tests/api/test_gates.py::test_a_reply_without_one_of_its_parts_is_refused",
            "tests/api/test_gates.py::test_interactions_are_listed_oldest_first_up_to_the_limit",
            "tests/api/test_long_poll.py::test_a_poll_returns_as_soon_as_the_gate_is_settled",
            "tests/api/test_inbox.py::test_an_open_gate_of_a_run_that_waits_is_listed",
            "tests/steps/test_run_workflow.py::test_a_gate_says_what_was_answered_by_whom_and_what_it_meant",
        ),
    ),
    Scenario(
        id="S05",
        name="Gate, chaos matrix",
        checks=(
            "tests/api/test_gates.py::test_a_new_reply_to_a_run_that_does_not_wait_is_refused_and_writes_nothing",
            "tests/api/test_gates.py::test_a_settled_gate_takes_no_new_reply",
            "tests/api/test_gates.py::test_a_reply_whose_message_fails_leaves_nothing_and_works_when_tried_again",
            "tests/api/test_gate_story.py::test_a_gate_that_nobody_answers_is_escalated_once_and_takes_no_late_answer",
            "tests/api/test_gate_story.py::test_both_of_two_gates_decide",
            "tests/api/test_gate_story.py::test_of_many_answers_at_once_each_key_counts_once_and_one_decides",
            "tests/steps/test_run_workflow.py::test_a_rejected_plan_changes_the_files_back",
            "tests/crash/test_gate_kills.py",
        ),
        proves=("proof-hitl-dedupe",),
    ),
    Scenario(
        id="S06",
        name="Event from outside",
        checks=(
            "tests/api/test_gates.py::test_an_event_is_recorded_and_sent_like_a_reply",
            "tests/api/test_gates.py::test_a_topic_of_another_gate_is_a_conflict_before_the_run_is_looked_up",
            "tests/api/test_gates.py::test_a_system_topic_that_is_not_the_gates_is_a_conflict",
            "tests/api/test_gates.py::test_a_malformed_event_is_refused_and_writes_nothing",
            "tests/api/test_story.py::test_an_event_from_outside_rejects_a_plan",
            "tests/steps/test_origins.py",
        ),
    ),
    Scenario(
        id="S07",
        name="Six operations",
        checks=(
            "tests/platform/test_policy.py::test_the_checkout_keeps[ops-surface]",
            "tests/api/test_ops.py",
            "tests/api/test_ops_story.py::test_a_run_cancelled_at_its_gate_is_resumed_there_and_succeeds",
            "tests/api/test_ops_story.py::test_a_run_that_has_ended_can_be_forked_from_any_of_its_records",
        ),
    ),
    Scenario(
        id="S08",
        name="Repro pack and triage",
        checks=(
            "tests/api/test_triage.py",
            "tests/api/test_repro.py::test_a_pack_holds_everything_that_a_run_left",
            "tests/api/test_repro.py::test_the_command_and_the_route_give_the_same_bytes",
            "tests/api/test_repro.py::test_nothing_tells_how_to_reach_the_database",
            "tests/api/test_proofs.py",
            "tests/steps/test_replay_command.py::test_a_run_that_was_killed_twice_replays_identically",
        ),
    ),
    Scenario(
        id="S09",
        name="Split topology and durability",
        checks=(
            "tests/crash/test_drill_commands.py::test_a_round_of_the_crash_drill_is_exact",
            "tests/crash/test_database_restart.py::test_runs_of_the_product_survive_two_crashes_of_the_server",
        ),
        proves=("proof-split-parity", "proof-x1-audit"),
    ),
    Scenario(
        id="S10",
        name="Queue fairness and priority",
        checks=(
            "tests/engine/test_enqueue.py::test_only_one_unfinished_workflow_of_a_queue_has_a_deduplication_id",
            "tests/steps/test_policy.py::test_the_lane_gives_the_priority_unless_one_is_said",
            "tests/steps/test_policy.py::test_a_parent_needs_a_partition_for_itself_or_for_its_tasks",
            "tests/steps/test_schema.py::test_the_views_show_what_is_queued_failed_and_slow",
            "tests/api/test_throughput.py::test_queues_are_shown_by_partition_and_by_priority",
            "tests/api/test_throughput.py::test_a_partition_is_shown_with_its_share_and_where_it_stands",
            "tests/platform/test_queue_limits.py",
            "tests/steps/test_reason.py",
        ),
        proves=("proof-queue-fairness",),
    ),
    Scenario(id="S11", name="Budget guards", proves=("proof-budget-guard",)),
    Scenario(
        id="S12",
        name="Recipe flywheel",
        checks=(
            "tests/api/test_recipes.py",
            "tests/api/test_promotion.py",
            "tests/steps/test_promotion.py",
            "tests/crash/test_promotion_kills.py",
            "tests/steps/test_evaluation.py",
            "tests/steps/test_flywheel.py",
            "tests/api/test_flywheel.py",
            "tests/steps/test_recipes.py::test_the_database_itself_keeps_versions_and_fixtures_as_they_are",
            "tests/steps/test_recipe_command.py::test_a_bundle_becomes_the_active_recipe_in_three_commands",
            "tests/steps/test_ingress.py::test_the_pinned_recipe_wins_over_the_options",
            "tests/api/test_starts.py::test_an_unknown_recipe_is_not_found",
        ),
    ),
    Scenario(
        id="S13",
        name="Reversible patch",
        checks=(
            "tests/steps/test_run_workflow.py::test_an_approved_plan_changes_files_for_good",
            "tests/steps/test_run_workflow.py::test_a_rejected_plan_changes_the_files_back",
            "tests/steps/test_run_workflow.py::test_a_file_that_somebody_else_changed_is_not_taken_back",
            "tests/steps/test_run_workflow.py::test_a_cancelled_run_is_rolled_back_in_its_place_and_goes_on_when_resumed",
            "tests/steps/test_patches.py",
            "tests/api/test_views.py::test_patches_are_listed_in_their_order",
        ),
    ),
    Scenario(
        id="S14",
        name="Live integrations, smoke",
        checks=(
            "tests/opencode/test_guards.py::test_without_a_server_a_strict_worker_has_no_answer_and_another_says_that_it_made_one_up",
            "tests/opencode/test_real_server.py::test_the_plan_agent_gives_a_plan",
            "tests/opencode/test_real_server.py::test_the_build_agent_gives_a_build",
            "tests/opencode/test_commands.py::test_a_smoke_that_cannot_run_says_why_and_fails_only_if_strict",
            "tests/steps/test_agent.py::test_what_was_recorded_is_what_a_replay_answers",
            "tests/steps/test_agent.py::test_an_answer_must_fit_its_schema",
            "tests/steps/test_sandbox_mock.py::test_settings_choose_the_sandbox",
            "tests/steps/test_sandbox_mock.py::test_a_command_succeeds_and_says_so",
            "tests/sandbox/test_live_smoke.py::test_what_is_missing_is_told_and_fails_only_when_strict",
            "tests/sandbox/test_live_smoke.py::test_the_local_sandbox_really_runs_it",
            "tests/sandbox/test_live_smoke.py::test_the_e2b_service_runs_it_and_nothing_is_left_there",
            "tests/live/test_live_run.py::test_a_run_with_nothing_pretended_but_the_model",
            "tests/platform/test_commands.py::test_a_sandbox_that_cannot_be_had_stops_the_worker_with_one_line",
            "tests/steps/test_signoff.py::test_what_may_be_claimed_depends_on_the_posture",
            "tests/platform/test_lanes.py::test_a_live_smoke_that_cannot_run_is_skipped_with_its_reason_unless_strictness_is_asked_for",
        ),
        note="covered: recorded agents, a real OpenCode server with a stand-in for its model, local sandboxes, E2B's package with a "
        "stand-in for its service, a run with all of it, and that nothing live is claimed without it. Not covered: a real model, the "
        "E2B service itself, a machine on which microsandbox boots",
    ),
    Scenario(
        id="S15",
        name="Binary sign-off",
        checks=(
            "tests/platform/test_lanes.py::test_evidence_of_lanes_and_proofs_that_went_well_makes_a_go_and_its_loss_a_no_go",
            "tests/platform/test_lanes.py::test_a_lane_that_was_killed_leaves_a_no_go",
            "tests/platform/test_lanes.py::test_files_that_change_while_a_lane_runs_make_it_a_no_go",
            "tests/api/test_signoff.py",
            "tests/steps/test_signoff.py",
        ),
    ),
)
