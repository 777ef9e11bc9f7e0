/** ⌘K: go anywhere by typing: a board, a tab, a run that was open, or any id. */
import { html, useEffect, useMemo, useRef, useState } from "./lib.js";
import { api } from "./api.js";
import { go, params, TABS } from "./route.js";
import { recent, toggleTheme, utc } from "./prefs.js";
import { words, short } from "./format.js";
import { Bare } from "./ui/dialog.js";
import { Icon } from "./ui/icons.js";
import { Dot } from "./ui/status.js";
import { NAV } from "./nav.js";
import { boardCommands, paletteOpen } from "./overlays.js";

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
