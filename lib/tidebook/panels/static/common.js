// What every panel needs. tidebook.panels.base.module() puts this file in front of a panel's own, so that one
// self-contained ES module reaches the browser and nothing is fetched. Text from data only ever becomes a text
// node or an attribute, so a hostile name stays a name.

const SVG = "http://www.w3.org/2000/svg";

const fill = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return node;
};
const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Bytes of the kernel as numbers. The copy is needed: a typed array must start at a multiple of its item size.
const numbers = (view, Kind) =>
  view?.byteLength ? new Kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength)) : new Kind(0);

const MISSING = "—";
const count = new Intl.NumberFormat("en-US");
const formatNumber = (value) => {
  if (value === null || value === undefined || Number.isNaN(value)) return MISSING;
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e9) return size < 1e4 ? String(value) : count.format(value);
  if (size >= 1e9 || size < 1e-4) return value.toExponential(2);
  return size >= 1e4 ? count.format(Math.round(value)) : String(Number(value.toPrecision(4)));
};
const formatShare = (value) => (value === null || value === undefined ? MISSING : `${(100 * value).toFixed(1)}%`);

// The frame of a panel: heading, what went wrong, and either the words of an empty state or a body to fill.
function frame(model, root) {
  root.classList.add("tb-panel");
  // JupyterLab must not take keys meant for a panel for commands on cells ("d d" deletes one). It looks for this
  // mark on the focused element itself before it looks further up.
  root.addEventListener("focusin", ({ target }) => target.setAttribute("data-lm-suppress-shortcuts", "true"));
  const title = h("h3", { class: "tb-title" }, model.get("title"));
  const summary = h("p", { class: "tb-summary" }, model.get("summary"));
  const problem = h("p", { class: "tb-problem", role: "alert" });
  const body = h("div", { class: "tb-body" });
  root.append(h("header", { class: "tb-head" }, title, summary), problem, body);
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", model.get("title"));
  const hint = model.get("hint");
  if (hint) body.append(h("div", { class: "tb-empty" }, h("p", {}, hint), h("code", {}, model.get("command"))));
  return { summary, problem, body, isEmpty: Boolean(hint) };
}

// Calls back on each change of the named traits; the returned function ends that.
function watch(model, handlers) {
  const events = Object.entries(handlers).map(([name, handler]) => [`change:${name}`, handler]);
  for (const [event, handler] of events) model.on(event, handler);
  return () => events.forEach(([event, handler]) => model.off(event, handler));
}

// Voila renders before it attaches, tabs hide what they hold: size is known only when the observer says so.
function onResize(node, draw) {
  let width = -1;
  const observer = new ResizeObserver(() => {
    if (!node.isConnected || node.clientWidth === width) return;
    width = node.clientWidth;
    draw();
  });
  observer.observe(node);
  return () => observer.disconnect();
}
