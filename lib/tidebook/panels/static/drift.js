// Features by windows as a grid of real cells: a screen reader, the keyboard and the theme all work on it as they
// do on any table. Selecting a cell is the one intent that goes to the kernel; the distribution comes back.

const CIVIDIS = [
  [0, 32, 77], [0, 52, 110], [56, 74, 108], [87, 93, 109], [112, 113, 115],
  [138, 134, 120], [166, 157, 117], [196, 182, 108], [228, 207, 91], [255, 234, 70],
];
function shade(share) {
  const t = Math.max(0, Math.min(1, share)) * (CIVIDIS.length - 1);
  const i = Math.min(CIVIDIS.length - 2, Math.floor(t));
  return CIVIDIS[i].map((low, k) => Math.round(low + (CIVIDIS[i + 1][k] - low) * (t - i)));
}
const css = (rgb) => `rgb(${rgb.join(" ")})`;
// Relative luminance, WCAG 2.2.
const luminance = (rgb) => {
  const linear = rgb.map((v) => (v <= 10.31475 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

// "2013-04" as month over year, the year only where it starts: narrow columns stay readable.
function windowHeads(windows) {
  const parts = windows.map((name) => /^(\d{4})-(0[1-9]|1[0-2])$/.exec(name));
  if (!parts.every(Boolean)) return windows.map((name) => [name, ""]);
  return parts.map(([, year, month], i) => [MONTHS[month - 1], i === 0 || parts[i - 1][1] !== year ? year : ""]);
}

function legend(model) {
  const [threshold, end] = [model.get("threshold"), model.get("scale_end")];
  const stops = CIVIDIS.map(css).join(", ");
  const mark = h("i", { style: `left:${(100 * threshold) / end}%`, class: "tb-mark" });
  const ramp = h("span", { class: "tb-ramp", style: `background:linear-gradient(to right, ${stops})` }, mark);
  const limit = h("span", { style: `left:${(100 * threshold) / end}%` }, `threshold ${formatNumber(threshold)}`);
  const scale = h("span", { class: "tb-scale" }, h("span", {}, "0"), limit, h("span", {}, `≥ ${formatNumber(end)}`));
  const key = h("ul", {}, h("li", {}, h("i", { class: "tb-key tb-alert" }), "alert"), h("li", {}, h("i", { class: "tb-key tb-void" }), "no value"));
  return h("div", { class: "tb-drift-legend", "aria-hidden": "true" }, h("span", {}, "PSI"), h("span", { class: "tb-ramp-box" }, ramp, scale), key);
}

function gridView(model, pick) {
  const [features, windows] = [model.get("features"), model.get("windows")];
  const scores = numbers(model.get("scores"), Float64Array);
  const alerts = numbers(model.get("alerts"), Uint8Array);
  const heads = windowHeads(windows);
  const status = h("p", { class: "tb-status", "aria-live": "polite" });
  const say = (i, j) => {
    const value = scores[i * windows.length + j];
    const psi = Number.isNaN(value) ? "no value" : `PSI ${value.toFixed(3)}`;
    return `${features[i]}, ${windows[j]}: ${psi}${alerts[i * windows.length + j] ? ", alert" : ""}`;
  };
  const cellOf = (i, j) => {
    const [value, isAlert] = [scores[i * windows.length + j], alerts[i * windows.length + j]];
    const cell = h("td", { role: "gridcell", tabindex: "-1", "aria-label": say(i, j), "data-i": i, "data-j": j });
    if (Number.isNaN(value)) cell.classList.add("tb-void");
    else {
      const rgb = shade(value / model.get("scale_end"));
      cell.style.background = css(rgb);
      cell.style.color = luminance(rgb) > 0.179 ? "#000" : "#fff"; // where both have a contrast of 4.58
      cell.classList.toggle("tb-low", value < model.get("threshold") / 2);
      cell.append(h("span", {}, value.toFixed(2)));
    }
    if (isAlert) cell.classList.add("tb-alert");
    return cell;
  };
  const cells = features.map((_, i) => windows.map((_, j) => cellOf(i, j)));
  const head = h("tr", { role: "row" }, h("td"), ...heads.map(([top, under], j) =>
    h("th", { scope: "col", role: "columnheader", title: windows[j], "aria-label": windows[j] }, h("span", {}, top), h("small", {}, under))));
  const rows = features.map((name, i) =>
    h("tr", { role: "row" }, h("th", { scope: "row", role: "rowheader", title: name }, name), ...cells[i]));
  const grid = h("table", { role: "grid", class: "tb-heat", "aria-label": "Drift of each feature in each window" }, h("thead", {}, head), h("tbody", {}, ...rows));

  const at = () => [features.indexOf(model.get("selected")[0]), windows.indexOf(model.get("selected")[1])];
  const cellUnder = (event) => event.target.closest("td[data-i]");
  grid.addEventListener("click", (event) => {
    const cell = cellUnder(event);
    if (cell) pick(Number(cell.dataset.i), Number(cell.dataset.j));
  });
  grid.addEventListener("pointerover", (event) => {
    const cell = cellUnder(event);
    if (cell) status.textContent = say(Number(cell.dataset.i), Number(cell.dataset.j));
  });
  grid.addEventListener("pointerleave", () => mark());
  grid.addEventListener("keydown", (event) => {
    const cell = cellUnder(event);
    if (!cell) return;
    const [i, j, last] = [Number(cell.dataset.i), Number(cell.dataset.j), windows.length - 1];
    const to = {
      ArrowUp: [i - 1, j], ArrowDown: [i + 1, j], ArrowLeft: [i, j - 1], ArrowRight: [i, j + 1],
      Home: [i, 0], End: [i, last], PageUp: [0, j], PageDown: [features.length - 1, j], Enter: [i, j], " ": [i, j],
    }[event.key];
    if (!to) return;
    event.preventDefault();
    const target = cells[to[0]]?.[to[1]];
    if (target) { target.focus(); pick(...to); }
  });
  function mark() {
    const [i, j] = at();
    grid.querySelectorAll("[aria-selected]").forEach((cell) => cell.removeAttribute("aria-selected"));
    grid.querySelectorAll("td[tabindex='0']").forEach((cell) => cell.setAttribute("tabindex", "-1"));
    (cells[i]?.[j] ?? cells[0][0]).setAttribute("tabindex", "0");
    cells[i]?.[j]?.setAttribute("aria-selected", "true");
    status.textContent = i >= 0 ? say(i, j) : "Select a cell to see what changed.";
  }
  // Columns narrower than their label name only every second, third, ... window; the title still names each.
  function fit() {
    const width = cells[0][0].clientWidth;
    grid.classList.toggle("tb-plain", width < 34);
    const longest = Math.max(...heads.map(([top]) => top.length)) * 6.6 + 6;
    const every = Math.max(1, Math.ceil(longest / Math.max(1, width)));
    [...head.children].slice(1).forEach((th, j) => th.classList.toggle("tb-mute", j % every !== 0));
  }
  const scroll = h("div", { class: "tb-scroll" }, grid);
  return { node: h("section", { class: "tb-map" }, scroll, legend(model), status), scroll, mark, fit };
}

function distributionView(model) {
  const node = h("section", { class: "tb-distribution", "aria-label": "Distribution behind the selected cell" });
  function draw() {
    const d = model.get("distribution");
    if (!d.feature) { node.replaceChildren(h("p", { class: "tb-nothing" }, "Select a cell to see the distribution behind it.")); return; }
    const most = Math.max(...d.bars.flatMap(([, reference, current]) => [reference, current]), 1e-9);
    const bar = (kind, share) => h("i", { class: kind, style: `width:${(100 * share) / most}%` });
    const rows = d.bars.map(([label, reference, current]) => h("tr", {},
      h("th", { scope: "row", title: label }, label),
      h("td", { class: "tb-bars", "aria-hidden": "true" }, bar("tb-reference", reference), bar("tb-current", current)),
      h("td", { class: "tb-number" }, formatShare(reference)), h("td", { class: "tb-number" }, formatShare(current))));
    const key = (kind, words) => h("th", { scope: "col", class: "tb-number" }, h("i", { class: `tb-key ${kind}` }), words);
    const head = h("tr", {}, h("th", { scope: "col" }, "value"), h("td"), key("tb-reference", "reference"), key("tb-current", d.window));
    const table = h("table", { "aria-label": `Shares of ${d.feature}, reference and ${d.window}` }, h("thead", {}, head), h("tbody", {}, ...rows));
    const verdict = h("span", { class: d.is_alert ? "tb-badge tb-warn" : "tb-badge" }, d.is_alert ? "alert" : "no alert");
    const facts = [["PSI", d.psi === null ? "no value" : d.psi.toFixed(3)], ["threshold", formatNumber(d.threshold)],
      ["reference rows", count.format(d.n_reference)], ["current rows", count.format(d.n_current)], ["missing", formatShare(d.null_share)]];
    const list = h("dl", { class: "tb-facts" }, ...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
    const title = h("h4", { title: d.feature }, h("span", {}, d.feature), ` in ${d.window}`);
    const rest = d.n_more ? [h("p", { class: "tb-note" }, `${count.format(d.n_more)} rarer values are not shown.`)] : [];
    const reason = d.reason ? [h("p", { class: "tb-reason" }, d.reason)] : [];
    const shares = d.bars.length ? [table] : [h("p", { class: "tb-nothing" }, "There is nothing to compare in this cell.")];
    node.replaceChildren(h("header", {}, title, verdict), ...reason, list, ...shares, ...rest);
  }
  return { node, draw };
}

function render({ model, el: root }) {
  const { problem, body, isEmpty } = frame(model, root);
  if (isEmpty) { root.dataset.ready = "true"; return undefined; }
  const grid = gridView(model, (i, j) => {
    model.set("selected", [model.get("features")[i], model.get("windows")[j]]);
    model.save_changes();
  });
  const shares = distributionView(model);
  body.classList.add("tb-split");
  body.append(grid.node, shares.node);
  const say = () => { problem.textContent = model.get("problem"); };
  const distribution = () => { shares.draw(); root.dataset.shown = `${model.get("distribution").feature ?? ""} ${model.get("distribution").window ?? ""}`; };
  grid.mark();
  grid.fit();
  distribution();
  say();
  const ends = [watch(model, { selected: grid.mark, distribution, problem: say }), onResize(grid.scroll, grid.fit)];
  root.dataset.ready = "true";
  return () => ends.forEach((end) => end());
}

export default { render };
