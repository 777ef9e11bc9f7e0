/** What a version is, how it differs from another, and bundles in and out. */
import { html, useMemo, useState } from "../lib.js";
import { api, path, useResource } from "../data.js";
import { bytes, diffMode, go, parseJson, patch, plural } from "../state.js";
import { Diff, JsonCard } from "../ui/content.js";
import { Dialog } from "../ui/dialogs.js";
import { Copy, Empty, ErrorBox, Seg, States, toast } from "../ui/feedback.js";
import { Field, Select } from "../ui/fields.js";
import { Button, Icon, Tag } from "../ui/parts.js";

// A unified diff of two texts, by lines. Pure.

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

// What a version is: its limits, form, template, checks, fixtures and prompts; and how it differs from another.

const LIMITS = [["maxSteps", "Steps"], ["maxFanout", "Side by side"], ["maxSbxMin", "Sandbox minutes"], ["maxTokens", "Tokens"]];
const PARTS = { name: "Name", tags: "Tags", formSchema: "Form", intentTmpl: "Intent template", wfEntry: "Entry", queue: "Queue", limits: "Limits", eval: "Checks", fixtures: "Fixtures", prompts: "Prompts" };

export function Spec({ version }) {
  const { spec } = version;
  return html`<div class="two"><div class="stack">
      <dl class="facts"><div><dt>Hash</dt><dd><code>${version.hash.slice(0, 16)}…</code><${Copy} text=${version.hash} what="hash" /></dd></div><div><dt>Queue</dt><dd>${spec.queue}</dd></div><div><dt>Entry</dt><dd><code>${spec.wfEntry}</code></dd></div>
        <div><dt>Limits</dt><dd>${LIMITS.map(([key, name]) => `${name} ${spec.limits[key]}`).join(" · ")}</dd></div><div><dt>Tags</dt><dd>${spec.tags?.length ? spec.tags.map((tag) => html`<${Tag} key=${tag}>${tag}</${Tag}> `) : html`<span class="dim">none</span>`}</dd></div></dl>
      <section class="stack tight"><h3>Checks</h3>${spec.eval.length ? html`<ul class="facts list">${spec.eval.map((check) => html`<li key=${check.id}><b>${check.id}</b> <span class="dim">${inWords(check)}</span></li>`)}</ul>` : html`<p class="dim small">None, so it cannot become stable.</p>`}</section>
      <${JsonCard} title="Fixtures" value=${spec.fixtures} open=${2} />
      <section class="stack tight"><h3>Prompts</h3>${Object.entries(spec.prompts).map(([name, text]) => html`<details key=${name} class="numbers"><summary>${name}</summary><pre class="code soft">${text}</pre></details>`)}</section></div>
    <div class="stack"><${JsonCard} title="Form" value=${spec.formSchema} open=${3} /><${JsonCard} title="Intent template" value=${spec.intentTmpl} open=${3} /></div></div>`;
}

/** What a check looks at. Pure. */
export function inWords(check) {
  switch (check.kind) {
    case "file_exists": return `a file ${check.glob} was left`;
    case "jsonschema": return `${check.artifact} meets a schema`;
    case "rowcount_gte": return `${check.artifact} has at least ${plural(check.n, "row")}`;
    case "regex": return `${check.artifact} matches ${check.re}`;
    case "diff_le": return `${check.artifactA} and ${check.artifactB} differ by at most ${check.max}`;
    default: return check.kind;
  }
}

/** @param {{version: object, versions: {v: string}[], base: string|null}} props base: the version that it is compared with */
export function Compare({ version, versions, base }) {
  const other = base ?? versions[versions.findIndex((one) => one.v === version.v) + 1]?.v ?? versions.find((one) => one.v !== version.v)?.v ?? null;
  const found = useResource(other ? path`/api/recipes/${version.id}/versions/${other}` : null);
  const place = (v) => versions.findIndex((one) => one.v === v); // the latest first
  const forward = place(other) > place(version.v);
  const [older, newer] = forward ? [other, version.v] : [version.v, other];
  const parts = useMemo(() => (found.data ? forward ? partsChanged(found.data.spec, version.spec) : partsChanged(version.spec, found.data.spec) : []), [found.data, version.spec, forward]);
  if (!other) return html`<${Empty} icon="book" title="There is nothing to compare with"><p>This is the only version of the recipe.</p></${Empty}>`;
  return html`<div class="stack"><div class="toolbar"><div class="compare"><${Select} label="Compared with" value=${other} options=${versions.filter((one) => one.v !== version.v).map((one) => [one.v, `${one.v} (${one.status})`])} onChange=${(v) => patch({ with: v })} /></div>
      <span class="dim">${found.data && (parts.length ? `${plural(parts.length, "part")} changed from ${older} to ${newer}` : "")}</span>
      <span class="end"><${Seg} label="Layout" value=${diffMode.value} onChange=${(mode) => { diffMode.value = mode; }} options=${[["unified", "Unified"], ["split", "Split"]]} /></span></div>
    <${States} of=${found} rows=${6} isEmpty=${found.data && !parts.length} empty=${html`<${Empty} icon="check" title="The two are the same"><p>They differ in nothing but the name of the version.</p></${Empty}>`}>
      ${parts.map(({ part, text }) => html`<${Diff} key=${part} path=${PARTS[part] ?? part} text=${text} mode=${diffMode.value} />`)}</${States}></div>`;
}

// Recipes in and out: a bundle from a file or from the clipboard, and a bundle to a file.

/** What a text holds: {bundle, versions} or {problem}, in words. Pure. */
export function bundleOf(text) {
  if (!text.trim()) return { problem: null };
  let bundle;
  try { bundle = parseJson(text); } catch (error) { return { problem: `This is not JSON: ${error.message}` }; }
  if (bundle === null || typeof bundle !== "object" || typeof bundle.id !== "string" || !Array.isArray(bundle.versions)) return { problem: "A bundle is {id, versions: […]}." };
  return { bundle, versions: bundle.versions.map((one) => `${one?.id ?? "?"}@${one?.v ?? "?"}`) };
}

export function ImportDialog({ onClose, onDone }) {
  const [text, setText] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const { bundle, versions, problem } = bundleOf(text);
  const take = async (file) => { if (file) { setError(null); setText(await file.text()); } };
  const send = async () => {
    if (!bundle || busy) return;
    setBusy(true);
    setError(null);
    try {
      const made = await api.post("/api/recipes/import", bundle);
      toast("Imported", { more: made.versions.map((one) => `${one.id}@${one.v} (${one.status})`).join(", ") });
      onDone();
      onClose();
      if (made.versions[0]) go({ board: "recipe", recipe: made.versions[0].id, v: made.versions.at(-1).v });
    } catch (refused) { setError(refused); setBusy(false); }
  };
  return html`<${Dialog} title="Import a bundle" wide onClose=${onClose} footer=${html`<${Button} onClick=${onClose}>Close</${Button}><${Button} kind="primary" icon="upload" busy=${busy} why=${bundle ? undefined : "Choose a file, or paste a bundle."} onClick=${send}>Import as drafts</${Button}>`}>
    <p class="dim">All versions of the bundle become drafts, or none. A stable version cannot be imported again.</p>
    <${Field} label="File">${(id) => html`<input id=${id} class="input file" type="file" accept="application/json,.json" onChange=${(event) => take(event.currentTarget.files[0])} />`}</${Field}>
    <${Field} label="Or the bundle itself" error=${problem}>${(id, about) => html`<textarea id=${id} class="input mono" rows="9" spellcheck=${false} value=${text} aria-describedby=${about} aria-invalid=${problem ? "true" : null}
      onDragOver=${(event) => event.preventDefault()} onDrop=${(event) => { event.preventDefault(); take(event.dataTransfer.files[0]); }} onInput=${(event) => { setError(null); setText(event.currentTarget.value); }}></textarea>`}</${Field}>
    ${versions && html`<div class="row wide"><${Icon} name="book" small /><span>${plural(versions.length, "version")}, ${bytes(text.length)}:</span>${versions.slice(0, 12).map((one) => html`<${Tag} key=${one}>${one}</${Tag}>`)}</div>`}
    <${ErrorBox} error=${error} /></${Dialog}>`;
}

/** Save all versions of a recipe as a file. Says what went wrong. */
export async function exportRecipe(id) {
  try {
    const bundle = await api.post("/api/recipes/export", { id });
    save(`${id}.json`, JSON.stringify(bundle));
    toast("Exported", { more: `${id}.json, ${plural(bundle.versions.length, "version")}` });
  } catch (error) { toast("Could not export", { state: "ERROR", more: error.message }); }
}

/** Hand a text to the browser as a file. */
export function save(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
