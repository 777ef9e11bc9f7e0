/** Views beside each other: Tabs are links, since each has an address; Seg picks one of a few in place. */
import { html, useId, useRef } from "../lib.js";
import { follow, href } from "../route.js";
import { Count } from "./status.js";

/**
 * @param {{label: string, value: string, tabs: {id: string, label: string, to: object, count?: number}[]}} props
 *   to: the parameters of the tab's address. The panel is <${TabPanel} id=…>.
 */
export function Tabs({ label, value, tabs }) {
  const list = useRef(null);
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const links = [...list.current.querySelectorAll("[role=tab]")];
    const next = links[(links.indexOf(event.target) + step + links.length) % links.length];
    next?.focus();
    event.preventDefault();
    event.stopPropagation();
  };
  return html`<div class="tabs" role="tablist" aria-label=${label} ref=${list} onKeyDown=${move}>
    ${tabs.map((tab) => html`<a role="tab" key=${tab.id} id=${`tab-${tab.id}`} href=${href(tab.to)} aria-selected=${String(tab.id === value)}
      aria-controls=${tab.id === value ? `panel-${tab.id}` : null} tabindex=${tab.id === value ? 0 : -1} onClick=${(event) => follow(event, tab.to)}>
      ${tab.label}<${Count} n=${tab.count} label="open" /></a>`)}
  </div>`;
}

/** What a tab shows. */
export const TabPanel = ({ id, class: extra = "", children }) =>
  html`<div role="tabpanel" id=${`panel-${id}`} aria-labelledby=${`tab-${id}`} class=${extra}>${children}</div>`;

/** @param {{label: string, value: string, options: [string, any, number?][], onChange: (value: string) => void}} props */
export function Seg({ label, value, options, onChange }) {
  const name = useId();
  return html`<fieldset class="seg"><legend class="sr">${label}</legend>
    ${options.map(([id, text, n]) => html`<label key=${id}><input type="radio" name=${name} value=${id} checked=${id === value} onChange=${() => onChange(id)} />
      ${text}${n === undefined ? null : html`<span class="num faint">${n}</span>`}</label>`)}
  </fieldset>`;
}
