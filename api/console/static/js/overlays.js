/** What lies over the page, and what boards offer there. Its modules load when they are first wanted. */
import { signal } from "./lib.js";

/** Whether the palette (⌘K) is open. */
export const paletteOpen = signal(false);
/** Whether the list of keys (?) is open. */
export const helpOpen = signal(false);
/** What the board that is open offers in the palette: [{label, icon, run}]; a board sets it and clears it when it goes. */
export const boardCommands = signal([]);
