/** The run board: one run with its five tabs, or, where the address names none, the start of one. */
import { html, useEffect, useMemo } from "../lib.js";
import { boardCommands, useKeys, useTitle } from "../frame.js";
import { commandsOf, Header } from "../run/header.js";
import { Inspector } from "../run/inspector.js";
import { boot, go, TABS } from "../state.js";
import { isFinal, RunStore } from "../store.js";
import { stateOf } from "../timeline/layout.js";
import { Timeline } from "../timeline/timeline.js";
import { ErrorBox, Lazy, Loading, TabPanel, Tabs } from "../ui/feedback.js";
import { tick } from "../ui/parts.js";

const LABELS = { timeline: "Timeline", gate: "Gate", artifacts: "Artifacts", patches: "Patches", proof: "Proof" };

export function Board({ params }) {
  return params.wid ? html`<${RunPage} params=${params} />` : html`<${Lazy} load=${() => import("../run/start.js")} name="StartPage" meanwhile=${html`<div class="board-body"><${Loading} /></div>`} />`;
}

function RunPage({ params }) {
  const store = useMemo(() => new RunStore(params.wid), []);
  useEffect(() => { store.open(); return () => store.close(); }, []);
  const header = store.header.value, error = store.error.value;
  useTitle(header ? header.subject ?? header.workflowID : "Run");
  useKeys(Object.fromEntries(TABS.map((tab, i) => [String(i + 1), () => go({ wid: params.wid, tab })])));
  useEffect(() => {
    if (!header) return undefined;
    boardCommands.value = commandsOf(store);
    return () => { boardCommands.value = []; };
  }, [header?.status]);
  if (error?.status === 404 && !header) return html`<${Lazy} load=${() => import("../asides.js")} name="NoRun" props=${{ wid: params.wid }} meanwhile=${html`<div class="board-body"><${Loading} rows=${3} /></div>`} />`;
  if (error && !header) return html`<div class="board-body"><${ErrorBox} error=${error} onRetry=${() => location.reload()} /></div>`;
  if (!header) return html`<div class="board-body"><${Loading} rows=${8} /></div>`;
  const open = store.gates.value.filter((gate) => gate.state === "PENDING" && !isFinal(header)).length;
  const tabs = TABS.map((id) => ({ id, label: LABELS[id], to: { wid: params.wid, tab: id }, count: id === "gate" ? open : 0 }));
  return html`<div class="board run-board" data-tab=${params.tab}>
    <${Header} store=${store} tab=${params.tab} />
    <${Tabs} label="Views of the run" value=${params.tab} tabs=${tabs} />
    <${TabPanel} id=${params.tab} class="run-panel"><${Tab} store=${store} params=${params} /></${TabPanel}>
  </div>`;
}

const OTHERS = {
  gate: { load: () => import("../run/patches.js"), name: "GateTab" },
  artifacts: { load: () => import("../run/evidence.js"), name: "ArtifactsTab" },
  patches: { load: () => import("../run/patches.js"), name: "PatchesTab" },
  proof: { load: () => import("../run/evidence.js"), name: "ProofTab" },
};

function Tab({ store, params }) {
  if (params.tab !== "timeline") return html`<${Lazy} key=${params.tab} ...${OTHERS[params.tab]} props=${{ store, params }} meanwhile=${html`<div class="board-body"><${Loading} /></div>`} />`;
  return html`<${TimelineTab} store=${store} params=${params} />`;
}

function TimelineTab({ store, params }) {
  const rows = store.rows.value, header = store.header.value;
  const final = isFinal(header);
  const urgent = rows.find((row) => row.kind === "gate" && row.status === "WAITING") ?? rows.find((row) => ["ERROR", "TIMED_OUT"].includes(stateOf(row))) ?? rows.find((row) => stateOf(row) === "RUNNING");
  const selected = params.step === "" ? undefined : params.step ?? urgent?.stepID; // closed by hand, it stays closed
  const openInspector = () => document.getElementById("inspector")?.focus();
  return html`<div class="run-split" data-open=${selected ? "" : null}>
    <${Timeline} rows=${rows} total=${store.total.value} loaded=${store.loaded.value} params=${params} selected=${selected} final=${final}
      now=${final ? header.updatedAt : tick.value} onOpen=${openInspector} />
    <${Inspector} store=${store} params=${params} id=${selected} />
  </div>`;
}
