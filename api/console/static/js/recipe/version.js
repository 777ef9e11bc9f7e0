/** What a version is: its limits, form, template, checks, fixtures and prompts; and how it differs from another. */
import { html, useMemo } from "../lib.js";
import { path } from "../api.js";
import { useResource } from "../resource.js";
import { patch } from "../route.js";
import { diffMode } from "../prefs.js";
import { plural } from "../format.js";
import { Copy } from "../ui/copy.js";
import { Diff } from "../ui/diff.js";
import { Empty, States } from "../ui/empty.js";
import { Select } from "../ui/fields.js";
import { JsonCard } from "../ui/json.js";
import { Tag } from "../ui/status.js";
import { Seg } from "../ui/tabs.js";
import { partsChanged } from "./lines.js";

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
