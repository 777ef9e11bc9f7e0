/** What the server put into the page: who serves it, where it is mounted, the run that it opens. */
const text = document.getElementById("boot")?.textContent;

/**
 * @typedef {object} Boot
 * @property {string} base       the path that all addresses stand under, "" at the root
 * @property {number} now        the server's clock when it made the page, epoch ms
 * @property {object} service    appVersion, claimScope, topology, ocMode, sbxMode, sbxProvider
 * @property {number|null} inbox how many gates are open
 * @property {{header: object, steps: object[], total: number, cursor: string, gates: object[]}|null} run
 * @property {string|null} missing what the address names and is not there: "board", "tab" or "run"
 */

/** @type {Boot & {session: {name: string|null, roles: string[], groups: string[], rights: string[]}|null}} session: who asks; null for nobody we know */
export const boot = text ? JSON.parse(text) : { base: "", now: Date.now(), session: null, service: {}, inbox: null, run: null, missing: null };

/** The server's clock against ours, so that ages are right on a machine whose clock is not. */
const skew = boot.now - Date.now();

/** The time by the server's clock, epoch ms. */
export const now = () => Date.now() + skew;

/** Who is signed in, or null where nobody is asked. Actions and answers are signed with this name, whatever is typed. */
export const signedInAs = boot.session?.name ?? null;

/** Why this person may not do something, or null. right: "answer", "operate" or "administer". The server decides; this spares a walk. */
export function mayNot(right) {
  if (boot.session?.rights.includes(right)) return null;
  return `This needs the right to ${right}; you are ${boot.session ? boot.session.roles.join(" and ") : "not signed in"}.`;
}
