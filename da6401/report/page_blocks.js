"use strict";
// The report's data are blocks; here is one function a kind of block. Texts go in as text, never as HTML.

const byId = (id) => document.getElementById(id);
const read = (id) => JSON.parse(byId(id).textContent);
const main = byId("main"), dialog = byId("trial"), root = document.documentElement;
const parts = {};          // by id: what the reader has set (filter, state, order, picked trials)
const opened = new Set();  // ids of open details
const plots = new Map();   // plot element -> its chart and the part that it belongs to

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const isNumber = (value) => typeof value === "number";
function show(value) {
  if (value === null || value === undefined) return "–";
  if (!isNumber(value)) return typeof value === "object" ? JSON.stringify(value) : String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  return Math.abs(value) >= 0.001 && Math.abs(value) < 1000 ? String(+value.toFixed(4)) : value.toPrecision(4);
}

const compact = (value) => value.toLocaleString("en-US", { notation: "compact", maximumFractionDigits: 1 });

// ---- blocks ------------------------------------------------------------------------------------------------------

const blocks = {
  facts: (block) => make("dl", { class: "facts" }, block.items.map((item) => make("div", {},
    make("dt", {}, item.label), make("dd", { class: "value" }, item.value >= 1e6 ? compact(item.value) : show(item.value)),
    item.note ? make("dd", { class: "note" }, item.note) : null))),

  text: (block) => make("p", { class: block.tone }, block.text),

  command: (block) => {
    const copy = make("button", { type: "button", click: () =>
      navigator.clipboard?.writeText(block.text).then(() => { copy.textContent = "Copied"; }) }, "Copy");
    return make("div", { class: "command" }, make("code", { tabindex: "0" }, block.text), copy);
  },

  table: (block, part, section) => block.folded ? folded(section, block.caption, block)
    : table(block.caption, block.columns, block.rows),

  pictures: (block, part, section) => make("div", { class: block.small ? "pictures small" : "pictures" },
    block.caption ? make("p", { class: "note" }, block.caption) : null, block.items.map((item) => make("figure", {},
    make(section.below, {}, item.title), make("img", { src: item.source, alt: `${item.title}. ${item.caption}`, decoding: "async" }),
    make("figcaption", {}, item.caption)))),

  chart: (block, part, section) => {
    const plot = make("div", { class: "plot", role: "img", "aria-label": `${block.title}: ${block.summary}` });
    plot.style.minHeight = `${heightOf(block)}px`;
    if (block.layout.width) plot.style.minWidth = `${block.layout.width}px`;
    plots.set(plot, { block, part, view: null });
    watcher.observe(plot);
    return make("figure", {}, section?.title === block.title ? null : make(section?.below ?? "h3", {}, block.title),
      make("figcaption", {}, block.summary), block.views ? views(plot, block.views) : null,
      block.layout.width ? scroll(block.title, plot) : plot, folded(section ?? part, `Data: ${block.title}`, block),
      exports(plot, block));
  },

  charts: (block, part, section) =>
    make("div", { class: "charts" }, block.items.map((item) => blocks.chart(item, part, section))),

  trials,
};

const scroll = (label, ...children) =>
  make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label }, children);

function table(caption, columns, rows) {
  const numeric = columns.map((_, at) => rows.length > 0 && rows.every((row) => row[at] === null || isNumber(row[at])));
  const style = (at) => (numeric[at] ? "number" : null);
  return scroll(caption, make("table", {}, make("caption", {}, caption),
    make("thead", {}, make("tr", {}, columns.map((name, at) => make("th", { scope: "col", class: style(at) }, name)))),
    make("tbody", {}, rows.map((row) => make("tr", {}, row.map((value, at) =>
      make("td", { class: style(at) }, value === null && numeric[at] ? "–" : value?.href ? link(value) : show(value))))))));
}

// A served page has no files beside it.
const link = ({ text, href }) =>
  href.startsWith("./") && root.dataset.live !== "yes" ? make("a", { href }, text) : text;

// A table that is made when it is opened. Its place in the section names it: two charts may have one title.
function folded(section, caption, { columns, rows }) {
  section.folds = (section.folds ?? 0) + 1;
  const id = `${section.id}-data-${section.folds}`;
  const details = make("details", { id, toggle: () => {
    if (details.open && details.children.length === 1) details.append(table(caption, columns, rows));
    details.open ? opened.add(id) : opened.delete(id);
  } }, make("summary", {}, caption));
  details.open = opened.has(id);
  return details;
}

function views(plot, choices) {
  const buttons = Object.entries(choices).map(([name, x], index) => make("button", {
    type: "button", "aria-pressed": String(index === 0), click: (event) => {
      buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === event.currentTarget)));
      plots.get(plot).view = { name, x };
      draw(plot);
    } }, name));
  return make("div", { class: "views", role: "group", "aria-label": "horizontal axis" }, buttons);
}

// ---- the table of trials, and a trial -----------------------------------------------------------------------------

function trials(block, part) {
  const rows = block.trials.map((trial) => {
    const cells = [trial.number, trial.state, ...trial.values, ...(block.intervals ? [trial.interval] : []), trial.seconds, trial.epochs,
      ...block.params.map((name) => trial.params[name] ?? null)];
    const text = block.columns.map((name, at) => `${name}=${show(cells[at])}`).join(" ") + ` ${trial.badge} ${trial.reason}`;
    const row = make("tr", { class: [trial.best ? "best" : "", trial.badge ? "marked" : ""].join(" ").trim() || null, click: () => open(block, trial, part) },
      cells.map((value, at) => at === 0
        ? make("td", {}, make("button", { type: "button", "aria-label": `open trial ${value}` }, String(value)), trial.mark,
          trial.badge ? make("span", { class: "badge" }, trial.badge) : null)
        : at === 1 ? make("td", {}, make("span", { class: `state ${value}` }, value))
        : make("td", { class: isNumber(value) ? "number" : null }, show(value))));
    return { trial, cells, row, text: text.toLowerCase() };
  });
  const body = make("tbody", {}), count = make("p", { class: "count", role: "status" });
  const heads = block.columns.map((name, at) => make("th", { scope: "col", "aria-sort": "none",
    class: rows.length && rows.every((row) => row.cells[at] === null || isNumber(row.cells[at])) && at ? "number" : null },
  make("button", { type: "button", id: `${part.id}-sort-${at}`, click: () => {
    part.descending = part.column === at ? !part.descending : false;
    part.column = at;
    order();
  } }, name)));

  const compare = (a, b) => a === b ? 0 : a === null ? 1 : b === null ? -1
    : (isNumber(a) && isNumber(b) ? a - b : String(a).localeCompare(String(b))) * (part.descending ? -1 : 1);
  function order() {
    rows.sort((a, b) => compare(a.cells[part.column], b.cells[part.column]) || a.trial.number - b.trial.number);
    heads.forEach((head, at) =>
      head.setAttribute("aria-sort", at !== part.column ? "none" : part.descending ? "descending" : "ascending"));
    body.replaceChildren(...rows.map((row) => row.row));
  }
  function filter() {
    const words = part.text.toLowerCase().split(/\s+/);
    let shown = 0;
    for (const { trial, row, text } of rows) {
      row.hidden = !(words.every((word) => text.includes(word)) && (!part.state || trial.state === part.state)
        && (!part.picked || part.picked.has(trial.number)));
      shown += !row.hidden;
    }
    clear.hidden = !(part.text || part.state || part.picked);
    count.textContent = `${shown} of ${rows.length} trials` + (part.picked ? ", picked in the parallel coordinates" : "");
  }
  const search = make("input", { type: "search", id: `${part.id}-filter`, placeholder: "adam dropout=0.2",
    input: () => { part.text = search.value; filter(); } });
  const choice = make("select", { id: `${part.id}-state`, change: () => { part.state = choice.value; filter(); } },
    make("option", { value: "" }, "all"),
    [...new Set(rows.map(({ trial }) => trial.state))].map((state) => make("option", { value: state }, state)));
  const clear = make("button", { type: "button", click: () => {
    Object.assign(part, { text: "", state: "", picked: null });
    search.value = choice.value = "";
    filter();
    redraw((about) => about.part === part && picksTrials(about.block));
  } }, "Show all");
  search.value = part.text;
  choice.value = part.state;
  part.pick = (numbers) => { part.picked = numbers; filter(); };
  part.open = (number) => open(block, block.trials.find((trial) => trial.number === number), part);
  order();
  filter();
  return make("div", { class: "trials" }, block.legend ? make("p", { class: "note" }, block.legend) : null,
    make("div", { class: "filters" }, make("label", {}, "Keep rows with all these words", search),
      make("label", {}, "State", choice), clear, make("button", { type: "button", click: () => saveCsv({ title: "Trials",
        columns: block.columns, rows: rows.filter(({ row }) => !row.hidden).map(({ cells }) => cells) }) }, "Save as CSV")), count,
    scroll("Trials", make("table", {}, make("thead", {}, make("tr", {}, heads)), body)));
}

function open(block, trial, part) {
  const own = { id: `${part.id}-trial` };
  const facts = [...block.goals.map((name, at) => ({ label: name, value: trial.values[at] })),
    { label: "epochs", value: trial.epochs }, { label: "seconds", value: trial.seconds },
    { label: "parameters", value: trial.parameters }, { label: "multiply-accumulates", value: trial.macs }];
  const curve = (name, colour) => ({ type: "scatter", mode: "lines+markers", name: name.replace("_", " "),
    x: trial.curves.epoch, y: trial.curves[name], line: { color: colour }, marker: { size: 4 } });
  const chart = (title, names) => ({ title, columns: ["epoch", ...names],
    summary: `${title} of trial ${trial.number} by epoch.`, rows: trial.curves.epoch.map((epoch, at) =>
      [epoch, ...names.map((name) => trial.curves[name][at])]),
    traces: names.map((name, at) => curve(name, at ? "@accent" : "@muted")),
    layout: { height: 240, showlegend: true, xaxis: { title: { text: "epoch" } } } });
  const pairs = [["Accuracy", ["train_accuracy", "val_accuracy"]], ["Loss", ["train_loss", "val_loss"]]]
    .map(([title, names]) => [title, names.filter((name) => trial.curves[name])]).filter(([, names]) => names.length);
  dialog.replaceChildren(
    make("div", { class: "head" }, make("h2", { id: "trial-title", tabindex: "-1" }, `Trial ${trial.number} `,
      make("span", { class: `state ${trial.state}` }, trial.state)),
    make("button", { type: "button", click: () => dialog.close() }, "Close")),
    blocks.facts({ items: facts }),
    trial.reason ? make("pre", {}, trial.reason) : "",
    pairs.length ? make("div", { class: "charts" }, pairs.map(([title, names]) => blocks.chart(chart(title, names), own)))
      : make("p", { class: "note" }, "No epoch was finished."),
    trial.changes.length ? table(block.against, ["key", block.before, "this trial"], trial.changes)
      : make("p", { class: "note" }, trial.same),
    trial.command ? blocks.command({ text: trial.command }) : "",
    make("p", { class: "note" }, `${trial.folder}, slot ${trial.slot || "unknown"}, attempt ${trial.attempts}`));
  dialog.showModal();
  byId("trial-title").focus();
}
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
