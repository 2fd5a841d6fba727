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
    xaxis: { ...grid, ...own.xaxis }, yaxis: { ...grid, ...own.yaxis, title: { standoff: 8, ...own.yaxis?.title } } };
}

// The trials that are picked stand out, the others fade.
function picked(traces, numbers) {
  const only = (trace) => {
    const y = trace.y.map((value, at) => (numbers.has(trace.customdata[at]) ? value : null));
    return { ...trace, y, line: { ...trace.line, color: cssColour("accent") } };
  };
  return [...traces.map((trace) => ({ ...trace, opacity: 0.08, hoverinfo: "skip", hovertemplate: null })), ...traces.map(only)];
}

// What Plotly draws: with the reader's colours, view and picked trials.
function figureOf(plot, width) {
  const { block, part, view } = plots.get(plot), layout = layoutOf(block, width);
  let traces = themed(block.traces);
  if (view) {
    traces = traces.map((trace, at) => ({ ...trace, x: view.x[at] }));
    layout.xaxis.title = { text: view.name };
  }
  const numbers = picksTrials(block) && part.picked;
  return { traces: numbers ? picked(traces, numbers) : traces, layout };
}

async function draw(plot, width) {
  await library;
  if (!plots.has(plot)) return;
  const { block, part } = plots.get(plot), { traces, layout } = figureOf(plot, width);
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

// ---- a chart as a file ----------------------------------------------------------------------------------------------

const EXPORT = { width: 900, scale: 2 };  // px, and pixels of a PNG for one of them

function exports(plot, block) {
  const button = (kind, title, click) =>
    make("button", { type: "button", title, "aria-label": `${title}: ${block.title}`, click }, kind);
  return make("div", { class: "exports", role: "group", "aria-label": `Save ${block.title}` },
    button("PNG", "Save as a PNG picture", () => saveImage(plot, "png")),
    button("SVG", "Save as an SVG drawing", () => saveImage(plot, "svg")),
    button("CSV", "Save the data as CSV", () => saveCsv(block)));
}

const fileName = (title) => `${document.title} ${title}`.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").toLowerCase();

async function saveImage(plot, format) {
  await library;
  const { block } = plots.get(plot), { traces, layout } = figureOf(plot, Math.max(EXPORT.width, block.layout.width ?? 0));
  const text = block.title.replace(/[&<>]/g, (character) => `&#${character.charCodeAt(0)};`);  // Plotly reads a little HTML
  const whole = { ...layout, title: { text, font: { size: 17 }, x: 0.02, xanchor: "left" }, paper_bgcolor: cssColour("page"),
    height: heightOf(block) + 40, margin: { ...layout.margin, t: layout.margin.t + 50 } };
  return Plotly.downloadImage({ data: traces, layout: whole },
    { format, width: whole.width, height: whole.height, scale: format === "png" ? EXPORT.scale : 1, filename: fileName(block.title) });
}

// As RFC 4180 has it. A text that a spreadsheet would take for a formula begins with an apostrophe.
function csvOf({ columns, rows }) {
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    const text = isNumber(value) ? String(value) : show(value?.text ?? value).replace(/^[=+@\t\r-]/, "'$&");
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function saveCsv(block) {
  const href = URL.createObjectURL(new Blob(["\ufeff", csvOf(block)], { type: "text/csv" }));
  make("a", { href, download: `${fileName(block.title)}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}
