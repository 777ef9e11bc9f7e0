/** Takes over the page that the server drew: navigation, live indicator, and the board that the address names. */
import { html, render, useEffect, useErrorBoundary, useRef, useState } from "./lib.js";
import { api, conn, paused } from "./data.js";
import { boardOf, helpOpen, inboxCount, loadBoard, MOD, NAV, paletteOpen, useKeys } from "./frame.js";
import { BOARDS, boot, go, isDark, params, signedInAs, TABS, theme, to, toggleTheme, utc } from "./state.js";
import { ErrorBox, Lazy, Loading, Toasts, waiting } from "./ui/feedback.js";
import { Button, Count, Icon } from "./ui/parts.js";

// Shell -----------------------------------------------------------------------------------------------
// The frame: navigation, live indicator, palette, help, and the board that the address names.

export function Shell() {
  return boot.session ? html`<${Frame} />` : html`<${Lazy} load=${() => import("./asides.js")} name="SignIn" /><${Toasts} />`;
}

function Frame() {
  const here = params.value;
  useKeys({
    "mod+k": () => { paletteOpen.value = true; },
    "?": () => { helpOpen.value = true; },
    t: toggleTheme,
    u: () => { utc.value = !utc.value; },
    p: () => { paused.value = !paused.value; },
    ...Object.fromEntries(NAV.map(({ key, to: where }) => [`g ${key}`, () => go(where)])),
  });
  return html`<a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to the board</a>
    <div class="app"><${Nav} board=${here.board} /><${Main} params=${here} /></div>
    ${paletteOpen.value && html`<${Lazy} load=${() => import("./asides.js")} name="Palette" />`}
    ${helpOpen.value && html`<${Lazy} load=${() => import("./asides.js")} name="Help" />`}<${Toasts} />`;
}

function Nav({ board }) {
  const dark = theme.value === "dark" || (theme.value === null && isDark());
  return html`<header class="nav">
    <div class="brand"><${Mark} /><span>Holdfast</span>${boot.service.claimScope && html`<span class="scope" title="What evidence from this service may be used for">${boot.service.claimScope}</span>`}</div>
    <button type="button" class="jump" aria-label="Search, or jump to an id" onClick=${() => { paletteOpen.value = true; }}><${Icon} name="search" /><span class="grow">Search or jump</span><kbd aria-hidden="true">${MOD === "⌘" ? "⌘K" : "Ctrl K"}</kbd></button>
    <nav aria-label="Boards"><div class="nav-list">${NAV.map(({ board: id, label, icon, to: where }) => html`<a key=${id} ...${to(where)} aria-current=${id === board ? "page" : null}>
      <${Icon} name=${icon} />${label}${id === "hitl-inbox" && html`<${Count} n=${inboxCount.value} label="open" />`}</a>`)}</div></nav>
    <div class="nav-foot">${signedInAs && html`<div class="row who"><${Icon} name="user" small /><span class="grow clip" title=${boot.session.roles.join(", ")}>${signedInAs}</span><${Button} kind="quiet" small onClick=${signOut}>Sign out</${Button}></div>`}<${Conn} />
      <div class="nav-tools"><${Button} kind="quiet" small icon=${dark ? "sun" : "moon"} label=${dark ? "Light theme" : "Dark theme"} onClick=${toggleTheme} />
        <${Button} kind="quiet" small icon="keyboard" label="Keys" onClick=${() => { helpOpen.value = true; }} />
        <span class="tz"><${Button} kind="quiet" small label=${utc.value ? "Times are in UTC; show local time" : "Times are local; show UTC"} onClick=${() => { utc.value = !utc.value; }}>${utc.value ? "UTC" : "Local"}</${Button}></span></div></div>
  </header>`;
}

async function signOut() {
  await fetch(api.url("/api/session"), { method: "DELETE" });
  location.reload();
}

const Mark = () => html`<svg width="22" height="22" viewBox="0 0 22 22" aria-hidden="true"><rect width="22" height="22" rx="6" fill="var(--accent-fill)" />
  <path d="M7 5.5v11M15 5.5v11M7 11h8" stroke="#fff" stroke-width="2" stroke-linecap="round" fill="none" /></svg>`;

const CONN = {
  live: ["Live", "Events arrive as they happen. Press to pause."],
  reconnecting: ["Reconnecting", "The connection broke; it goes on where it was. Press to pause."],
  polling: ["Polling", "Read again every few seconds. Press to pause."],
  paused: ["Paused", "Nothing is read. Press to go on."],
  final: ["Final", "The run has ended; nothing will change."],
  idle: ["Ready", "Nothing on this page changes by itself."],
};

function Conn() {
  const state = paused.value ? "paused" : conn.value;
  const [word, title] = CONN[state];
  return html`<button type="button" class="conn" data-state=${state} title=${title} aria-label=${`Updates: ${word}`} aria-pressed=${String(paused.value)} onClick=${() => { paused.value = !paused.value; }}>
    <i></i><span role="status">${word}</span></button>`;
}

function Main({ params: here }) {
  const main = useRef(null);
  const first = useRef(true);
  useEffect(() => {
    if (!first.current) main.current.focus({ preventScroll: true });
    first.current = false;
    scrollTo(0, 0);
  }, [here.board, here.board === "run" ? here.wid : null]);
  const missing = !BOARDS.includes(here.board) ? "board" : here.board === "run" && here.tab && !TABS.includes(here.tab) ? "tab" : null;
  return html`<main class="main" id="main" tabindex="-1" ref=${main} data-board=${here.board} data-state=${waiting.value ? "loading" : "ready"} aria-busy=${waiting.value ? "true" : null}>${missing ? html`<${Lazy} load=${() => import("./asides.js")} name="Missing" props=${{ what: missing, given: here[missing] }} />` : html`<${Board} key=${`${here.board}/${here.board === "run" ? here.wid : ""}`} params=${here} />`}</main>`;
}

function Board({ params: here }) {
  const [module, setModule] = useState(() => boardOf(here.board));
  const [failed, setFailed] = useState(null);
  const [broken, again] = useErrorBoundary((error) => console.error(error));
  useEffect(() => { if (!module) loadBoard(here.board).then(() => setModule(() => boardOf(here.board)), setFailed); }, [here.board]);
  if (broken) return html`<div class="board-body"><${ErrorBox} title="This board broke" error=${broken} onRetry=${again} /></div>`;
  if (failed) return html`<div class="board-body"><${ErrorBox} title="This board did not load" error=${failed} onRetry=${() => location.reload()} /></div>`;
  return module ? html`<${module} params=${here} />` : html`<div class="board-body"><${Loading} /></div>`;
}

// Main ------------------------------------------------------------------------------------------------
// Takes over the page that the server drew, once the board's module is there, so that nothing flashes.

const root = document.getElementById("app");
await loadBoard(params.value.board).catch(() => {}); // the shell says that it failed
root.replaceChildren();
render(html`<${Shell} />`, root);
