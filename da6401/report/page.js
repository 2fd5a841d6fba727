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

const PRINTED = { whole: 690, half: 330 };  // px of a chart on a page of A4
let themeBefore = null;
addEventListener("beforeprint", () => {
  themeBefore = root.dataset.theme;
  root.dataset.theme = "light";
  for (const [plot, { block }] of plots) {
    if (!plot.isConnected) continue;
    const room = plot.closest(".charts") ? PRINTED.half : PRINTED.whole, width = Math.max(room, block.layout.width ?? 0);
    plot.style.zoom = room / width;
    draw(plot, width);
  }
});
addEventListener("afterprint", () => {
  for (const plot of plots.keys()) plot.style.zoom = "";
  setTheme(themeBefore);
});

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
