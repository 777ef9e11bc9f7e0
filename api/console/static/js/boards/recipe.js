/** The recipes board: each recipe's versions, what they say and how they differ, starts, promotions, the flywheel, import and export. */
import { html, useEffect, useState } from "../lib.js";
import { path } from "../api.js";
import { mayNot } from "../boot.js";
import { useResource } from "../resource.js";
import { patch, to } from "../route.js";
import { useTitle } from "../title.js";
import { plural } from "../format.js";
import { Button } from "../ui/button.js";
import { Empty, ErrorBox, Loading, States } from "../ui/empty.js";
import { Icon } from "../ui/icons.js";
import { Dot, Pill, Tag } from "../ui/status.js";
import { Table } from "../ui/table.js";
import { Tabs, TabPanel } from "../ui/tabs.js";
import { Time } from "../ui/time.js";
import { Flywheel } from "../recipe/flywheel.js";
import { Promotion } from "../recipe/promotion.js";
import { StartForm } from "../recipe/start.js";
import { ImportDialog, exportRecipe } from "../recipe/transfer.js";
import { Compare, Spec } from "../recipe/version.js";

const EVERY_MS = 10_000;
const HURRY_MS = 1500; // while its fixtures are run
const TABS = [["start", "Start"], ["versions", "Versions"], ["spec", "What it says"], ["diff", "Diff"], ["promotion", "Promotion"], ["flywheel", "Flywheel"]];

export function Board({ params }) {
  useTitle(params.recipe ? `${params.recipe} · Recipes` : "Recipes");
  const recipes = useResource("/api/recipes", { every: EVERY_MS });
  const [importing, setImporting] = useState(false);
  const [sought, setSought] = useState("");
  const id = params.recipe ?? recipes.data?.find((one) => one.status === "stable")?.id ?? recipes.data?.[0]?.id ?? null;
  const shown = (recipes.data ?? []).filter((one) => `${one.id} ${one.name}`.toLowerCase().includes(sought.trim().toLowerCase()));
  return html`<div class="board recipes"><div class="board-head"><div class="board-title"><h1>Recipes</h1>${recipes.data && html`<span class="dim">${plural(recipes.data.length, "recipe")}</span>`}
      <div class="actions row"><${Button} icon="upload" why=${mayNot("operate") ?? undefined} onClick=${() => setImporting(true)}>Import…</${Button}></div></div></div>
    <div class="board-body"><${States} of=${recipes} rows=${8} isEmpty=${recipes.data?.length === 0} empty=${html`<${Empty} icon="book" title="There are no recipes"><p>Import a bundle; its versions become drafts that can be tried at once.</p></${Empty}>`}>
      <div class="split"><nav class="stack tight" aria-label="Recipes"><div class="search"><${Icon} name="search" /><input class="input" aria-label="Find a recipe" placeholder="Find a recipe" value=${sought} onInput=${(event) => setSought(event.currentTarget.value)} /></div>
        <ul class="recipe-list" tabindex="0" aria-label="All recipes">${shown.map((one) => html`<li key=${one.id}><a ...${to({ board: "recipe", recipe: one.id, tab: params.tab })} aria-current=${one.id === id ? "true" : null}><span class="strong clip">${one.id}</span>
          <span class="row"><span class="clip grow">${one.name}</span><${Dot} state=${one.status} label=${one.status} /><span class="num">${one.latestV}</span></span></a></li>`)}${!shown.length && html`<li class="dim small pad">None is called that.</li>`}</ul></nav>
        ${id && html`<${Recipe} key=${id} id=${id} params=${params} onChanged=${recipes.refresh} />`}</div></${States}></div>
    ${importing && html`<${ImportDialog} onClose=${() => setImporting(false)} onDone=${recipes.refresh} />`}</div>`;
}

function Recipe({ id, params, onChanged }) {
  const versions = useResource(path`/api/recipes/${id}/versions`, { every: EVERY_MS });
  if (versions.error && !versions.data) return html`<${ErrorBox} error=${versions.error} onRetry=${versions.refresh} />`;
  if (!versions.data) return html`<${Loading} rows=${8} />`;
  if (!versions.data.length) return html`<${Empty} icon="search" title="There is no such recipe"><p><code>${id}</code> has no versions here.</p></${Empty}>`;
  const v = params.v ?? versions.data.find((one) => one.status === "stable")?.v ?? versions.data[0].v;
  return html`<${Version} key=${v} id=${id} v=${v} versions=${versions} params=${params} onChanged=${() => { versions.refresh(); onChanged(); }} />`;
}

function Version({ id, v, versions, params, onChanged }) {
  const [hurry, setHurry] = useState(false);
  const found = useResource(path`/api/recipes/${id}/versions/${v}`, { every: hurry ? HURRY_MS : EVERY_MS });
  const isProving = found.data?.promotion?.status === "under_way";
  useEffect(() => { setHurry(isProving); if (hurry && !isProving) onChanged(); }, [isProving]);
  const tab = TABS.some(([one]) => one === params.tab) ? params.tab : "start";
  const version = found.data;
  const at = (more) => ({ board: "recipe", recipe: id, v, tab: params.tab, ...more });
  return html`<div class="stack"><div class="row wide"><h2 class="wrap">${version?.spec.name ?? id}</h2>${version && html`<${Pill} state=${version.status} />`}${version?.active && html`<${Tag} tone="ok">active</${Tag}>`}<span class="grow"></span>
      <label class="row small"><span class="dim">Version</span><select class="select auto" onChange=${(event) => patch({ v: event.currentTarget.value, recipe: id }, { replace: false })}>${versions.data.map((one) => html`<option key=${one.v} value=${one.v} selected=${one.v === v}>${one.v} · ${one.status}</option>`)}</select></label>
      <${Button} small icon="download" onClick=${() => exportRecipe(id)}>Export</${Button}></div>
    <${Tabs} label="Recipe" value=${tab} tabs=${TABS.map(([one, label]) => ({ id: one, label, to: at({ tab: one }) }))} />
    <${TabPanel} id=${tab} class="stack">${tab === "versions" ? html`<${Versions} versions=${versions.data} v=${v} at=${at} />` : tab === "flywheel" ? html`<${Flywheel} recipeId=${id} />`
      : html`<${States} of=${found} rows=${6}>${version && (tab === "spec" ? html`<${Spec} version=${version} />` : tab === "diff" ? html`<${Compare} version=${version} versions=${versions.data} base=${params.with} />`
        : tab === "promotion" ? html`<${Promotion} version=${version} onChanged=${() => { found.refresh(); onChanged(); }} />`
        : html`<div class="card narrow"><div class="body"><${StartForm} key=${`${id}@${v}`} recipeId=${id} v=${v} schema=${version.spec.formSchema} limits=${version.spec.limits} /></div></div>`)}</${States}>`}</${TabPanel}></div>`;
}

const Versions = ({ versions, v, at }) => html`<${Table} caption="Versions, the latest first" rows=${versions} rowKey=${(row) => row.v} on=${v} columns=${[
  { id: "v", label: "Version", sort: (row) => row.v, cell: (row) => html`<a class="link" ...${to(at({ v: row.v, tab: "spec" }))}>${row.v}</a>` },
  { id: "status", label: "Status", sort: (row) => row.status, cell: (row) => html`<${Pill} state=${row.status} />` },
  { id: "eval", label: "Checks", end: true, sort: (row) => row.evalCount, cell: (row) => row.evalCount },
  { id: "fixtures", label: "Fixtures", end: true, sort: (row) => row.fixtureCount, cell: (row) => row.fixtureCount },
  { id: "hash", label: "Hash", cell: (row) => html`<code class="dim" title=${row.hash}>${row.hash.slice(0, 12)}</code>` },
  { id: "at", label: "Imported", end: true, sort: (row) => row.createdAt, cell: (row) => html`<span class="nowrap"><${Time} ms=${row.createdAt} /></span>` },
  { id: "diff", label: "", fit: true, cell: (row) => html`<a class="link small" ...${to(at({ v: row.v, tab: "diff", with: undefined }))}>Diff</a>` },
]} />`;
