// What holds for every timeline: given the address of the layout's module and runs, it gives what does not.
async ([module, runs]) => {
    const { axisOf, placeOf, timeAt, ticksOf, nodesOf, spanOf, isWait, isActive, lanesOf, triesOf } = await import(module);
    const wrong = [];
    const must = (holds, text, run) => { if (!holds && wrong.length < 5) wrong.push(`${text}: ${JSON.stringify(run).slice(0, 600)}`); };
    const close = (a, b, by = 1e-6) => Math.abs(a - b) <= by;
    for (const run of runs) {
        const plain = axisOf(run.rows, run.now, false), short = axisOf(run.rows, run.now, true);
        for (const axis of [plain, short]) {
            const { pieces } = axis;
            must(close(pieces[0].x0, 0) && close(pieces.at(-1).x1, 1), "an axis goes from 0 to 1", run);
            must(pieces[0].from === axis.from && pieces.at(-1).to === axis.to, "its pieces are all of its time", run);
            must(pieces.every((one, i) => one.x1 >= one.x0 && one.to >= one.from), "no piece runs backwards", run);
            must(pieces.every((one, i) => !i || (close(one.x0, pieces[i - 1].x1) && one.from === pieces[i - 1].to)), "pieces touch", run);
            const times = run.rows.flatMap((row) => spanOf(row, run.now)).sort((a, b) => a - b);
            const places = times.map((time) => placeOf(axis, time));
            must(places.every((x) => x >= 0 && x <= 1), "every place is on the axis", run);
            must(places.every((x, i) => !i || x >= places[i - 1] - 1e-12), "later is never further left", run);
            const long = axis.to - axis.from;
            must(times.every((time) => close(timeAt(axis, placeOf(axis, time)), time, 1 + long * 1e-6)), "a place leads back to its time", run);
            const ticks = ticksOf(axis, axis.from, axis.to, 0.1);
            must(ticks.every(({ x }, i) => x >= -1e-9 && x <= 1 + 1e-9 && (!i || x - ticks[i - 1].x >= 0.1 - 1e-9)), "marks keep apart", run);
        }
        for (const row of run.rows.filter((row) => !isWait(row))) {
            const [from, to] = spanOf(row, run.now);
            const hidden = short.pieces.some((one) => one.idle && from < one.to && to > one.from && to > from);
            must(!hidden, "no work is in what is drawn short", { row, run });
            const width = (axis) => placeOf(axis, to) - placeOf(axis, from);
            must(width(short) >= width(plain) - 1e-9, "work is never drawn smaller for it", { row, run });
        }
        for (const row of run.rows) {
            const [from, to] = spanOf(row, run.now), tries = triesOf(row, run.now);
            must(tries.length !== 1 && tries.length <= (row.attempts?.length ?? 0) + 1, "one attempt is the row itself", row);
            must(tries.every((one, i) => one.from <= one.to && one.from >= (i ? tries[i - 1].to : from)), "attempts follow each other", row);
            must(!tries.length || (tries[0].from === from && tries.at(-1).to === to), "attempts begin and end with their row", row);
            must(!tries.length || !isActive(row) || !tries.at(-1).failed, "what is under way has not failed", row);
        }
        const unfolded = nodesOf(run.rows, { folded: new Set() });
        const ids = unfolded.filter((node) => node.row).map((node) => node.id);
        must(ids.length === run.rows.length && new Set(ids).size === ids.length, "every row is there once", run);
        const groups = unfolded.filter((node) => node.rows);
        const folded = nodesOf(run.rows, { folded: new Set(groups.map((node) => node.id)) });
        const inside = groups.reduce((sum, node) => sum + node.rows.length, 0);
        must(folded.length === unfolded.length - inside, "a folded group is one line", run);
        const spans = run.rows.map((row) => spanOf(row, run.now));
        const lanes = lanesOf(spans, 100);
        must(spans.every(([from, to], i) => spans.every(([a, b], k) => k <= i || lanes[i] !== lanes[k] || to <= a || b <= from)),
            "what overlaps is in lanes of its own", run);
    }
    return wrong;
}
