/** The inbox: every question that waits for a person, by deadline, with its decision and the changes beside it. */
import { html, useEffect, useMemo, useRef, useState } from "../lib.js";
import { path, useResource } from "../data.js";
import { useKeys, useTitle } from "../frame.js";
import { Beside, GateCard, isAlone } from "../run/decision.js";
import { patch, plural, pref, short, to, utc, words } from "../state.js";
import { Copy, Empty, ErrorBox, Loading } from "../ui/feedback.js";
import { Button, Count, Dot, Icon, Left, Tag, tick, Time } from "../ui/parts.js";

// The inbox in groups by how soon an answer is needed. Pure.

const MINUTES_15 = 15 * 60_000;

export const GROUPS = [["overdue", "Overdue"], ["soon", "Within 15 minutes"], ["today", "Today"], ["later", "Later"], ["never", "No deadline"]];

/** When a row has to be answered, as one of the groups. `endOfDay`: in the time zone that is shown. */
export function groupOf(row, now, endOfDay) {
  if (row.deadline === null) return "never";
  if (row.deadline <= now) return "overdue";
  if (row.deadline - now < MINUTES_15) return "soon";
  return row.deadline <= endOfDay ? "today" : "later";
}

/** The rows by deadline, then age, in their groups: [{id, label, rows}], only those that have any. */
export function grouped(rows, now, endOfDay) {
  const inOrder = [...rows].sort((a, b) => (a.deadline ?? Infinity) - (b.deadline ?? Infinity) || a.createdAt - b.createdAt || (a.workflowID < b.workflowID ? -1 : 1));
  return GROUPS.map(([id, label]) => ({ id, label, rows: inOrder.filter((row) => groupOf(row, now, endOfDay) === id) })).filter((group) => group.rows.length);
}

/** The end of the day of `now`, in UTC or in the local time zone. */
export function endOfDay(now, utc) {
  const day = new Date(now);
  return utc ? Date.UTC(day.getUTCFullYear(), day.getUTCMonth(), day.getUTCDate() + 1) : new Date(day.getFullYear(), day.getMonth(), day.getDate() + 1).getTime();
}

/** The key of a row in the address and in lists. */
export const keyOf = (row) => `${row.workflowID}/${row.gateKey}`;

/** Which row comes after this one is answered: the next, else the one before, else none. */
export function afterDecision(rows, key) {
  const at = rows.findIndex((row) => keyOf(row) === key);
  return rows[at + 1] ?? rows[at - 1] ?? null;
}

// The inbox: every question that waits for a person, by deadline, with its decision and the changes beside it.

const EVERY_MS = 3000;
const SNOOZE_MS = 60 * 60_000;
const SEEN_MS = 900; // long enough to see that an answer was recorded

/** Rows that this person put off: {key: until}. They stay in the inbox of everybody else. */
const snoozed = pref("inbox.snoozed", {});

export function Board({ params }) {
  useTitle("Inbox");
  const inbox = useResource("/api/hitl/inbox?limit=200", { every: EVERY_MS });
  const [answered, setAnswered] = useState({}); // what was answered here stays until the next one is opened
  const now = tick.value;
  const all = inbox.data ?? [];
  const later = all.filter((row) => snoozed.value[keyOf(row)] > now);
  const rows = all.filter((row) => !(snoozed.value[keyOf(row)] > now) && !answered[keyOf(row)]);
  const groups = useMemo(() => grouped(rows, now, endOfDay(now, utc.value)), [inbox.data, snoozed.value, answered, Math.floor(now / 5000), utc.value]);
  const ordered = groups.flatMap((group) => group.rows);
  const chosen = all.find((row) => row.gateKey === params.gate && (!params.wid || row.workflowID === params.wid)) ?? null;
  const openKey = params.wid && params.gate ? `${params.wid}/${params.gate}` : chosen && keyOf(chosen);
  const shownKey = useRef(openKey);
  shownKey.current = openKey;
  const open = (row) => patch({ wid: row?.workflowID ?? null, gate: row?.gateKey ?? null, tab: null });
  useEffect(() => { if (inbox.data && !openKey && ordered.length && matchMedia("(min-width: 901px)").matches) open(ordered[0]); }, [inbox.data, openKey]);
  const move = (step) => { const at = ordered.findIndex((row) => keyOf(row) === openKey); const next = ordered[Math.max(0, Math.min(ordered.length - 1, at + step))]; if (next) open(next); };
  useKeys({ j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1) });
  const decided = (key) => {
    const next = afterDecision(ordered, key);
    setAnswered((old) => ({ ...old, [key]: true }));
    inbox.refresh();
    if (next) setTimeout(() => { if (shownKey.current === key) open(next); }, SEEN_MS);
  };
  const put = (row) => { const next = afterDecision(ordered, keyOf(row)); snoozed.value = { ...stillAhead(snoozed.value, now), [keyOf(row)]: now + SNOOZE_MS }; open(next); };
  return html`<div class="board inbox"><div class="board-head"><div class="board-title"><h1>Inbox</h1>${inbox.data && html`<span class="dim">${all.length ? plural(all.length, "question waits", "questions wait") : "nobody is asked"}</span>`}</div></div>
    <div class="board-body">${inbox.error && html`<${ErrorBox} error=${inbox.error} onRetry=${inbox.refresh} />`}
      ${!inbox.data && !inbox.error && html`<${Loading} rows=${6} />`}
      ${inbox.data && (!all.length && !openKey ? html`<${Empty} icon="inbox" title="Nobody is asked anything"><p>A run that needs a person puts its question here, with what it wants to change beside it. <a class="link" ...${to({ board: "recipe" })}>Start a run</a></p></${Empty}>`
        : html`<div class="split"><nav class="inbox-list" aria-label="Open questions" tabindex="0">
          ${groups.map((group) => html`<section key=${group.id} data-group=${group.id}><h2>${group.label}<${Count} n=${group.rows.length} plain=${group.id !== "overdue" && group.id !== "soon"} /></h2>
            ${group.rows.map((row) => html`<${Item} key=${keyOf(row)} row=${row} on=${keyOf(row) === openKey} onOpen=${() => open(row)} />`)}</section>`)}
          ${!groups.length && html`<p class="dim">${later.length ? "All that waits is put off." : "All are answered."}</p>`}
          ${later.length > 0 && html`<details><summary class="dim small">${plural(later.length, "question")} put off</summary>${later.map((row) => html`<${Item} key=${keyOf(row)} row=${row} on=${keyOf(row) === openKey} onOpen=${() => { snoozed.value = Object.fromEntries(Object.entries(snoozed.value).filter(([key]) => key !== keyOf(row))); open(row); }} />`)}</details>`}
        </nav>${openKey ? html`<${Decision} key=${openKey} wid=${params.wid ?? chosen.workflowID} gateKey=${params.gate} row=${chosen} onAnswered=${() => decided(openKey)} onSnooze=${chosen && (() => put(chosen))} />` : html`<${Empty} icon="check" title="Pick a question"><p>The decision and the changes are shown beside each other.</p></${Empty}>`}</div>`)}
    </div></div>`;
}

const stillAhead = (all, now) => Object.fromEntries(Object.entries(all).filter(([, until]) => until > now));

function Item({ row, on, onOpen }) {
  const element = useRef(null);
  useEffect(() => { if (on) element.current.scrollIntoView({ block: "nearest" }); }, [on]);
  const overdue = row.deadline !== null && row.deadline <= tick.value;
  return html`<button type="button" class="inbox-item" ref=${element} data-gate=${row.gateKey} aria-current=${on ? "true" : null} onClick=${onOpen}>
    <${Dot} state=${overdue ? "CRITICAL" : row.slaStatus === "NORMAL" ? "WAITING" : row.slaStatus} label=${overdue ? "Overdue" : "Waits"} /><span class="subject clip">${row.subject ?? row.workflowID}</span>
    <span class=${`left num ${overdue ? "tone-bad" : row.slaStatus === "WARNING" ? "tone-wait" : "dim"}`}>${row.deadline === null ? "–" : html`<${Left} until=${row.deadline} />`}</span>
    <span class="sub"><span>${words(row.gateKey.replace(/-[0-9a-f]{8,}$/, ""))}</span><span class="faint">asked <${Time} ms=${row.createdAt} /></span>
      ${row.mismatchRisk && html`<${Tag} tone="bad" title="Its topic is not its gate's, or no workflow is alive behind the run">would not be heard</${Tag}>`}${row.escalationWorkflowID && html`<${Tag} tone="wait">escalated</${Tag}>`}</span></button>`;
}

/** The question with its run in a line, the form, and what would be changed. */
function Decision({ wid, gateKey, row, onAnswered, onSnooze }) {
  const gate = useResource(path`/api/runs/${wid}/gates/${gateKey}` + "?timeoutS=0", { every: EVERY_MS });
  const run = useResource(path`/api/runs/${wid}`);
  const patches = useResource(path`/api/runs/${wid}/patches`);
  const header = run.data;
  return html`<section class="stack" aria-label="Decision"><div class="row wide"><h2 class="wrap">${header?.subject ?? row?.subject ?? wid}</h2><span class="grow"></span>
      ${onSnooze && html`<${Button} small kind="quiet" icon="clock" label="Put off for an hour, in this browser only" onClick=${onSnooze}>Put off</${Button}>`}<a class="btn small" ...${to({ board: "run", wid, tab: "gate", gate: gateKey })}><${Icon} name="runs" small />Open run</a></div>
    <div class="row wide small dim"><code title=${wid}>${short(wid, 14, 6)}</code><${Copy} text=${wid} what="run id" />${header?.recipeRef && html`<span>${header.recipeRef.id}@${header.recipeRef.v}</span>`}${header?.queuePartitionKey && html`<span>for ${header.queuePartitionKey}</span>`}</div>
    ${row?.mismatchRisk && html`<div class="note tone-bad" role="alert"><${Icon} name="alert" /><span>An answer may not be heard: the gate listens to another topic than its own, or no workflow is alive behind this run.</span></div>`}
    ${gate.error && html`<${ErrorBox} error=${gate.error} onRetry=${gate.refresh} />`}
    ${!gate.data && !gate.error && html`<${Loading} rows=${5} />`}
    ${gate.data && html`<div class="decide"><${GateCard} gate=${gate.data} run=${header} patches=${patches.data ?? null} onAnswered=${() => { gate.refresh(); onAnswered(); }} focusKeys />
      ${!isAlone(gate.data, patches.data) && html`<${Beside} gate=${gate.data} patches=${patches.data} error=${patches.error} onRetry=${patches.refresh} />`}</div>`}</section>`;
}
