"""The verdicts of a run's checks over HTTP, and as proof cards."""

import httpx
from psycopg.types.json import Jsonb

from steps.contracts.proof import EvalRow, ProofCard
from tests.api.samples import RUN_ID, WID, Rows


async def verdicts(rows: Rows) -> None:
    await rows.run("succeeded", workflow_status="SUCCESS")
    for check_id, passed, reason, payload in (
        ("b", False, "rowcount_gte:fail:1<2", Jsonb({"rows": 1, "min": 2})),
        ("a", True, "file_exists:ok:*", None),
        ("B", True, "regex:ok:a", None),
    ):
        await rows.fetch(
            """insert into app.eval_results (run_id, check_id, pass, reason, payload, created_at)
               values (%s, %s, %s, %s, %s, to_timestamp(7))""",
            RUN_ID,
            check_id,
            passed,
            reason,
            payload,
        )


async def test_verdicts_come_by_check(client: httpx.AsyncClient, rows: Rows) -> None:
    await verdicts(rows)
    for id in (WID, RUN_ID):
        response = await client.get(f"/api/runs/{id}/eval")
        assert (response.status_code, response.json()) == (
            200,
            [
                {"checkId": "B", "pass": True, "reason": "regex:ok:a", "createdAt": 7000},
                {"checkId": "a", "pass": True, "reason": "file_exists:ok:*", "createdAt": 7000},
                {
                    "checkId": "b",
                    "pass": False,
                    "reason": "rowcount_gte:fail:1<2",
                    "payload": {"rows": 1, "min": 2},
                    "createdAt": 7000,
                },
            ],
        )
        assert [EvalRow.model_validate(row) for row in response.json()]


async def test_a_run_that_was_not_judged_has_none_and_an_unknown_one_is_not_found(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run()
    assert (await client.get(f"/api/runs/{WID}/eval")).json() == []
    assert (await client.get("/api/runs/unknown/eval")).status_code == 404


async def test_each_verdict_has_a_proof_card_that_stays_the_same(client: httpx.AsyncClient, rows: Rows) -> None:
    await verdicts(rows)

    async def told() -> list[ProofCard]:
        cards = [ProofCard.model_validate(row) for row in (await client.get(f"/api/runs/{WID}/proofs")).json()]
        return [card for card in cards if card.provenance == "app.eval_results"]

    cards = await told()
    assert [(card.id, card.claim, card.evidence, card.ts, card.rawRef) for card in cards] == [
        (f"proof-{WID}-eval-B", "check B passes", "regex:ok:a", 7000, f"/api/runs/{WID}/eval"),
        (f"proof-{WID}-eval-a", "check a passes", "file_exists:ok:*", 7000, f"/api/runs/{WID}/eval"),
        (f"proof-{WID}-eval-b", "check b fails", "rowcount_gte:fail:1<2", 7000, f"/api/runs/{WID}/eval"),
    ]
    assert await told() == cards
