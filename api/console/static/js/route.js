/** The address is the state: which board, which run, what is filtered. */
import { signal } from "./lib.js";
import { boot } from "./boot.js";

export const BOARDS = ["run", "hitl-inbox", "ops", "throughput", "recipe", "signoff"];
export const TABS = ["timeline", "gate", "artifacts", "patches", "proof"];

/** Every parameter of the address; `board` is always there, `tab` on a run. */
export const params = signal(read(location.search));

/** The parameters in a query string. */
export function read(search) {
  const found = Object.fromEntries(new URLSearchParams(search));
  return { ...found, board: found.board || "run", ...(found.wid && !found.tab ? { tab: "timeline" } : {}) };
}

/** The address of these parameters. `board=run` and `tab=timeline` go without saying; empty ones are left out. */
export function href(given) {
  const { wid, board = "run", tab, ...rest } = given;
  const query = new URLSearchParams();
  if (wid) query.set("wid", wid);
  if (board !== "run" || tab) query.set("board", board);
  if (tab) query.set("tab", tab);
  for (const [name, value] of Object.entries(rest)) if (value !== undefined && value !== null && value !== "") query.set(name, value);
  const text = query.toString();
  return `${boot.base}/${text ? `?${text}` : ""}`;
}

/** Go somewhere else: `go({ board: "ops" })`. With `replace` the back button does not come here again. */
export function go(given, { replace = false } = {}) {
  const address = href(given);
  if (address === location.pathname + location.search) return;
  history[replace ? "replaceState" : "pushState"](null, "", address);
  params.value = read(location.search);
}

/** Change some parameters and keep the others: `patch({ q: "timeout" })`. Replaces by default, since it is a view of the same thing. */
export function patch(changed, { replace = true } = {}) {
  go({ ...params.value, ...changed }, { replace });
}

/** An onClick for a link that stays in this page; other buttons and keys do what browsers do. */
export function follow(event, given, options) {
  if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(given, options);
}

/** Properties of a link to these parameters: html`<a ...${to({ board: "ops" })}>`. */
export const to = (given, options) => ({ href: href(given), onClick: (event) => follow(event, given, options) });

export const route = { params, read, href, go, patch, follow, to };

addEventListener("popstate", () => { params.value = read(location.search); });
