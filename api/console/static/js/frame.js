/** What boards and the frame share: keys, the title, what lies over the page, the list of boards. */
import { effect, signal, useEffect } from "./lib.js";
import { api, paused, visible } from "./data.js";
import { boot, keysOn } from "./state.js";

// Keys ------------------------------------------------------------------------------------------------
// Keyboard shortcuts: who is on the screen says what keys do; single keys never eat what somebody types.

/** @type {{keys: Record<string, (event: KeyboardEvent) => void>}[]} the latest goes first */
const layers = [];
let pending = null; // the first key of a pair such as "g i"

const isMac = /Mac|iP(hone|ad)/.test(navigator.platform);
/** The modifier's name on this machine. */
export const MOD = isMac ? "⌘" : "Ctrl";

/** Whether keys go into a field. */
function isTyping(target) {
  return target instanceof HTMLElement
    && (target.isContentEditable || target.matches("textarea, select, input:not([type=radio], [type=checkbox], [type=button])"));
}

function nameOf(event) {
  const mod = event.metaKey || event.ctrlKey ? "mod+" : "";
  const key = event.key.length === 1 ? (event.shiftKey && /[a-z]/i.test(event.key) ? event.key.toUpperCase() : event.key.toLowerCase()) : event.key;
  return mod + key;
}

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.isComposing || event.altKey) return;
  const name = nameOf(event);
  const withModifier = name.startsWith("mod+");
  if (!withModifier && (!keysOn.value || isTyping(event.target) || document.querySelector("dialog[open]"))) return;
  const pair = pending && `${pending} ${name}`;
  pending = null;
  for (const { keys } of [...layers].reverse()) {
    const act = (pair && keys[pair]) || keys[name];
    if (act) { event.preventDefault(); act(event); return; }
  }
  if (!withModifier && layers.some(({ keys }) => Object.keys(keys).some((key) => key.startsWith(`${name} `)))) {
    pending = name;
    setTimeout(() => { pending = null; }, 1200);
  }
});

/**
 * While this component is on the screen, these keys do this: useKeys({ j: next, "g i": inbox, "mod+Enter": send }).
 * Keys with `mod+` also work in fields; others only outside of them, and can be switched off.
 */
export function useKeys(keys) {
  const layer = { keys };
  useEffect(() => {
    layers.push(layer);
    return () => { layers.splice(layers.indexOf(layer), 1); };
  });
}

/** What the help lists: [group, [[keys, what they do]…]]. */
export const LIST = [
  ["Anywhere", [["⌘ K", "search, or jump to an id"], ["?", "this list"], ["g then h i o", "runs, inbox, ops"], ["g then t r s", "throughput, recipes, sign-off"], ["t", "light or dark"], ["u", "UTC or local time"], ["p", "pause live updates"]]],
  ["A run", [["1 – 5", "its tabs"], ["/", "filter steps"], ["j k ↑ ↓", "move"], ["← →", "fold, unfold"], ["Enter", "details"], ["c", "collapse idle time"], ["n", "next file"], ["N", "previous file"]]],
  ["A gate", [["a", "focus approve"], ["r", "focus reject"], ["Enter", "confirm what has focus"], ["⌘ Enter", "send the form"]]],
  ["Inbox and ops", [["j k ↑ ↓", "move"], ["/", "filter workflows"], ["x", "pick the workflow"], ["Esc", "close its details"]]],
];

// Inbox count -----------------------------------------------------------------------------------------
// How many gates are open in all runs; the navigation and the tab's title show it.

const EVERY_MS = 10_000;

/** @type {import("../vendor/signals.js").Signal<number|null>} */
export const inboxCount = signal(boot.inbox);

/** Read it now, for whoever knows that it changed. */
export async function recount() {
  try { inboxCount.value = (await api.get("/api/hitl/inbox?limit=200")).length; } catch { /* the board says what is wrong */ }
}

effect(() => {
  if (!boot.session || !visible.value || paused.value) return undefined;
  const timer = setInterval(recount, EVERY_MS);
  return () => clearInterval(timer);
});

// Title -----------------------------------------------------------------------------------------------
// The tab's title: what is open, and how much waits for a person.

/** While this component is on the screen the title is this. */
export function useTitle(text) {
  const waiting = inboxCount.value;
  useEffect(() => { document.title = `${waiting ? `(${waiting}) ` : ""}${text} · Holdfast`; }, [text, waiting]);
}

// Overlays --------------------------------------------------------------------------------------------
// What lies over the page, and what boards offer there. Its modules load when they are first wanted.

/** Whether the palette (⌘K) is open. */
export const paletteOpen = signal(false);
/** Whether the list of keys (?) is open. */
export const helpOpen = signal(false);
/** What the board that is open offers in the palette: [{label, icon, run}]; a board sets it and clears it when it goes. */
export const boardCommands = signal([]);

// Nav -------------------------------------------------------------------------------------------------
// The boards, as the navigation lists them.

export const NAV = [
  { board: "run", label: "Runs", icon: "runs", to: { board: "run" }, key: "h" },
  { board: "hitl-inbox", label: "Inbox", icon: "inbox", to: { board: "hitl-inbox" }, key: "i" },
  { board: "ops", label: "Ops", icon: "ops", to: { board: "ops" }, key: "o" },
  { board: "throughput", label: "Throughput", icon: "chart", to: { board: "throughput" }, key: "t" },
  { board: "recipe", label: "Recipes", icon: "book", to: { board: "recipe" }, key: "r" },
  { board: "signoff", label: "Sign-off", icon: "seal", to: { board: "signoff" }, key: "s" },
];

// Boards ----------------------------------------------------------------------------------------------
// The boards' modules, loaded when they are first opened.

const MODULES = { run: "run", "hitl-inbox": "inbox", ops: "ops", throughput: "throughput", recipe: "recipe", signoff: "signoff" };
const loaded = new Map();

/** The board's component, or null before it is loaded. */
export const boardOf = (board) => loaded.get(board) ?? null;

/** Load a board. A name that is none loads nothing. */
export async function loadBoard(board) {
  if (board in MODULES && !loaded.has(board)) loaded.set(board, (await import(`./boards/${MODULES[board]}.js`)).Board);
}
