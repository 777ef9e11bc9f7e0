/** Native dialogs: in the middle, or a drawer at the side. They close with Escape and give the focus back. */
import { html, cx, useEffect, useRef, useId } from "../lib.js";
import { Button } from "./button.js";

function useModal(onClose) {
  const element = useRef(null);
  useEffect(() => {
    const dialog = element.current;
    const before = document.activeElement;
    dialog.showModal();
    return () => { dialog.close(); if (before instanceof HTMLElement && before.isConnected) before.focus(); };
  }, []);
  return {
    ref: element,
    onCancel: (event) => { event.preventDefault(); onClose(); },
    onClick: (event) => { if (event.target === element.current) onClose(); },
  };
}

/** @param {{title: any, onClose: () => void, wide?: boolean, footer?: any, class?: string}} props */
export function Dialog({ title, onClose, wide, footer, children }) {
  const id = useId();
  return html`<dialog ...${useModal(onClose)} aria-labelledby=${id}>
    <div class=${cx("dialog", wide && "wide")}>
      <header><h2 id=${id} class="grow">${title}</h2><${Button} kind="quiet" small icon="cross" label="Close" onClick=${onClose} /></header>
      <div class="body">${children}</div>
      ${footer && html`<footer>${footer}</footer>`}
    </div>
  </dialog>`;
}

/** Details at the side, over the page. */
export function Drawer({ title, onClose, actions, children }) {
  const id = useId();
  return html`<dialog ...${useModal(onClose)} aria-labelledby=${id}>
    <div class="drawer">
      <header><h2 id=${id} class="grow clip">${title}</h2>${actions}<${Button} kind="quiet" small icon="cross" label="Close" onClick=${onClose} /></header>
      <div class="body">${children}</div>
    </div>
  </dialog>`;
}

/** A dialog without a frame of ours, for the palette. */
export const Bare = ({ label, onClose, children }) => html`<dialog ...${useModal(onClose)} aria-label=${label}>${children}</dialog>`;
