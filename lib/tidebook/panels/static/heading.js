// The title over several panels.
function render({ model, el: root }) {
  root.classList.add("tb-heading");
  root.append(h("h2", {}, model.get("title")));
  root.dataset.ready = "true";
}

export default { render };
