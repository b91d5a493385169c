// The run table and the curves of the selected runs. Selecting a run or a metric is an intent that goes to the
// kernel; sorting, filtering and the cursor stay in the browser.

const PAGE = 200; // rows drawn before "Show all": sorting stays instant with thousands of runs

// A run keeps its color for as long as it is selected, whatever is selected or dropped around it.
function slotKeeper() {
  const slots = new Map();
  return (selected) => {
    for (const run of [...slots.keys()]) if (!selected.includes(run)) slots.delete(run);
    for (const run of selected) {
      if (slots.has(run)) continue;
      const taken = new Set(slots.values());
      let slot = 0;
      while (taken.has(slot)) slot += 1;
      slots.set(run, slot);
    }
    return slots;
  };
}

// Row numbers in the order of a column; rows without a value come last in both directions.
function order(rows, { texts, keys }, isDescending) {
  const isPresent = (i) => (keys.length ? keys[i] !== null : texts[i] !== MISSING);
  const byText = (i, j) => texts[i].localeCompare(texts[j], "en", { numeric: true });
  const known = rows.filter(isPresent).sort(keys.length ? (i, j) => keys[i] - keys[j] : byText);
  return [...(isDescending ? known.reverse() : known), ...rows.filter((i) => !isPresent(i))];
}

function tableView(model, toggle) {
  const columns = model.get("columns");
  const [runs, labels] = [model.get("runs"), model.get("labels")];
  const rows = [...runs.keys()];
  let [sorted, isDescending, isAll, shown] = [-1, false, false, []];

  const headers = columns.map(({ name, kind }, at) => {
    const button = h("button", { type: "button", title: `Sort by ${name}` }, h("span", {}, name));
    button.addEventListener("click", () => {
      // numbers and times: the largest first is what one looks for
      isDescending = sorted === at ? !isDescending : kind !== "text";
      sorted = at;
      draw();
    });
    return h("th", { scope: "col", class: `tb-${kind}`, "aria-sort": "none" }, button);
  });
  const head = h("tr", {}, h("th", { scope: "col", class: "tb-pick" }, h("span", { class: "tb-hidden" }, "Selected")));
  head.append(...headers);
  const body = h("tbody");
  const table = h("table", { class: "tb-runs", "aria-label": "Runs" }, h("thead", {}, head), body);
  const filter = h("input", { type: "search", placeholder: "Filter runs", "aria-label": "Filter runs" });
  const tally = h("span", { class: "tb-muted", role: "status" });
  const more = h("button", { type: "button", class: "tb-more" });
  more.addEventListener("click", () => { isAll = true; draw(); });
  filter.addEventListener("input", () => draw());

  function rowOf(i) {
    const run = runs[i];
    const box = h("input", { type: "checkbox", "aria-label": `Show the curve of ${labels[i]}` });
    box.addEventListener("change", () => toggle(run));
    const row = h("tr", {}, h("td", { class: "tb-pick" }, h("label", {}, box, h("i", { class: "tb-swatch" }))));
    row.append(...columns.map(({ kind, texts }) => h("td", { class: `tb-${kind}`, title: texts[i] }, texts[i])));
    row.addEventListener("click", (event) => {
      if (!event.target.closest("label") && !String(getSelection())) toggle(run);
    });
    return { run, row, box, swatch: row.querySelector("i") };
  }

  function draw() {
    const words = filter.value.trim().toLowerCase();
    let found = rows.filter((i) => !words || columns.some(({ texts }) => texts[i].toLowerCase().includes(words)));
    if (sorted >= 0) found = order(found, columns[sorted], isDescending);
    headers.forEach((header, at) => {
      header.setAttribute("aria-sort", at !== sorted ? "none" : isDescending ? "descending" : "ascending");
    });
    shown = found.slice(0, isAll ? undefined : PAGE).map(rowOf);
    body.replaceChildren(...shown.map(({ row }) => row));
    more.hidden = shown.length === found.length;
    more.textContent = `Show all ${formatNumber(found.length)} runs`;
    tally.textContent = words ? `${found.length} of ${rows.length}` : "";
    mark(model.get("selected"), slots);
  }

  let slots = new Map();
  function mark(selected, now) {
    slots = now;
    const isFull = selected.length >= model.get("max_selected");
    for (const { run, row, box, swatch } of shown) {
      box.checked = slots.has(run);
      box.disabled = isFull && !box.checked;
      row.classList.toggle("tb-on", box.checked);
      swatch.className = box.checked ? `tb-swatch tb-s${slots.get(run)}` : "tb-swatch";
    }
  }
  const scroll = h("div", { class: "tb-scroll", tabindex: "0", role: "region", "aria-label": "Table of runs" }, table);
  const bar = h("div", { class: "tb-bar" }, filter, tally);
  return { node: h("section", { class: "tb-table" }, bar, scroll, more), draw, mark };
}

// Round numbers that cover [low, high].
function ticks(low, high, wanted) {
  const raw = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= raw);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) found.push(Number((i * step).toPrecision(12)));
  return found;
}
function logTicks(low, high) {
  const found = [];
  const marks = Math.log10(high / low) > 3 ? [1] : Math.log10(high / low) > 1 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e += 1) {
    for (const m of marks) if (m * 10 ** e >= low && m * 10 ** e <= high) found.push(Number((m * 10 ** e).toPrecision(6)));
  }
  return found;
}
const nearest = (x, step) => {
  let [low, high] = [0, x.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (x[middle] <= step) low = middle; else high = middle;
  }
  return Math.abs(x[high] - step) < Math.abs(x[low] - step) ? high : low;
};

function chartView(model) {
  const HEIGHT = 264;
  const EDGE = { left: 52, right: 14, top: 10, bottom: 34 };
  const picker = h("select", { "aria-label": "Metric" }, ...model.get("metrics").map((m) => h("option", { value: m }, m)));
  picker.addEventListener("change", () => { model.set("metric", picker.value); model.save_changes(); });
  const log = h("input", { type: "checkbox" });
  log.addEventListener("change", () => { model.set("is_log", log.checked); model.save_changes(); });
  const where = h("span", { class: "tb-muted tb-step" });
  const plot = h("div", { class: "tb-plot", role: "slider", tabindex: "0", "aria-label": "Step read out below" });
  const note = h("p", { class: "tb-note" });
  const legend = h("ul", { class: "tb-legend", "aria-label": "Legend" });
  let [series, slots, scale, cursor, dropped] = [[], new Map(), null, null, 0];

  function read() {
    dropped = 0;
    const isLog = model.get("is_log");
    series = (model.get("curves").series ?? []).map((one) => {
      const y = numbers(one.y, Float64Array).map((v) => (Number.isFinite(v) ? v : NaN));
      if (isLog) y.forEach((v, i) => { if (v <= 0) { y[i] = NaN; dropped += 1; } });
      return { run: one.run, label: one.label, x: numbers(one.x, Float64Array), y };
    });
  }
  function extent() {
    let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const { x, y } of series) {
      for (let i = 0; i < x.length; i += 1) {
        if (Number.isNaN(y[i])) continue;
        [x0, x1, y0, y1] = [Math.min(x0, x[i]), Math.max(x1, x[i]), Math.min(y0, y[i]), Math.max(y1, y[i])];
      }
    }
    return x0 <= x1 ? [x0, x1, y0, y1] : null;
  }
  function scales(width) {
    const bounds = extent();
    if (!bounds) return null;
    let [x0, x1, y0, y1] = bounds;
    if (x0 === x1) [x0, x1] = [x0 - 1, x1 + 1];
    const isLog = model.get("is_log");
    if (y0 === y1) [y0, y1] = isLog ? [y0 / 2, y1 * 2] : [y0 - Math.abs(y0 || 1) * 0.05, y1 + Math.abs(y1 || 1) * 0.05];
    else if (!isLog) [y0, y1] = [y0 - (y1 - y0) * 0.04, y1 + (y1 - y0) * 0.04];
    const t = isLog ? Math.log10 : (v) => v;
    const inner = { width: width - EDGE.left - EDGE.right, height: HEIGHT - EDGE.top - EDGE.bottom };
    return {
      x: (v) => EDGE.left + ((v - x0) / (x1 - x0)) * inner.width,
      y: (v) => EDGE.top + (1 - (t(v) - t(y0)) / (t(y1) - t(y0))) * inner.height,
      step: (px) => x0 + ((px - EDGE.left) / inner.width) * (x1 - x0),
      xTicks: ticks(x0, x1, Math.max(2, inner.width / 90)).filter(Number.isInteger),
      yTicks: isLog ? logTicks(y0, y1) : ticks(y0, y1, 5),
      first: x0, last: x1, width,
    };
  }
  function axes() {
    const bottom = HEIGHT - EDGE.bottom;
    const right = scale.width - EDGE.right;
    const grid = scale.yTicks.flatMap((v) => [
      s("line", { class: "tb-grid", x1: EDGE.left, x2: right, y1: scale.y(v), y2: scale.y(v) }),
      s("text", { x: EDGE.left - 7, y: scale.y(v) + 3.5, "text-anchor": "end" }, formatNumber(v)),
    ]);
    const steps = scale.xTicks.flatMap((v) => [
      s("line", { class: "tb-tick", x1: scale.x(v), x2: scale.x(v), y1: bottom, y2: bottom + 4 }),
      s("text", { x: scale.x(v), y: bottom + 16, "text-anchor": "middle" }, formatNumber(v)),
    ]);
    const axis = s("line", { class: "tb-axis", x1: EDGE.left, x2: right, y1: bottom, y2: bottom });
    return [...grid, axis, ...steps, s("text", { x: right, y: HEIGHT - 4, "text-anchor": "end" }, "step")];
  }
  function line({ run, x, y }) {
    let [path, isDown, last] = ["", false, -1];
    for (let i = 0; i < x.length; i += 1) {
      if (Number.isNaN(y[i])) { isDown = false; continue; }
      path += `${isDown ? "L" : "M"}${scale.x(x[i]).toFixed(1)},${scale.y(y[i]).toFixed(1)}`;
      [isDown, last] = [true, i];
    }
    if (last < 0) return [];
    const style = `tb-s${slots.get(run) ?? 0}`;
    const end = s("circle", { class: `tb-dot ${style}`, cx: scale.x(x[last]), cy: scale.y(y[last]), r: x.length > 1 ? 2.5 : 4.5 });
    return [s("path", { class: `tb-line ${style}`, d: path }), end];
  }

  function draw() {
    picker.value = model.get("metric");
    log.checked = model.get("is_log");
    plot.replaceChildren();
    const width = Math.max(260, plot.clientWidth || 560);
    scale = series.length ? scales(width) : null;
    if (scale) {
      const picture = s("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, "aria-hidden": "true" });
      picture.append(...axes(), ...series.flatMap(line), s("g", { class: "tb-cursor" }));
      plot.append(picture);
    } else {
      const words = series.length ? `The selected runs have no value of ${model.get("metric")} to draw.` : "Select a run to see its curve.";
      plot.append(h("p", { class: "tb-nothing" }, words));
    }
    note.textContent = dropped ? `${formatNumber(dropped)} values at or below 0 have no place on a log scale.` : "";
    point(null);
  }
  // The legend is the read-out: the last value of each run, or the value at the step under the cursor.
  function point(step) {
    cursor = step;
    const marks = plot.querySelector(".tb-cursor");
    marks?.replaceChildren();
    const said = [];
    legend.replaceChildren(...series.map(({ run, label, x, y }) => {
      const style = `tb-s${slots.get(run) ?? 0}`;
      let at = step === null ? y.findLastIndex((v) => !Number.isNaN(v)) : nearest(x, step);
      if (step !== null && (step > x[x.length - 1] || step < x[0])) at = -1;
      const value = at >= 0 ? y[at] : NaN;
      if (step !== null && !Number.isNaN(value)) {
        marks?.append(s("circle", { class: `tb-dot ${style}`, cx: scale.x(x[at]), cy: scale.y(value), r: 4 }));
      }
      said.push(`${label} ${formatNumber(value)}`);
      const key = s("svg", { width: 26, height: 10, "aria-hidden": "true" }, s("line", { class: `tb-line ${style}`, x1: 1, x2: 25, y1: 5, y2: 5 }));
      return h("li", {}, key, h("span", { class: "tb-name", title: label }, label), h("b", {}, formatNumber(value)));
    }));
    if (scale && step !== null) {
      marks?.prepend(s("line", { x1: scale.x(step), x2: scale.x(step), y1: EDGE.top, y2: HEIGHT - EDGE.bottom }));
    }
    where.textContent = !scale ? "" : step === null ? "last value" : `step ${formatNumber(step)}`;
    plot.setAttribute("aria-valuemin", scale ? scale.first : 0);
    plot.setAttribute("aria-valuemax", scale ? scale.last : 0);
    plot.setAttribute("aria-valuenow", step ?? scale?.last ?? 0);
    plot.setAttribute("aria-valuetext", `${where.textContent}: ${said.join(", ")}`);
  }
  const known = () => [...new Set(series.flatMap(({ x }) => [...x]))].sort((a, b) => a - b);

  plot.addEventListener("pointermove", (event) => {
    if (!scale) return;
    const step = scale.step(((event.clientX - plot.getBoundingClientRect().left) / plot.clientWidth) * scale.width);
    const steps = known();
    point(steps[nearest(steps, step)]);
  });
  plot.addEventListener("pointerleave", () => point(null));
  plot.addEventListener("blur", () => point(null));
  plot.addEventListener("keydown", (event) => {
    const steps = scale ? known() : [];
    const at = cursor === null ? steps.length - 1 : nearest(steps, cursor);
    const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: steps.length - 1 }[event.key];
    if (to === undefined || !steps.length) return;
    event.preventDefault();
    point(steps[Math.max(0, Math.min(steps.length - 1, to))]);
  });

  const choice = h("label", { class: "tb-field" }, "Metric", picker);
  const bar = h("div", { class: "tb-bar" }, choice, h("label", { class: "tb-field" }, log, "Log scale"), where);
  const node = h("section", { class: "tb-chart" }, bar, plot, note, legend);
  return { node, plot, draw, read, setSlots: (now) => { slots = now; } };
}

function render({ model, el: root }) {
  const { summary, problem, body, isEmpty } = frame(model, root);
  if (isEmpty) { root.dataset.ready = "true"; return undefined; }
  const keep = slotKeeper();
  const toggle = (run) => {
    const selected = model.get("selected");
    const isOn = selected.includes(run);
    if (!isOn && selected.length >= model.get("max_selected")) return;
    model.set("selected", isOn ? selected.filter((other) => other !== run) : [...selected, run]);
    model.save_changes();
  };
  const table = tableView(model, toggle);
  const chart = chartView(model);
  body.classList.add("tb-split");
  body.append(table.node, chart.node);

  const say = () => {
    problem.textContent = model.get("problem");
    summary.textContent = model.get("summary");
  };
  const mark = () => {
    const slots = keep(model.get("selected"));
    table.mark(model.get("selected"), slots);
    chart.setSlots(slots);
  };
  const curves = () => { mark(); chart.read(); chart.draw(); root.dataset.curves = model.get("curves").key ?? ""; };
  table.draw();
  curves();
  say();
  const ends = [
    watch(model, { selected: mark, curves, is_log: curves, metric: () => chart.draw(), problem: say, summary: say }),
    onResize(chart.plot, chart.draw),
  ];
  root.dataset.ready = "true";
  return () => ends.forEach((end) => end());
}

export default { render };
