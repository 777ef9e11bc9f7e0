/** What is shown instead of a board or over it: palette, keys, sign-in, and addresses that lead nowhere. */
import { html, useEffect, useMemo, useRef, useState } from "./lib.js";
import { api, path, useResource } from "./data.js";
import { boardCommands, helpOpen, LIST, MOD, NAV, paletteOpen, useTitle } from "./frame.js";
import { go, keysOn, params, recent, short, TABS, to, toggleTheme, utc, words } from "./state.js";
import { Bare, Dialog } from "./ui/dialogs.js";
import { Empty, ErrorBox, Loading } from "./ui/feedback.js";
import { TextField } from "./ui/fields.js";
import { Button, Dot, Icon } from "./ui/parts.js";

// Palette ---------------------------------------------------------------------------------------------
// ⌘K: go anywhere by typing: a board, a tab, a run that was open, or any id.

const ID = /^[A-Za-z0-9_:.@-]{6,}$/;

function commands(text, runs) {
  const { wid } = params.value;
  const all = [
    ...boardCommands.value,
    ...(wid ? TABS.map((tab) => ({ label: `${words(tab)} of this run`, icon: "right", run: () => go({ wid, tab }) })) : []),
    ...NAV.map(({ to, label, icon }) => ({ label, icon, hint: "board", run: () => go(to) })),
    { label: "Start a run", icon: "plus", run: () => go({}) },
    ...runs.map(({ wid: id, subject, status }) => ({ label: subject || id, state: status, icon: "runs", hint: short(id), search: id, run: () => go({ wid: id }) })),
    { label: "Light or dark", icon: "sun", run: toggleTheme },
    { label: "UTC or local time", icon: "clock", run: () => { utc.value = !utc.value; } },
  ];
  const wanted = text.trim().toLowerCase().split(/\s+/);
  const found = all.filter((one) => wanted.every((word) => `${one.label} ${one.search ?? ""} ${one.hint ?? ""}`.toLowerCase().includes(word)));
  const id = text.trim();
  return ID.test(id) && !found.some((one) => one.search === id) ? [...found, { label: `Open ${id}`, icon: "right", hint: "id", run: () => go({ wid: id }) }] : found;
}

export function Palette() {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const [runs, setRuns] = useState(recent.value);
  const list = useRef(null);
  useEffect(() => {
    api.get("/api/ops/wf?name=RunIntent&limit=50").then((found) => setRuns(merged(recent.value, found)), () => {});
  }, []);
  const found = useMemo(() => commands(text, runs).slice(0, 40), [text, runs]);
  const close = () => { paletteOpen.value = false; };
  const choose = (one) => { close(); one?.run(); };
  const onKeyDown = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      const next = (at + step + found.length) % Math.max(1, found.length);
      setAt(next);
      list.current.children[next]?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter") choose(found[at]);
    else return;
    event.preventDefault();
  };
  return html`<${Bare} label="Search, or jump to an id" onClose=${close}><div class="palette">
    <input class="input" role="combobox" aria-expanded="true" aria-controls="palette-list" aria-activedescendant=${found[at] ? `palette-${at}` : null} aria-label="Search, or jump to an id"
      autocomplete="off" spellcheck="false" placeholder="Search, or paste an id" value=${text} onInput=${(event) => { setText(event.currentTarget.value); setAt(0); }} onKeyDown=${onKeyDown} />
    <ul id="palette-list" role="listbox" aria-label="Found" ref=${list}>
      ${found.map((one, i) => html`<li key=${i} id=${`palette-${i}`} role="option" aria-selected=${String(i === at)} onClick=${() => choose(one)} onMouseMove=${() => setAt(i)}>
        ${one.state ? html`<${Dot} state=${one.state} />` : html`<${Icon} name=${one.icon} />`}<span class="clip">${one.label}</span>${one.hint && html`<span class="end small faint mono">${one.hint}</span>`}</li>`)}
    </ul>
    ${!found.length && html`<p class="pad dim">Nothing is called that. A full id opens its run.</p>`}
  </div></${Bare}>`;
}

function merged(opened, found) {
  const known = new Map(found.map((run) => [run.workflowID, { wid: run.workflowID, subject: run.subject, status: run.status }]));
  return [...opened.map((one) => known.get(one.wid) ?? one), ...[...known.values()].filter((run) => !opened.some((one) => one.wid === run.wid))];
}

// Help ------------------------------------------------------------------------------------------------
// ?: what keys do, and whether single keys do anything.

export function Help() {
  return html`<${Dialog} wide title="Keys" onClose=${() => { helpOpen.value = false; }}>
    <label class="check"><input type="checkbox" checked=${keysOn.value} onChange=${(event) => { keysOn.value = event.currentTarget.checked; }} />Single keys are shortcuts</label>
    <div class="keys">${LIST.map(([group, keys]) => html`<section key=${group}><h3>${group}</h3><dl>
      ${keys.map(([key, does]) => html`<div key=${key}><dt class="dim">${does}</dt><dd><kbd>${key.replace("⌘", MOD)}</kbd></dd></div>`)}</dl></section>`)}</div>
  </${Dialog}>`;
}

// Missing ---------------------------------------------------------------------------------------------
// What is shown for an address that names what is not there.

/** @param {{what: "board"|"tab"|"run"|string, given: string}} props */
export function Missing({ what, given }) {
  useTitle("Not found");
  return html`<div class="board-body"><h1 class="sr">Not found</h1><${Empty} icon="search" title=${`There is no such ${what}`}><p><code class="wrap">${given}</code> is not here. It may have been mistyped, or belong to another service.</p>
    <ul class="row wide">${NAV.map(({ label, to: where }) => html`<li key=${label}><a class="link" ...${to(where)}>${label}</a></li>`)}</ul></${Empty}></div>`;
}

// Sign in ---------------------------------------------------------------------------------------------
// Where a token is asked for. It is sent once, and from then on kept in a cookie that scripts cannot read.

export function SignIn() {
  const [token, setToken] = useState("");
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  useTitle("Sign in");
  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await api.post("/api/session", { token: token.trim() });
      location.reload();
    } catch (refused) {
      setError(refused);
      setBusy(false);
    }
  };
  return html`<main class="sign-in" id="main" data-state="ready"><form class="card" onSubmit=${send}>
    <header><h1>Sign in to Holdfast</h1></header>
    <div class="body"><p class="dim">This service asks for a token. Whoever runs it makes one with <code>bin/token</code>.</p>
      <${TextField} label="Token" type="password" value=${token} onInput=${setToken} autocomplete="current-password" />
      <${ErrorBox} error=${error} title="Not signed in" />
      <${Button} kind="primary" type="submit" busy=${busy}>Sign in</${Button}></div>
  </form></main>`;
}

// No run ----------------------------------------------------------------------------------------------
// An id that no run has: perhaps it is a workflow of another kind, which Ops shows.

/** @param {{wid: string}} props */
export function NoRun({ wid }) {
  const workflow = useResource(path`/api/ops/wf/${wid}`);
  if (workflow.loading) return html`<div class="board-body"><${Loading} rows=${3} /></div>`;
  return workflow.data ? html`<${Workflow} workflow=${workflow.data} />` : html`<${Missing} what="run" given=${wid} />`;
}

function Workflow({ workflow }) {
  useTitle("A workflow");
  return html`<div class="board-body"><h1 class="sr">A workflow</h1><${Empty} icon="ops" title="This is a workflow, but no run"><p><code class="wrap">${workflow.workflowID}</code> is ${workflow.workflowName === "RunIntent" ? "a fork: it works on the data of its original" : html`a workflow <b>${workflow.workflowName}</b>`}. Its records and what may be done to it are in Ops.</p>
    <a class="btn primary" ...${to({ board: "ops", at: workflow.workflowID })}>Open it in Ops</a></${Empty}></div>`;
}
