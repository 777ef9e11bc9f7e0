/** Buttons. One that may not be pressed says why. */
import { html, cx } from "../lib.js";
import { Icon } from "./icons.js";

/**
 * @param {{kind?: "primary"|"danger"|"quiet"|"soft", small?: boolean, icon?: string, hotkey?: string, onClick?: Function, type?: string,
 *   disabled?: boolean, why?: string, label?: string, pressed?: boolean, busy?: boolean}} props
 *   why: the reason that it is off, shown and spoken; it then can still be focused. label: the name of a button with an icon only.
 */
export function Button({ kind, small, icon, hotkey, onClick, type = "button", disabled, why, label, pressed, busy, buttonRef, children, ...rest }) {
  const off = Boolean(why) || busy;
  return html`<button ref=${buttonRef} type=${type} class=${cx("btn", kind, small && "small", !children && "icon-only")} disabled=${disabled && !why}
    aria-disabled=${off ? "true" : null} aria-pressed=${pressed === undefined ? null : String(pressed)} aria-label=${label} title=${why ?? label}
    aria-busy=${busy ? "true" : null} onClick=${(event) => { if (off) event.preventDefault(); else onClick?.(event); }} ...${rest}>
    ${busy ? html`<${Icon} name="refresh" small class="spin" />` : icon && html`<${Icon} name=${icon} small=${small} />`}${children}${hotkey && html`<kbd aria-hidden="true">${hotkey}</kbd>`}
  </button>`;
}
