/** What the filter of the ops board says: `status:ERROR queue:intentQ name:RunIntent after:2h ih_4f2a`. Pure. */

export const STATUSES = ["ENQUEUED", "DELAYED", "PENDING", "SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"];
export const KEYS = ["status", "queue", "name", "id", "after", "before"];

const UNITS = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Epoch milliseconds of "2h" (so long ago), of an ISO date or time (without a zone: UTC), or of such a number; null for none of these. */
export function momentOf(text, now) {
  const ago = /^(\d+)([smhd])$/.exec(text);
  if (ago) return now - Number(ago[1]) * UNITS[ago[2]];
  if (/^\d{12,14}$/.test(text)) return Number(text);
  if (!/^\d{4}-\d\d-\d\d/.test(text)) return null;
  const at = Date.parse(/^\d{4}-\d\d-\d\d$/.test(text) ? `${text}T00:00:00Z` : /(Z|[+-]\d\d:?\d\d)$/.test(text) ? text : `${text}Z`);
  return Number.isNaN(at) ? null : at;
}

/** The tokens of a filter, in order: [{key, value}]; a bare word is the beginning of an id. Values with blanks stand in quotes. */
export function tokensOf(text) {
  return [...text.matchAll(/(?:(\w+):)?(?:"([^"]*)"|(\S+))/g)].map(([whole, key, quoted, plain]) => {
    const value = quoted ?? plain;
    return key && KEYS.includes(key.toLowerCase()) ? { key: key.toLowerCase(), value } : { key: "id", value: key ? whole : value };
  }).filter(({ value }) => value !== "");
}

/** A filter's text again. */
export const textOf = (tokens) => tokens.map(({ key, value }) => {
  if (/\s/.test(value)) return `${key}:"${value}"`;
  return key === "id" && tokensOf(value)[0]?.key === "id" ? value : `${key}:${value}`;
}).join(" ");

/** The filter with another value for a key; null takes it away. */
export function withToken(text, key, value) {
  const others = tokensOf(text).filter((token) => token.key !== key);
  return textOf(value === null ? others : [...others, { key, value }]);
}

/**
 * The query of the list for a filter. problems: what was not understood, in words; the list is then not asked for it.
 * @returns {{query: Record<string, string>, problems: string[]}}
 */
export function queryOf(text, now) {
  const query = {}, problems = [];
  for (const { key, value } of tokensOf(text)) {
    if (key === "status") {
      const status = STATUSES.find((one) => one === value.toUpperCase());
      if (status) query.status = status;
      else problems.push(`no workflow has the status ${value}`);
    } else if (key === "queue") query.queueName = value;
    else if (key === "after" || key === "before") {
      const at = momentOf(value, now);
      if (at === null) problems.push(`${key}:${value} is no time; write 2h, 3d or 2026-11-21`);
      else query[key] = String(at);
    } else query[key] = value;
  }
  return { query, problems };
}

/** A path with the query behind it. */
export const withQuery = (path, query) => {
  const text = new URLSearchParams(query).toString();
  return text ? `${path}?${text}` : path;
};
