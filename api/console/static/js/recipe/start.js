/** The start form of a recipe version: its own form, for whom the run is, how urgent, and how much it may use. */
import { html, useState } from "../lib.js";
import { api } from "../data.js";
import { go, mayNot, pref } from "../state.js";
import { copyAndSay, ErrorBox, Seg, toast } from "../ui/feedback.js";
import { dataOf, fieldsOf, initialOf, SchemaFields, TextField } from "../ui/fields.js";
import { Button } from "../ui/parts.js";

const BUDGET = [["maxFanout", "Tasks side by side", 50, 1], ["maxSBXMinutes", "Sandbox minutes", 10, 1], ["maxArtifactsMB", "Artifacts, MB", 100, 1], ["maxRetriesPerStep", "Retries of a step", 3, 0], ["maxWallClockMS", "Wall clock, ms", 600_000, 1]];
const LANES = [["interactive", "Interactive"], ["batch", "Batch"]];

/** For whom runs are started from here. */
const partition = pref("start.partition", "ui-default");

/** The body of a start, or what is wrong with what was typed: {body, errors}. Pure. */
export function startOf(ref, schema, typed) {
  const { data, errors } = dataOf(schema, typed.values);
  const opts = { lane: typed.lane };
  if (typed.partition.trim()) opts.queuePartitionKey = typed.partition.trim();
  else errors.partition = "Say for whom the run is.";
  if (typed.withBudget) {
    opts.budget = {};
    for (const [key, label, , least] of BUDGET) {
      const number = Number(typed.budget[key]);
      if (!Number.isInteger(number) || number < least || String(typed.budget[key]).trim() === "") errors[key] = `${label}: a whole number from ${least} on.`;
      else opts.budget[key] = number;
    }
  }
  return { body: { recipeRef: ref, formData: data, opts }, errors };
}

/** @param {{recipeId: string, v: string, schema: object, limits?: object}} props */
export function StartForm({ recipeId, v, schema, limits }) {
  const [values, setValues] = useState(() => initialOf(schema));
  const [lane, setLane] = useState("interactive");
  const [whom, setWhom] = useState(partition.value);
  const [withBudget, setWithBudget] = useState(false);
  const [budget, setBudget] = useState(() => Object.fromEntries(BUDGET.map(([key, , usual]) => [key, String(usual)])));
  const [tried, setTried] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const { body, errors } = startOf({ id: recipeId, v }, schema, { values, lane, partition: whom, withBudget, budget });
  const wrong = Object.keys(errors).length > 0;
  const send = async (event) => {
    event?.preventDefault();
    setTried(true);
    if (wrong || busy) return;
    setBusy(true);
    setError(null);
    partition.value = whom.trim();
    try {
      const { value, status } = await api.posted("/api/run", body);
      const isReplay = status === 200;
      toast(isReplay ? "A replay: this was started already" : "Started", { state: isReplay ? "RECEIVED" : "SUCCESS", more: value.subject ?? value.workflowID });
      go({ wid: value.workflowID, board: "run", tab: "timeline" });
    } catch (refused) { setError(refused); setBusy(false); }
  };
  const shown = tried ? errors : {};
  return html`<form class="form start" onSubmit=${send} noValidate aria-label="Start a run">
    ${fieldsOf(schema).length ? html`<${SchemaFields} schema=${schema} values=${values} errors=${shown} onChange=${setValues} />` : html`<p class="dim">This recipe asks for nothing.</p>`}
    <div class="two tight"><${TextField} label="Partition" hint="For whom the run is: its share of the queue." value=${whom} onInput=${setWhom} maxlength="200" error=${shown.partition} />
      <div class="field"><span class="label">Lane</span><div><${Seg} label="Lane" value=${lane} onChange=${setLane} options=${LANES} /></div><span class="hint">Interactive runs go before batch ones.</span></div></div>
    <label class="check"><input type="checkbox" checked=${withBudget} onChange=${(event) => setWithBudget(event.currentTarget.checked)} />Hold it to a budget${limits && html`<span class="dim small">(the recipe allows ${limits.maxFanout} tasks side by side and ${limits.maxSbxMin} sandbox minutes)</span>`}</label>
    ${withBudget && html`<fieldset class="budget"><legend class="sr">Budget</legend>${BUDGET.map(([key, label]) => html`<${TextField} key=${key} label=${label} inputmode="numeric" value=${budget[key]} error=${shown[key]} onInput=${(value) => setBudget({ ...budget, [key]: value })} />`)}</fieldset>`}
    <${ErrorBox} error=${error} title=${error?.drift ? "A run of this form exists with other particulars" : undefined} />
    <div class="row wide"><${Button} type="submit" kind="primary" icon="play" busy=${busy} why=${mayNot("operate") ?? undefined}>Start run</${Button}><${Button} icon="copy" kind="quiet" onClick=${() => copyAndSay(asCurl(body), "curl")}>Copy as curl</${Button}>
      ${tried && wrong && html`<span class="tone-bad small" role="alert">Something is missing above.</span>`}</div></form>`;
}

/** The same start from a shell. Pure. */
export const asCurl = (body) => `curl -sS -X POST "$BASE/api/run" -H 'content-type: application/json' -d '${JSON.stringify(body).replace(/'/g, "'\\''")}'`;
