/** The tab's title: what is open, and how much waits for a person. */
import { useEffect } from "./lib.js";
import { inboxCount } from "./inbox_count.js";

/** While this component is on the screen the title is this. */
export function useTitle(text) {
  const waiting = inboxCount.value;
  useEffect(() => { document.title = `${waiting ? `(${waiting}) ` : ""}${text} · Holdfast`; }, [text, waiting]);
}
