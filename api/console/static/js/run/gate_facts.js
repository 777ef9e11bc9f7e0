/** What a person needs to know to decide: the plan, its risks, its size; of a better recipe, what went wrong and what changes. */
import { html } from "../lib.js";
import { path } from "../api.js";
import { plural, short } from "../format.js";
import { useResource } from "../resource.js";
import { to } from "../route.js";
import { Changed, parseDiff } from "../ui/diff.js";
import { ErrorBox } from "../ui/empty.js";

/** What all of a run's patches add and take away. Pure. */
export function sizeOf(patches) {
  return patches.reduce((sum, patch) => {
    const { added, removed } = parseDiff(patch.diff ?? "");
    return { added: sum.added + added, removed: sum.removed + removed };
  }, { added: 0, removed: 0 });
}

/** @param {{gate: object}} props */
export const GateFacts = ({ gate }) => (gate.prompt.uiHints?.kind === "recipe-improvement" ? html`<${Improvement} hints=${gate.prompt.uiHints} />`
  : html`<${Plan} key=${gate.workflowID} wid=${gate.workflowID} />`);

function Plan({ wid }) {
  const step = useResource(path`/api/runs/${wid}/steps/CompileST`);
  const patches = useResource(path`/api/runs/${wid}/patches`);
  if (step.error && step.error.status !== 404) return html`<${ErrorBox} error=${step.error} onRetry=${step.refresh} />`;
  const plan = step.data?.output ?? {};
  const list = (items) => (items.length === 1 ? items[0] : html`<ul class="bullets">${items.map((item) => html`<li key=${item}>${item}</li>`)}</ul>`);
  const facts = [
    patches.data?.length && ["Patches", html`<a class="under" ...${to({ wid, tab: "patches" })}>${plural(patches.data.length, "file")}</a> <${Changed} ...${sizeOf(patches.data)} />`],
    plan.tests?.length && ["Will run", html`${plural(plan.tests.length, "task")}: ${plan.tests.join(", ")}`],
    plan.risks?.length && ["Risks", html`<span class="tone-wait">${list(plan.risks)}</span>`],
  ].filter(Boolean);
  return html`${plan.design?.length ? html`<div class="stack tight"><h3>Plan</h3><div class="dim">${list(plan.design)}</div></div>` : null}
    ${facts.length > 0 && html`<dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`}`;
}

const Improvement = ({ hints }) => html`<p>${hints.summary}</p><dl class="facts">
  <div><dt>Recipe</dt><dd><a class="under" ...${to({ board: "recipe", id: hints.recipe })}>${hints.recipe}</a> ${hints.fromV} → ${hints.toV}</dd></div>
  <div><dt>After</dt><dd><a class="under" ...${to({ wid: hints.failedWorkflowID })}><code>${short(hints.failedWorkflowID, 12, 6)}</code></a></dd></div>
  <div><dt>Went wrong</dt><dd>${hints.postmortem}</dd></div><div><dt>Cause</dt><dd><code>${hints.cause}</code></dd></div></dl>`;
