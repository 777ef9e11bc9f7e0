/** A component whose module loads when it is first shown. */
import { html, useEffect, useState } from "../lib.js";
import { toast } from "./toast.js";

const loaded = new Map();

/**
 * `load` imports the module, `name` is what it exports. Nothing is shown while it loads, or `meanwhile`.
 * @param {{load: () => Promise<object>, name: string, props?: object, meanwhile?: any}} given
 */
export function Lazy({ load, name, props, meanwhile = null }) {
  const [component, set] = useState(() => loaded.get(name) ?? null);
  useEffect(() => {
    if (component) return;
    load().then((module) => { loaded.set(name, module[name]); set(() => module[name]); },
      () => toast("A part of the page did not load", { state: "ERROR", more: "Load the page again." }));
  }, []);
  return component ? html`<${component} ...${props} />` : meanwhile;
}
