"""bin/policy: the house rules that a machine can check, each with the proof that it finds what breaks it.

    bin/policy [RULE ...] [--list]

A rule is a few tests. The evidence of the sign-off board is about all of them, so naming some leaves none.
"""

import argparse
import os
import time
from collections.abc import Mapping

from bin import evidence
from bin.children import stopping_on_term
from bin.lanes import say, table
from bin.outcomes import Verdict, run_tests
from bin.settings import Settings
from bin.wiring import FAILED, USAGE, complain, run

BY_SOURCE = (
    "wf-purity",
    "pure-modules",
    "goal-branching",
    "step-retry",
    "queue-partition-propagation",
    "dedupe-keys",
    "boundaries",
    "strict-models",
    "api-no-launch",
    "ports",
    "no-parent-id",
    "no-placeholder-hash",
    "no-engine-ddl",
    "ops-surface",
    "queue-class-parity",
    "hitl-abi",
    "proof-provenance",
    "no-env-writes",
)
CHECKS = ("test_the_checkout_keeps", "test_a_breach_is_found_of", "test_nothing_else_is_taken_for_a_breach_of")
ROOMS = "tests/platform/test_rooms.py"

RULES: Mapping[str, tuple[str, ...]] = {
    **{name: tuple(f"tests/platform/test_policy.py::{check}[{name}]" for check in CHECKS) for name in BY_SOURCE},
    "import-direction": (
        f"{ROOMS}::test_no_import_goes_back",
        f"{ROOMS}::test_no_module_imports_itself_by_a_detour",
        f"{ROOMS}::test_the_engine_imports_its_few_libraries_and_itself",
        f"{ROOMS}::test_the_other_rooms_use_the_engine_by_its_public_names",
    ),
    "engine-knows-no-product": (
        f"{ROOMS}::test_the_engine_knows_no_word_of_the_product",
        f"{ROOMS}::test_the_engines_part_of_the_schema_knows_no_table_of_the_product",
        f"{ROOMS}::test_a_product_word_is_found_in_any_spelling",
        f"{ROOMS}::test_a_word_that_only_contains_one_is_none",
    ),
    "env-read-in-bin": (f"{ROOMS}::test_only_commands_read_the_environment",),
    "hitl-names-frozen": (
        "tests/steps/test_identity.py::test_a_gate_is_named_by_run_step_purpose_and_attempt",
        "tests/steps/test_identity.py::test_the_events_of_a_gate_have_frozen_names",
    ),
    "hitl-event-abi": ("tests/steps/test_contracts.py::test_an_external_event_needs_a_well_formed_address",),
    "stable-recipe-needs-eval-fixtures": (
        "tests/steps/test_promotion.py::test_a_version_without_checks_or_fixtures_is_refused_at_once",
        "tests/steps/test_promotion.py::test_a_candidate_whose_fixtures_are_green_becomes_stable_and_active",
    ),
    "duplicate-side-effect-guard": (
        "tests/steps/test_schema.py::test_the_ledger_of_replies_takes_each_key_once_and_is_never_changed",
        "tests/steps/test_identity.py::test_a_receipt_is_keyed_by_the_payload_of_the_side_effect",
        "tests/steps/test_identity.py::test_a_run_is_named_by_the_hash_of_its_intent",
    ),
    "locks": (
        "tests/platform/test_locks.py",
        "tests/platform/test_bootstrap.py::test_a_lock_holds_names_versions_and_hashes_and_no_address",
    ),
}


def main(settings: Settings) -> int:
    parser = argparse.ArgumentParser(prog="bin/policy", description="The house rules that a machine can check.")
    parser.add_argument("rules", nargs="*", metavar="RULE", help="only these (all)")
    parser.add_argument("--list", action="store_true", help="show the rules and run nothing")
    asked = parser.parse_args()
    if unknown := [name for name in asked.rules if name not in RULES]:
        complain(f"no such rule: {', '.join(unknown)}; bin/policy --list shows them")
        return USAGE
    if asked.list:
        table([("rule", "tests"), *((name, " ".join(tests)) for name, tests in RULES.items())])
        return 0
    with stopping_on_term():
        if asked.rules:
            return FAILED if check(settings, asked.rules)[1] else 0
        with evidence.tile(settings, "pf-policy") as claim:
            refs, broken = check(settings, list(RULES))
            claim.decide(f"broken: {', '.join(broken)}" if broken else "", refs)
        return FAILED if broken else 0


def check(settings: Settings, names: list[str]) -> tuple[list[str], list[str]]:
    """Where to look, and which rules do not hold. A rule that could not be checked doesn't."""
    log = settings.state_dir.absolute() / "lanes" / f"policy-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.log"
    say(f"{len(names)} rules …")
    session = run_tests([test for name in names for test in RULES[name]], log)
    verdicts = {name: session.of_all(RULES[name]) for name in names}
    table([("rule", "", "tests", ""), *(row(name, verdict) for name, verdict in verdicts.items())])
    broken = [name for name, verdict in verdicts.items() if verdict.state != "PASS"]
    say(f"{len(names) - len(broken)} of {len(names)} rules hold")
    return [f"file:{log}", *(f"policy:{name}" for name in names)], broken


def row(name: str, verdict: Verdict) -> tuple[str, str, str, str]:
    return name, verdict.state, str(verdict.count), verdict.text


if __name__ == "__main__":
    run(main)
