/** The sign-off board: may this be released, what stands against it, and the evidence for either. */
import { html, useMemo } from "../lib.js";
import { url, useResource } from "../data.js";
import { useTitle } from "../frame.js";
import { plural, short, to } from "../state.js";
import { Copy, ErrorBox, Loading } from "../ui/feedback.js";
import { Button, Dot, Tag, Time } from "../ui/parts.js";

// What the sign-off board says of its tiles. Pure.

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

// The sign-off board: may this be released, what stands against it, and the evidence for either.

const EVERY_MS = 10_000;

export function Board() {
  useTitle("Sign-off");
  const found = useResource("/api/ops/signoff", { every: EVERY_MS });
  const board = found.data;
  const against = useMemo(() => (board ? [...board.pfTiles, ...board.proofTiles, ...board.rollbackTriggers].filter((tile) => tile.verdict !== "GO") : []), [board]);
  return html`<div class="board signoff"><div class="board-head"><div class="board-title"><h1>Sign-off</h1><div class="actions row no-print"><${Button} icon="file" onClick=${() => print()}>Print</${Button}></div></div></div>
    <div class="board-body">
      ${found.error && html`<${ErrorBox} error=${found.error} onRetry=${found.refresh} />`}
      ${!board && !found.error && html`<${Loading} rows=${8} />`}
      ${board && html`<${Verdict} board=${board} against=${against} /><${Posture} posture=${board.posture} />
        <${Strip} id="triggers" title="Rollback triggers" note="What would take a release back; each is read from the database now" tiles=${board.rollbackTriggers} good="quiet" live />
        <${Strip} id="pf" title="Lanes" note="The checks that were run on this commit" tiles=${board.pfTiles} good="passed" />
        <${Strip} id="proofs" title="Proofs" note="What was shown about this commit" tiles=${board.proofTiles} good="shown" />
        <${Demo} />`}
    </div></div>`;
}

function Verdict({ board, against }) {
  const go = board.verdict === "GO";
  return html`<section class=${go ? "verdict go" : "verdict"} aria-label="Verdict" data-verdict=${board.verdict}><${Dot} state=${board.verdict} />
    <div class="word">${go ? "GO" : "NO-GO"}</div>
    <div class="grow"><div class="strong">${go ? "Every tile and every trigger is GO." : `${plural(against.length, "tile stands", "tiles stand")} against it.`}</div>
      <div class="dim">${go ? "This may be released." : html`${against.slice(0, 6).map((tile, i) => html`${i ? ", " : ""}<a class="link" href=${`#tile-${tile.id}`} onClick=${(event) => { event.preventDefault(); const there = document.getElementById(`tile-${tile.id}`); there.scrollIntoView({ block: "center" }); there.focus({ preventScroll: true }); }}>${tile.label}</a>`)}${against.length > 6 ? ` and ${against.length - 6} more` : ""}`}</div></div>
    <dl class="meta"><div><dt>Version</dt><dd><code>${board.posture.appVersion}</code></dd></div><div><dt>Latest evidence</dt><dd><${Time} ms=${board.ts || null} /></dd></div></dl></section>`;
}

const POSTURE = [["claimScope", "Claim"], ["topology", "Topology"], ["ocMode", "Agents"], ["sbxMode", "Sandboxes"], ["sbxProvider", "Provider"]];
const Posture = ({ posture }) => html`<dl class="meta" aria-label="Posture">${POSTURE.map(([key, name]) => html`<div key=${key}><dt>${name}</dt><dd>${posture[key]}</dd></div>`)}</dl>`;

function Strip({ id, title, note, tiles, good, live }) {
  const { go, of } = tally(tiles);
  return html`<section class="stack" aria-labelledby=${`strip-${id}`}><div class="row wide"><h2 id=${`strip-${id}`}>${title}</h2><${Tag} tone=${go === of ? "ok" : "bad"}>${go} of ${of} ${good}</${Tag}><span class="dim small">${note}</span></div>
    <ul class="tiles">${failingFirst(tiles).map((tile) => html`<${Tile} key=${tile.id} tile=${tile} live=${live} />`)}</ul></section>`;
}

function Tile({ tile, live }) {
  const reasons = reasonsOf(tile);
  return html`<li class=${tile.verdict === "GO" ? "tile" : "tile no"} id=${`tile-${tile.id}`} tabindex="-1" data-tile=${tile.id} data-verdict=${tile.verdict}>
    <div class="head"><${Dot} state=${tile.verdict} label=${tile.verdict === "GO" ? "GO" : "NO-GO"} /><span class="grow wrap">${tile.label}</span>${isStale(tile) && html`<${Tag} tone="wait" title="The evidence is there, but it is not about what runs here">stale</${Tag}>`}</div>
    ${reasons.length > 0 && html`<ul class="reasons">${reasons.map(({ code, words, samples }) => html`<li key=${code} title=${words ? code : null} class="wrap">${words ?? code}${samples.map(({ wid, what }) => html`<div key=${wid}><a class="link mono" title=${wid} ...${to({ board: "run", wid, tab: "timeline" })}>${short(wid)}</a> <span class="dim">${what}</span></div>`)}</li>`)}</ul>`}
    <ul class="refs dim" aria-label="Evidence">${tile.evidenceRefs.map((ref) => html`<li key=${ref}><${Ref} text=${ref} /></li>`)}</ul>
    <div class="about">${tile.commit && html`<span>commit <code title=${tile.commit}>${tile.commit.slice(0, 7)}</code><${Copy} text=${tile.commit} what="commit" /></span>`}${tile.tree && html`<span>tree <code>${tile.tree.slice(0, 7)}</code></span>`}${tile.appVersion && html`<span>version <code>${tile.appVersion}</code></span>`}
      <span>${live ? "read " : ""}${tile.ts ? html`<${Time} ms=${tile.ts} />` : "never recorded"}</span></div></li>`;
}

function Ref({ text }) {
  const lead = leadOf(text);
  if (lead.to) return html`<a class="link mono" ...${to(lead.to)}>${text}</a>`;
  if (lead.path) return html`<a class="link mono" href=${url(lead.path)} target="_blank" rel="noreferrer">${text}</a>`;
  if (lead.url) return html`<a class="link mono" href=${lead.url} target="_blank" rel="noreferrer noopener">${text}</a>`;
  return html`<code>${text}</code>`;
}

const Demo = () => html`<section class="stack no-print" aria-labelledby="strip-demo"><div class="row wide"><h2 id="strip-demo">Demonstration</h2><span class="dim small">The order in which it convinces</span></div>
  <ol class="card sequence">${SEQUENCE.map(([id, title, see, where]) => html`<li key=${id}><span class="no">${id}</span><div><div class="strong">${title}</div><div class="dim small">${see}</div></div><a class="btn small" ...${to(where)} aria-label=${`Go to ${id}, ${title}`}>Go</a></li>`)}</ol></section>`;
