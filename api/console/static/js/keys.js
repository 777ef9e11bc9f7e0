/** Keyboard shortcuts: who is on the screen says what keys do; single keys never eat what somebody types. */
import { useEffect } from "./lib.js";
import { keysOn } from "./prefs.js";

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
];
