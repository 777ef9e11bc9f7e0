/** The boards' modules, loaded when they are first opened. */
const MODULES = { run: "run", "hitl-inbox": "inbox", ops: "ops", throughput: "throughput", recipe: "recipe", signoff: "signoff" };
const loaded = new Map();

/** The board's component, or null before it is loaded. */
export const boardOf = (board) => loaded.get(board) ?? null;

/** Load a board. A name that is none loads nothing. */
export async function loadBoard(board) {
  if (board in MODULES && !loaded.has(board)) loaded.set(board, (await import(`./boards/${MODULES[board]}.js`)).Board);
}
