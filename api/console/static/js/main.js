/** Takes over the page that the server drew, once the board's module is there, so that nothing flashes. */
import { html, render } from "./lib.js";
import { loadBoard } from "./boards.js";
import { params } from "./route.js";
import { Shell } from "./shell.js";

const root = document.getElementById("app");
await loadBoard(params.value.board).catch(() => {}); // the shell says that it failed
root.replaceChildren();
render(html`<${Shell} />`, root);
