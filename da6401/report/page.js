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
    make(section.below, {}, item.title), make("img", { src: item.source, alt: `${item.title}. ${item.caption}`, loading: "lazy" }),
    make("figcaption", {}, item.caption)))),

  chart: (block, part, section) => {
    const plot = make("div", { class: "plot", role: "img", "aria-label": `${block.title}: ${block.summary}` });
    plot.style.minHeight = `${heightOf(block)}px`;
    if (block.layout.width) plot.style.minWidth = `${block.layout.width}px`;
    plots.set(plot, { block, part, view: null });
    watcher.observe(plot);
    return make("figure", {}, section?.title === block.title ? null : make(section?.below ?? "h3", {}, block.title),
      make("figcaption", {}, block.summary), block.views ? views(plot, block.views) : null,
      block.layout.width ? scroll(block.title, plot) : plot, folded(section ?? part, `Data: ${block.title}`, block));
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
      make("label", {}, "State", choice), clear), count,
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

// ---- charts: drawn when they come into view -----------------------------------------------------------------------

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
}, { rootMargin: "300px" });

async function unpack(id) {
  const packed = Uint8Array.from(atob(byId(id).textContent), (character) => character.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

const library = (async () => {
  const code = make("script", {});
  code.textContent = await unpack("plotly");
  document.head.append(code);
})();

const cssColour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
const SCALES = { "@heat": ["panel", "heat"], "@time": ["shade1", "shade5"], "@change": ["failed", "panel", "accent"] };
const coloured = (value) => {
  if (Array.isArray(value) || typeof value !== "string" || !value.startsWith("@")) return value;
  const scale = SCALES[value];
  return scale ? scale.map((name, at) => [at / (scale.length - 1), cssColour(name)]) : cssColour(value.slice(1));
};
function themed(node) {
  if (Array.isArray(node)) return typeof node[0] === "object" ? node.map(themed) : node;
  if (node === null || typeof node !== "object") return node;
  return Object.fromEntries(Object.entries(node).map(([key, value]) =>
    [key, /color(scale)?$/.test(key) ? coloured(value) : themed(value)]));
}

const heightOf = (block) => block.layout.height ?? 380;  // px
const picksTrials = (block) => block.layout.dragmode === "select";  // the parallel coordinates

function layoutOf(block, width) {
  const ink = cssColour("ink"), grid = { gridcolor: cssColour("rule"), zerolinecolor: cssColour("muted"),
    linecolor: cssColour("rule"), zeroline: false, automargin: true, ticks: "" };
  const own = themed(block.layout);
  return { showlegend: false, hovermode: "closest", selections: [], ...own,
    dragmode: matchMedia("(pointer: coarse)").matches ? false : own.dragmode ?? "zoom",  // a finger scrolls the page
    width, autosize: !width, height: heightOf(block),
    font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: ink },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 52, r: 14, t: 30, b: 44, ...own.margin },
    legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom" },
    hoverlabel: { bgcolor: cssColour("panel"), bordercolor: cssColour("muted"), font: { color: ink } },
    xaxis: { ...grid, ...own.xaxis }, yaxis: { ...grid, ...own.yaxis } };
}

// The trials that are picked stand out, the others fade.
function picked(traces, numbers) {
  const only = (trace) => {
    const y = trace.y.map((value, at) => (numbers.has(trace.customdata[at]) ? value : null));
    return { ...trace, y, line: { ...trace.line, color: cssColour("accent") } };
  };
  return [...traces.map((trace) => ({ ...trace, opacity: 0.08, hoverinfo: "skip", hovertemplate: null })), ...traces.map(only)];
}

async function draw(plot, width) {
  await library;
  if (!plots.has(plot)) return;
  const { block, part, view } = plots.get(plot);
  let traces = themed(block.traces);
  const layout = layoutOf(block, width);
  if (view) {
    traces = traces.map((trace, at) => ({ ...trace, x: view.x[at] }));
    layout.xaxis.title = { text: view.name };
  }
  const numbers = picksTrials(block) && part.picked;
  if (numbers) traces = picked(traces, numbers);
  Plotly.react(plot, traces, layout, { displayModeBar: false, responsive: true, showTips: false });
  if (plot.dataset.drawn) return;
  plot.dataset.drawn = "yes";
  plot.on("plotly_click", ({ points }) => {
    if (Number.isInteger(points[0].customdata) && part.open) part.open(points[0].customdata);
  });
  plot.on("plotly_selected", (event) => {
    if (!picksTrials(block) || !event?.points.length) return;  // drawing anew selects nothing, too
    part.pick(new Set(event.points.map((point) => point.customdata)));
    setTimeout(() => draw(plot));
  });
}

function redraw(wanted) {
  for (const [plot, about] of plots) {
    if (!plot.isConnected) plots.delete(plot);
    else if (plot.dataset.drawn && wanted(about)) draw(plot);
  }
}

// ---- the page -----------------------------------------------------------------------------------------------------

let outlined = "";       // the parts and sections that are on the page
const made = new Map();  // a section's id -> its data as text, and its element

function render(report) {
  byId("made").textContent = report.made;
  const focus = document.activeElement?.id, place = window.scrollY, links = [], shown = [];
  const outline = JSON.stringify(report.parts.map((part) => [part.id, part.title, part.sections.map(({ id }) => id)]));
  for (const part of report.parts) {
    const own = (parts[part.id] ??= { id: part.id, text: "", state: "", column: 0, descending: false, picked: null });
    const [level, below] = part.title ? ["h3", "h4"] : ["h2", "h3"];
    const sections = part.sections.map((section) => {
      const id = `${part.id}-${section.id}`, text = JSON.stringify(section);
      if (made.get(id)?.text === text) return made.get(id).node;
      const within = { id, title: section.title, below };
      const node = make("section", { class: "block", id }, make(level, {}, section.title),
        section.blocks.map((block) => blocks[block.kind](block, own, within)));
      if (outline === outlined) made.get(id).node.replaceWith(node);  // what is unchanged stays where it is
      made.set(id, { text, node });
      return node;
    });
    shown.push([part.id, part.title ? make("h2", {}, part.title) : null, sections]);
    links.push(make("ul", {}, part.title ? make("li", {}, make("strong", {}, part.title)) : null,
      part.sections.map((section) => make("li", {}, make("a", { href: `#${part.id}-${section.id}` }, section.title)))));
  }
  if (outline !== outlined) {
    root.classList.toggle("alone", report.parts.flatMap((part) => part.sections).length === 1);
    main.replaceChildren(...shown.map(([part, title, sections]) => make("div", { class: "part", id: part }, title, sections)));
    byId("contents").replaceChildren(...links);
    outlined = outline;
  }
  if (focus && byId(focus) !== document.activeElement) byId(focus)?.focus({ preventScroll: true });
  window.scrollTo({ top: place, behavior: "instant" });
}

function setTheme(theme) {
  root.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  redraw(() => true);
}
const dark = matchMedia("(prefers-color-scheme: dark)");
setTheme(dark.matches ? "dark" : "light");
dark.addEventListener("change", () => setTheme(dark.matches ? "dark" : "light"));
byId("theme").addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));

let themeBefore = null;
addEventListener("beforeprint", () => {
  themeBefore = root.dataset.theme;
  root.dataset.theme = "light";
  for (const plot of plots.keys()) if (plot.isConnected) draw(plot, plot.closest(".charts") ? 330 : 680);
});
addEventListener("afterprint", () => setTheme(themeBefore));

async function follow() {
  let stamp = null;
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 2000));
    try {
      const answer = await fetch("data.json", { headers: stamp ? { "If-None-Match": stamp } : {}, cache: "no-store" });
      byId("news").textContent = answer.ok || answer.status === 304 ? "" : "The report could not be refreshed.";
      if (answer.ok) {
        stamp = answer.headers.get("ETag");
        render(await answer.json());
      }
    } catch {
      byId("news").textContent = "da6401 report --watch has ended: this is its last page.";
    }
  }
}

(async () => {
  render(root.dataset.packed === "yes" ? JSON.parse(await unpack("data")) : read("data"));
  performance.mark("rendered");
  if (root.dataset.live === "yes") follow();
})();
