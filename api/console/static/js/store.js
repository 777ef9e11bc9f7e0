/** The run that is open: its header, its rows, its gates, its patches; fed by the page, by pages of rows, and by events. */
import { batch, signal } from "./lib.js";
import { api, ApiError, conn, follow, path } from "./data.js";
import { boot, recent } from "./state.js";

const PAGE = 5000;

/**
 * One run. Signals: header, rows (sorted), total, gates (by key), patches, loaded (all rows are here), error.
 * `version` counts changes of rows, for what is computed from all of them.
 */
export class RunStore {
  constructor(wid) {
    this.wid = wid;
    this.header = signal(null);
    this.rows = signal([]);
    this.total = signal(0);
    this.gates = signal([]);
    this.patches = signal(null);
    this.loaded = signal(false);
    this.error = signal(null);
    this.byId = new Map();
    this.cursor = null;
    this.stop = null;
  }

  /** Begin with what the page came with, or by reading; then follow. */
  async open() {
    const given = boot.run && [boot.run.header.workflowID, boot.run.header.runId].includes(this.wid) && !boot.used ? boot.run : null;
    const missing = boot.missing === "run" && !boot.used;
    boot.used = true;
    try {
      if (missing) throw new ApiError(404, { error: "run not found" }, "");
      if (given) this.take(given);
      else await this.snapshot();
      if (this.closed) return;
      this.remember();
      if (isFinal(this.header.value)) conn.value = "final"; // what is over has no events
      else this.stop = follow(this.wid, this.cursor, { apply: (events) => this.apply(events), reread: () => this.reread() });
      await this.rest();
    } catch (error) {
      if (!this.closed) this.error.value = error;
    }
  }

  /** Look again, and follow it again: after an action that may have woken it. */
  async again() {
    this.stop?.();
    this.stop = null;
    await this.reread();
    if (!this.closed && !isFinal(this.header.value)) this.stop = follow(this.wid, null, { apply: (events) => this.apply(events), reread: () => this.reread() });
  }

  close() {
    this.closed = true;
    this.stop?.();
  }

  async snapshot() {
    const [header, page, gates] = await Promise.all([
      api.get(path`/api/runs/${this.wid}`), api.get(`${path`/api/runs/${this.wid}/steps`}?limit=200`), api.get(path`/api/runs/${this.wid}/gates`)]);
    this.take({ header, ...page, gates });
  }

  take({ header, steps, total, cursor, gates }) {
    batch(() => {
      this.header.value = header;
      this.gates.value = gates;
      this.total.value = total;
      this.cursor = cursor;
      this.put(steps);
      this.loaded.value = steps.length >= total;
    });
  }

  /** The rows behind the first page, after the first paint. */
  async rest() {
    for (let offset = this.byId.size; offset < this.total.value && !this.closed; offset += PAGE) {
      const page = await api.get(`${path`/api/runs/${this.wid}/steps`}?offset=${offset}&limit=${PAGE}`);
      batch(() => { this.total.value = page.total; this.put(page.steps); });
      if (!page.steps.length) break;
    }
    this.loaded.value = true;
  }

  /** Everything anew, where there are no events. Whether the run has ended. */
  async reread() {
    const header = await api.get(path`/api/runs/${this.wid}`);
    if (header.updatedAt !== this.header.value?.updatedAt || header.status !== this.header.value?.status || conn.value === "reconnecting") {
      const [page, gates] = await Promise.all([api.get(`${path`/api/runs/${this.wid}/steps`}?limit=${PAGE}`), api.get(path`/api/runs/${this.wid}/gates`)]);
      if (this.patches.value) this.readPatches();
      batch(() => { this.gates.value = gates; this.total.value = page.total; this.put(page.steps); });
    }
    this.header.value = header;
    return isFinal(header);
  }

  /** The gates as they are now, for whoever has just answered one. */
  async readGates() {
    try { this.gates.value = await api.get(path`/api/runs/${this.wid}/gates`); } catch { /* an event or the next look brings them */ }
  }

  async readPatches() {
    this.patches.value = await api.get(path`/api/runs/${this.wid}/patches`);
  }

  /** A batch of events. A reset keeps what is shown until what follows has come. */
  apply(events) {
    batch(() => {
      let changed = [];
      for (const [name, data] of events) {
        if (name === "run") this.header.value = data;
        else if (name === "step") changed.push(data);
        else if (name === "gate") this.gates.value = upserted(this.gates.value, data, (gate) => gate.gateKey);
        else if (name === "patch") this.patches.value = this.patches.value && upserted(this.patches.value, data, (patch) => `${patch.stepID}/${patch.patchIndex}`);
        else if (name === "reset") { this.byId.clear(); this.gates.value = []; changed = []; }
        else if (name === "end" && this.patches.value) this.readPatches();
      }
      if (changed.length) this.put(changed);
      this.total.value = Math.max(this.total.value, this.byId.size);
    });
  }

  /** Rows in their places; an older one than the one that is there does not replace it. */
  put(rows) {
    for (const row of rows) {
      const known = this.byId.get(row.stepID);
      if (!known || (row.seq ?? 0) >= (known.seq ?? 0)) this.byId.set(row.stepID, row);
    }
    this.rows.value = [...this.byId.values()].sort((a, b) => a.startedAt - b.startedAt || (a.seq ?? Infinity) - (b.seq ?? Infinity));
  }

  remember() {
    const { workflowID, subject } = this.header.value;
    recent.value = [{ wid: workflowID, subject: subject ?? null }, ...recent.value.filter((one) => one.wid !== workflowID)].slice(0, 12);
  }
}

/** Whether a run has ended. */
export const isFinal = (header) => ["SUCCESS", "ERROR", "CANCELLED"].includes(header.status);

function upserted(list, one, key) {
  const at = list.findIndex((other) => key(other) === key(one));
  return at < 0 ? [...list, one] : list.with(at, one);
}
