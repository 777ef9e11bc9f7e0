/** What the sign-off board says of its tiles. Pure. */

const WORDS = {
  "missing signoff results": "no evidence has been recorded",
  "invalid signoff tile payload (expected object)": "the file of evidence is not a JSON object",
  "invalid signoff tile contract": "the file of evidence is not a tile",
  pf_tile_missing_evidence_refs: "it says GO and shows no evidence",
  proof_tile_missing_evidence_refs: "it says GO and shows no evidence",
  commit_mismatch: "it is about another commit", tree_mismatch: "it is about another tree", app_version_mismatch: "it is about another version",
  commit_missing: "it does not say which commit it is about", tree_missing: "it does not say which tree it is about", app_version_missing: "it does not say which version it is about",
  commit_not_configured: "this service does not say its commit (SIGNOFF_COMMIT)", tree_not_configured: "this service does not say its tree (SIGNOFF_TREE)", app_version_not_configured: "this service does not say its version",
  claim_scope_demo: "a demo claims nothing (CLAIM_SCOPE)", oc_strict_mode_required: "agents may improvise (OC_STRICT_MODE)", oc_mode_live_required: "agents are not live (OC_MODE)", sbx_mode_live_required: "sandboxes are not live (SBX_MODE)",
};
const STALE = /(commit|tree|app_version)_(mismatch|missing)/;

const COUNTED = {
  budget_violations_24h: ["run was stopped by its budget in 24 hours", "runs were stopped by their budgets in 24 hours"],
  failing_runs_24h: ["run failed in 24 hours", "runs failed in 24 hours"],
  app_dbos_terminal_mismatches: ["run ended otherwise than its workflow", "runs ended otherwise than their workflows"],
  mock_receipts_seen_count_gt1: ["side effect was seen twice", "side effects were seen twice"],
  human_interactions_x1_tuple_dupes: ["answer stands twice in the ledger", "answers stand twice in the ledger"],
};

/** A tile's reasons: {code, words, samples}. words are null for a code that speaks for itself; samples: the runs that it names. */
export const reasonsOf = (tile) => (tile.reason ? tile.reason.split("; ") : []).map(reasonOf);

function reasonOf(code) {
  const counted = /^(\w+)=(\d+)(?: \((.*)\))?$/.exec(code);
  if (!counted || !COUNTED[counted[1]]) return { code, words: WORDS[code] ?? null, samples: [] };
  const samples = (counted[3] ?? "").split(", ").filter(Boolean).map((text) => { const [wid, ...what] = text.split(":"); return { wid, what: what.join(":").replace(/:[0-9a-f]{16,}$/, "") }; });
  return { code, words: `${counted[2]} ${COUNTED[counted[1]][counted[2] === "1" ? 0 : 1]}`, samples };
}

/** Whether the evidence is there, but about something else than what runs. */
export const isStale = (tile) => STALE.test(tile.reason ?? "");

/** The tiles that stand against a GO first, in their order. */
export const failingFirst = (tiles) => [...tiles].sort((a, b) => (a.verdict === "GO") - (b.verdict === "GO"));

/** How many are GO: {go, of}. */
export const tally = (tiles) => ({ go: tiles.filter((tile) => tile.verdict === "GO").length, of: tiles.length });

/**
 * Where a reference to evidence leads in here: parameters of an address, a path of the API, an address elsewhere, or nowhere.
 * @returns {{to?: object, path?: string, url?: string, text: string}}
 */
export function leadOf(ref) {
  const proof = /^(?:proof:)?proof-((?:ih|it)_[0-9a-zA-Z]+)/.exec(ref);
  if (proof) return { to: { board: "run", wid: proof[1], tab: "proof", q: ref.replace(/^proof:/, "") }, text: ref };
  const run = /^(?:run|wf|workflow):(.+)$/.exec(ref) ?? /^((?:ih|it|run)_[0-9a-zA-Z]{8,})$/.exec(ref);
  if (run) return { to: { board: "run", wid: run[1], tab: "proof" }, text: ref };
  if (/^(?:api:)?\/(api|openapi)/.test(ref)) return { path: ref.replace(/^api:/, ""), text: ref };
  if (/^https?:\/\/[^\s]+$/.test(ref)) return { url: ref, text: ref };
  if (/^sql:app\.runs#failing_runs/.test(ref)) return { to: { board: "ops", q: "status:ERROR after:24h" }, text: ref };
  if (/^sql:app\.artifacts#budget/.test(ref)) return { to: { board: "throughput" }, text: ref };
  return { text: ref };
}

/** The demonstration, in the order in which it convinces: [scenario, what is shown, what to see, where]. */
export const SEQUENCE = [
  ["S00", "Posture and health", "The badge names the claim scope; the indicator says how the page stays current.", { board: "ops", tab: "queues" }],
  ["S01", "A run from a recipe to its end", "Start it, follow the timeline, see the artifacts that it leaves.", { board: "recipe" }],
  ["S04", "A person decides", "Open the gate from the inbox; the changes stand beside the decision.", { board: "hitl-inbox" }],
  ["S02", "The same start again", "Start with the same form: the same run comes back as a replay; with another budget it is a conflict, with the drift.", { board: "recipe" }],
  ["S07", "Operators act, and it is kept", "Cancel, resume and fork a run; every action asks who and why, and stands in the audit.", { board: "ops" }],
  ["S08", "Proof and reproduction", "The proof tab of a run: every claim with its source; the repro pack of the same run.", { board: "run" }],
  ["S15", "Sign-off", "This board: GO only if every tile and every trigger is.", { board: "signoff" }],
];
