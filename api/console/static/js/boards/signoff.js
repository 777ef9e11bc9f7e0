/** The sign-off board: may this be released, what stands against it, and the evidence for either. */
import { html, useMemo } from "../lib.js";
import { url } from "../api.js";
import { useResource } from "../resource.js";
import { to } from "../route.js";
import { useTitle } from "../title.js";
import { plural, short } from "../format.js";
import { Button } from "../ui/button.js";
import { Copy } from "../ui/copy.js";
import { ErrorBox, Loading } from "../ui/empty.js";
import { Dot, Tag } from "../ui/status.js";
import { Time } from "../ui/time.js";
import { SEQUENCE, failingFirst, isStale, leadOf, reasonsOf, tally } from "../signoff/judge.js";

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
