/** The inbox in groups by how soon an answer is needed. Pure. */

const MINUTES_15 = 15 * 60_000;

export const GROUPS = [["overdue", "Overdue"], ["soon", "Within 15 minutes"], ["today", "Today"], ["later", "Later"], ["never", "No deadline"]];

/** When a row has to be answered, as one of the groups. `endOfDay`: in the time zone that is shown. */
export function groupOf(row, now, endOfDay) {
  if (row.deadline === null) return "never";
  if (row.deadline <= now) return "overdue";
  if (row.deadline - now < MINUTES_15) return "soon";
  return row.deadline <= endOfDay ? "today" : "later";
}

/** The rows by deadline, then age, in their groups: [{id, label, rows}], only those that have any. */
export function grouped(rows, now, endOfDay) {
  const inOrder = [...rows].sort((a, b) => (a.deadline ?? Infinity) - (b.deadline ?? Infinity) || a.createdAt - b.createdAt || (a.workflowID < b.workflowID ? -1 : 1));
  return GROUPS.map(([id, label]) => ({ id, label, rows: inOrder.filter((row) => groupOf(row, now, endOfDay) === id) })).filter((group) => group.rows.length);
}

/** The end of the day of `now`, in UTC or in the local time zone. */
export function endOfDay(now, utc) {
  const day = new Date(now);
  return utc ? Date.UTC(day.getUTCFullYear(), day.getUTCMonth(), day.getUTCDate() + 1) : new Date(day.getFullYear(), day.getMonth(), day.getDate() + 1).getTime();
}

/** The key of a row in the address and in lists. */
export const keyOf = (row) => `${row.workflowID}/${row.gateKey}`;

/** Which row comes after this one is answered: the next, else the one before, else none. */
export function afterDecision(rows, key) {
  const at = rows.findIndex((row) => keyOf(row) === key);
  return rows[at + 1] ?? rows[at - 1] ?? null;
}
