"use strict";
// What a page can do besides being read: choose, slide, hide, read out, sort, copy, and remember all that.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// -- memory: what was chosen, for as long as the tab is open

const place = "fewstep:" + location.pathname;
const state = { chosen: {}, hidden: [], open: {}, sorted: {} };
try {
  Object.assign(state, JSON.parse(sessionStorage.getItem(place)));
} catch { /* nothing is remembered where storage is forbidden */ }

function remember() {
  try {
    sessionStorage.setItem(place, JSON.stringify(state));
  } catch { /* see above */ }
}

const announce = (text) => { document.getElementById("announcer").textContent = text; };

// -- one of several parts: tabs, a list to choose from, or a slider

const pickers = all(".picker").map((root) => ({
  root,
  label: root.dataset.label,
  slides: root.dataset.kind === "slider",
  panels: [...root.querySelector(".panels").children],
})).filter((picker) => picker.panels.length > 1);

const values = (picker) => picker.panels.map((panel) => panel.dataset.value);

function nearest(picker, value) {
  const known = values(picker);
  if (known.includes(value)) return known.indexOf(value);
  if (!picker.slides || Number.isNaN(Number(value))) return -1;
  const distances = known.map((other) => Math.abs(other - value));
  return distances.indexOf(Math.min(...distances));
}

function show(picker, k) {
  picker.panels.forEach((panel, i) => panel.classList.toggle("away", i !== k));
  picker.reflect(k);
}

// All pickers of one label go along; one that lacks the value goes to the nearest number, or stays.
function choose(label, value) {
  state.chosen[label] = value;
  for (const picker of pickers.filter((other) => other.label === label)) {
    const k = nearest(picker, value);
    if (k >= 0) show(picker, k);
  }
  remember();
}

function addTabs(picker, control) {
  const list = make("div", { class: "tabs", role: "tablist", "aria-label": picker.label });
  const tabs = values(picker).map((value, k) => {
    const panel = picker.panels[k];
    const tab = make("button", { type: "button", role: "tab", id: panel.id + "-tab", "aria-controls": panel.id }, value);
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", tab.id);
    tab.addEventListener("click", () => choose(picker.label, value));
    return tab;
  });
  list.addEventListener("keydown", (event) => {
    const at = tabs.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const tab = tabs[(to + tabs.length) % tabs.length];
    tab.focus();
    tab.click();
  });
  list.append(...tabs);
  control.append(make("span", { class: "control-name", "aria-hidden": "true" }, picker.label), list);
  picker.reflect = (k) => tabs.forEach((tab, i) => {
    tab.setAttribute("aria-selected", i === k);
    tab.tabIndex = i === k ? 0 : -1;
  });
}

function addList(picker, control) {
  const id = picker.root.id + "-control";
  const list = make("select", { id }, ...values(picker).map((value) => make("option", { value }, value)));
  list.addEventListener("change", () => choose(picker.label, list.value));
  control.append(make("label", { class: "control-name", for: id }, picker.label), list);
  picker.reflect = (k) => { list.selectedIndex = k; };
}

function addSlider(picker, control) {
  const id = picker.root.id + "-control";
  const known = values(picker);
  const range = make("input", { id, type: "range", min: 0, max: known.length - 1, step: 1 });
  const ticks = make("div", { "aria-hidden": "true" }, ...known.map((value) => make("span", {}, value)));
  const output = make("output", { for: id });
  range.addEventListener("input", () => choose(picker.label, known[range.value]));
  ticks.addEventListener("click", (event) => {
    const k = [...ticks.children].indexOf(event.target);
    if (k >= 0) choose(picker.label, known[k]);
  });
  const rail = make("div", { class: "rail" }, range, ticks);
  rail.style.setProperty("--n", known.length);
  // Every second label, or every third, where all of them would touch; the first and the last in any case.
  new ResizeObserver(() => {
    const letters = Math.max(...known.map((value) => value.length));
    const every = Math.max(1, Math.ceil((8 * (letters + 1) * known.length) / rail.clientWidth));
    const last = known.length - 1;
    [...ticks.children].forEach((tick, k) => tick.classList.toggle("hushed", k !== last && (k % every > 0 || last - k < every)));
    ticks.firstChild.classList.remove("hushed");
  }).observe(rail);
  control.append(make("label", { class: "control-name", for: id }, picker.label), output, rail);
  picker.reflect = (k) => {
    range.value = k;
    range.setAttribute("aria-valuetext", `${picker.label}: ${known[k]}`);
    output.textContent = known[k];
    [...ticks.children].forEach((tick, i) => tick.classList.toggle("chosen", i === k));
  };
}

for (const picker of pickers) {
  const control = make("div", { class: "control" });
  const add = picker.slides ? addSlider : values(picker).join("").length > 60 ? addList : addTabs;
  add(picker, control);
  picker.root.prepend(control);
  picker.root.classList.add("alive");
  const { start } = pickers.find((other) => other.label === picker.label && other.root.dataset.start)?.root.dataset ?? {};
  show(picker, Math.max(nearest(picker, state.chosen[picker.label] ?? start), 0));
}

// -- legends: a name hides its series on the whole page

function reflectSeries() {
  for (const element of all("[data-series]")) {
    const hidden = state.hidden.includes(element.dataset.series);
    if (element.tagName === "LI") element.firstChild.setAttribute("aria-pressed", !hidden);
    else element.classList.toggle("faded", hidden);
  }
}

all(".legend li").forEach((item, k) => {
  const button = make("button", { type: "button", id: `legend-${k}` }, ...item.childNodes);
  button.addEventListener("click", () => {
    const name = item.dataset.series;
    state.hidden = state.hidden.includes(name) ? state.hidden.filter((other) => other !== name) : [...state.hidden, name];
    reflectSeries();
    remember();
  });
  item.replaceChildren(button);
});
reflectSeries();

// -- charts: a point at a time, by pointer or by arrow keys

const charts = JSON.parse(document.getElementById("data").textContent);

function addReadout(id, chart) {
  const plot = document.querySelector(`#${id} .plot`);
  const output = make("div", { class: "readout", "aria-hidden": "true" });
  const rings = {};
  for (const svg of plot.children) {
    const title = svg.querySelector("title");
    svg.setAttribute("aria-label", title.textContent);  // a title would pop up under the pointer
    svg.removeAttribute("aria-labelledby");
    title.remove();
    rings[svg.classList[0]] = svg.appendChild(document.createElementNS(svg.namespaceURI, "circle"));
  }
  plot.after(output);
  plot.tabIndex = 0;
  plot.id = id + "-plot";
  plot.setAttribute("role", "group");
  plot.setAttribute("aria-roledescription", "chart");
  plot.setAttribute("aria-label", document.getElementById(id + "-title").textContent + ": arrow keys read out its points");
  // Said once on a page; the line stays free under the other charts.
  const hint = id === Object.keys(charts)[0] ? "Point at a chart, or use the arrow keys in it, to read its values." : "";
  output.textContent = hint;

  let at = null;
  const shown = (s) => chart.series[s].points.length > 0 && !state.hidden.includes(chart.series[s].name);

  function read(s, k) {
    at = [s, k];
    const { name, points } = chart.series[s];
    const [where, height] = points[k];
    output.replaceChildren(make("b", {}, name), `, ${where}: ${height}`);
    output.className = "readout " + all(".series", plot).find((group) => group.dataset.series === name).classList[1];
    for (const [kind, ring] of Object.entries(rings)) {
      const [x, y] = chart.views[kind][s][k];
      for (const [key, value] of Object.entries({ class: "ring", cx: x, cy: y, r: 7 })) ring.setAttribute(key, value);
    }
    return `${name}, ${where}: ${height}`;
  }

  function leave() {
    at = null;
    output.textContent = hint;
    output.className = "readout";
    Object.values(rings).forEach((ring) => ring.removeAttribute("r"));
  }

  plot.addEventListener("pointermove", (event) => {
    const svg = event.target.closest("svg");
    if (!svg) return;
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    let best = [Infinity];
    chart.views[svg.classList[0]].forEach((line, s) => shown(s) && line.forEach(([px, py], k) => {
      const distance = Math.hypot(px - x, py - y);
      if (distance < best[0]) best = [distance, s, k];
    }));
    if (best[0] < 60) read(best[1], best[2]);
  });
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.addEventListener("keydown", (event) => {
    if (!/^(Arrow|Home|End|Escape)/.test(event.key)) return;
    const order = chart.series.map((_, s) => s).filter(shown);
    if (order.length === 0) return;
    event.preventDefault();
    if (event.key === "Escape") return leave();
    let [s, k] = at ?? [order[0], -1];
    if (!order.includes(s)) s = order[0];
    if (/Up|Down/.test(event.key) && at) {
      const step = event.key === "ArrowDown" ? 1 : order.length - 1;
      const x = chart.views.wide[s][k][0];
      s = order[(order.indexOf(s) + step) % order.length];
      const distances = chart.views.wide[s].map((point) => Math.abs(point[0] - x));
      k = distances.indexOf(Math.min(...distances));
    }
    const last = chart.series[s].points.length - 1;
    const to = { ArrowRight: k + 1, ArrowLeft: k - 1, Home: 0, End: last }[event.key] ?? k;
    announce(read(s, Math.min(Math.max(to, 0), last)));
  });
}

for (const [id, chart] of Object.entries(charts)) addReadout(id, chart);

// -- tables: sorted by a column

function sort(table, column, descending) {
  const rows = [...table.tBodies[0].rows];
  const key = (row) => row.cells[column].dataset.value;
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");  // what is missing stays last
    const order = Number.isNaN(Number(a)) || Number.isNaN(Number(b)) ? a.localeCompare(b) : a - b;
    return descending ? -order : order;
  };
  table.tBodies[0].append(...rows.sort((a, b) => compare(key(a), key(b))));
  [...table.tHead.rows[0].cells].forEach((cell, k) => {
    if (k === column) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
}

for (const table of all("[data-sortable]")) {
  [...table.tHead.rows[0].cells].forEach((cell, k) => {
    const button = make("button", { type: "button", id: `${table.id}-sort-${k}` }, ...cell.childNodes);
    button.addEventListener("click", () => {
      const descending = cell.getAttribute("aria-sort") === "ascending";
      state.sorted[table.id] = [k, descending];
      sort(table, k, descending);
      remember();
    });
    cell.replaceChildren(button);
  });
  const [column, descending] = state.sorted[table.id] ?? [-1];
  if (column >= 0 && column < table.tHead.rows[0].cells.length) sort(table, column, descending);
}

// -- the rest: lines to copy, what was unfolded, regions that need no focus as they do not scroll

for (const code of all(".code")) {
  const button = make("button", { type: "button", id: code.id + "-copy" }, "Copy");
  button.addEventListener("click", async () => {
    const lines = code.querySelector("code");
    getSelection().selectAllChildren(lines);
    try {
      await navigator.clipboard.writeText(lines.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Selected: press Ctrl+C";
    }
    announce(button.textContent);
  });
  code.querySelector(".code-head").append(button);
}

for (const details of all("details")) {
  details.open = state.open[details.id] ?? details.open;
  details.addEventListener("toggle", () => {
    state.open[details.id] = details.open;
    remember();
  });
}

// Further rows are folded and unfolded together.
for (const others of all(".others")) {
  others.addEventListener("toggle", () => {
    for (const other of all(".others")) other.open = others.open;
  });
}

// What goes on to the right fades out there, and says so.
function reflectBeyond(region) {
  const beyond = region.scrollWidth > region.clientWidth + region.scrollLeft + 1;
  region.classList.toggle("beyond", beyond);
  if (beyond && !region.cue) {
    region.cue = make("p", { class: "cue", "aria-hidden": "true" }, "Scroll sideways for more →");
    region.after(region.cue);
  }
  if (region.cue) region.cue.style.visibility = beyond ? "visible" : "hidden";
}

const regions = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const scrolls = target.scrollWidth > target.clientWidth + 1 || target.scrollHeight > target.clientHeight + 1;
    if (scrolls) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
    if (target.matches(".scroll")) reflectBeyond(target);
  }
});
for (const region of all(".scroll, pre")) {
  regions.observe(region);
  region.addEventListener("scroll", () => { if (region.matches(".scroll")) reflectBeyond(region); });
}
