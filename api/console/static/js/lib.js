/** The one door to the vendored libraries. */
import { h, render, Fragment, createContext } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export { h, render, Fragment, createContext };
export { useState, useReducer, useEffect, useLayoutEffect, useRef, useMemo, useCallback, useContext, useId, useErrorBoundary } from "../vendor/hooks.js";
export { signal, computed, effect, batch, untracked, useSignal, useComputed, useSignalEffect } from "../vendor/signals.js";

/** Markup as a tagged template: html`<p>${text}</p>`. Text is text, never markup. */
export const html = htm.bind(h);

/** Class names, those that are truthy: cx("btn", small && "small"). */
export const cx = (...names) => names.filter(Boolean).join(" ");
