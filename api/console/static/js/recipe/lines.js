/** A unified diff of two texts, by lines. Pure. */

const MOST_LINES = 4000; // of both together; beyond that everything that is not the same at the ends counts as changed
const AROUND = 3;

/** How the lines of `before` become those of `after`: [sign, line]…, the fewest changes. */
export function lineEdits(before, after) {
  let head = 0, tail = 0;
  while (head < before.length && head < after.length && before[head] === after[head]) head += 1;
  while (tail < before.length - head && tail < after.length - head && before.at(-1 - tail) === after.at(-1 - tail)) tail += 1;
  const a = before.slice(head, before.length - tail), b = after.slice(head, after.length - tail);
  const middle = a.length + b.length > MOST_LINES
    ? [...a.map((line) => ["-", line]), ...b.map((line) => ["+", line])]
    : common(a, b);
  return [...before.slice(0, head).map((line) => [" ", line]), ...middle, ...(tail ? before.slice(-tail) : []).map((line) => [" ", line])];
}

function common(a, b) {
  const width = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      longest[i * width + j] = a[i] === b[j] ? longest[(i + 1) * width + j + 1] + 1 : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  const edits = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { edits.push([" ", a[i]]); i += 1; j += 1; }
    else if (j >= b.length || (i < a.length && longest[(i + 1) * width + j] >= longest[i * width + j + 1])) { edits.push(["-", a[i]]); i += 1; }
    else { edits.push(["+", b[j]]); j += 1; }
  }
  return edits;
}

/** The unified diff of two texts, with three lines around each change; empty when they are the same. */
export function unifiedDiff(before, after) {
  const edits = lineEdits(before.split("\n"), after.split("\n"));
  const near = edits.map(() => false);
  edits.forEach(([sign], at) => { if (sign !== " ") for (let i = Math.max(0, at - AROUND); i <= Math.min(edits.length - 1, at + AROUND); i += 1) near[i] = true; });
  const hunks = [];
  let open = null, left = 1, right = 1;
  edits.forEach(([sign, line], at) => {
    if (near[at]) {
      if (!open) { open = { left, right, lefts: 0, rights: 0, lines: [] }; hunks.push(open); }
      open.lines.push(sign + line);
      if (sign !== "+") open.lefts += 1;
      if (sign !== "-") open.rights += 1;
    } else open = null;
    if (sign !== "+") left += 1;
    if (sign !== "-") right += 1;
  });
  return hunks.map((hunk) => `@@ -${hunk.left},${hunk.lefts} +${hunk.right},${hunk.rights} @@\n${hunk.lines.join("\n")}\n`).join("");
}

/** JSON with its keys in order, so that only what means something differs. */
export const sortedJson = (value) => JSON.stringify(value, (_, one) => (one && typeof one === "object" && !Array.isArray(one)
  ? Object.fromEntries(Object.entries(one).sort(([a], [b]) => (a < b ? -1 : 1))) : one), 2);

/** The parts of two recipe versions that differ, each with its diff: [{part, text}]. */
export function partsChanged(before, after) {
  const parts = [...new Set([...Object.keys(before), ...Object.keys(after)])].filter((part) => part !== "v");
  return parts.map((part) => ({ part, text: unifiedDiff(before[part] === undefined ? "" : asText(before[part]), after[part] === undefined ? "" : asText(after[part])) }))
    .filter(({ text }) => text);
}

const asText = (value) => (typeof value === "string" ? value : sortedJson(value));
