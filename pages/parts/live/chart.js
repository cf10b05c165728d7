// Follows one figure of one run: asks for it, redraws in place, keeps zoom, hover and hidden curves.

// milliseconds between two questions: in the first moments, run alive, run at rest, server slow at most
const FIRST = 100;
const NEXT = 250;
const QUIET = 1500;
const SLOW = 2000;
const LATE = 400; // the first figure is: say that it comes
const MOMENTS = 2000; // in which a new run has its first points
const ALIVE = new Set(["queued", "running"]);
const ASKED = 60_000; // an iPhone asks first whether to download a picture, which must still be there then
const SCALE = 2; // points of a downloaded picture for one of the page
const ICON = "#8a8f98"; // of the toolbar: 3 to 1 on white and on dark
const HEIGHT = 420; // pixels of a chart that asks for no other
// a finger scrolls the page, also over a chart, until a button of the toolbar gives it to the chart
const FINGER = matchMedia("(hover: none) and (pointer: coarse)");
// in full screen: pixels above and below a chart, and the least share of its usual height
const AROUND = 64;
const SQUEEZED = 0.7;
const CORNERS = { width: 24, height: 24, path: "M5 14H3v7h7v-2H5zM3 10h2V5h5V3H3zm16 9h-5v2h7v-7h-2zM14 3v2h5v5h2V3z" };
const charts = new WeakMap();
// address -> by axis or scene, what the visitor zoomed or turned: a chart that comes back has it again
const zooms = new Map();
const hidden = new Map(); // address -> the legend's entries that the visitor hid, likewise
const entry = (line) => line.legendgroup || line.name;

// plotly's build of flat charts, a third of the bytes, draws these; the whole of it is loaded by the first figure
// with others
const FLAT = "api/plotly-cartesian.min.js?v=PLOTLY_VERSION";
const WHOLE = "api/plotly.min.js?v=PLOTLY_VERSION";
const DRAWN_FLAT = new Set(["bar", "contour", "heatmap", "scatter"]);
// an empty figure is drawn by what drew the last one
const build = (figure, now = FLAT) =>
  figure.data.length ? (figure.data.every((trace) => DRAWN_FLAT.has(trace.type)) ? FLAT : WHOLE) : now;
const UNDRAWABLE = "This browser has no WebGL, with which 3-D surfaces are drawn. Choose contours.";
let webgl; // whether it has, once it is asked
const drawable = (figure) =>
  build(figure) === FLAT || (webgl ??= !!document.createElement("canvas").getContext("webgl"));

const builds = (window.plotlyBuilds ??= new Map()); // address -> that build, loaded once per page
const loading = (address) =>
  new Promise((done, fail) => {
    const script = Object.assign(document.createElement("script"), { src: address });
    script.onload = () => done(window.Plotly); // of this build: nothing runs between a script and its onload
    script.onerror = (error) => (builds.delete(address), fail(error));
    document.head.appendChild(script);
  });
const load = (address) => {
  if (!builds.has(address)) builds.set(address, loading(address));
  return builds.get(address);
};
load(FLAT).catch(() => {}); // begins before the first figure is asked for

export default function ({ data, parentElement, setTriggerValue }) {
  let me = charts.get(parentElement);
  if (!me) {
    me = {
      plot: document.createElement("div"),
      note: document.createElement("p"),
      words: document.createElement("p"),
      told: document.createElement("details"),
      updates: 0,
      legend: 0,
    };
    me.plot.className = "live-plot";
    me.note.className = "live-note";
    me.words.className = "live-words";
    me.words.setAttribute("role", "status");
    me.root = parentElement.appendChild(document.createElement("div"));
    me.root.className = "live-chart";
    Object.assign(me.told, { className: "live-told", hidden: true });
    me.told.append(document.createElement("summary"), document.createElement("ul"));
    me.root.append(me.plot, me.note, me.told, me.words);
    me.root.addEventListener("fullscreenchange", () => (me.wake = true));
    me.plot.addEventListener("touchstart", (event) => leave(me, event), true);
    me.plot.addEventListener("click", (event) => release(me, event), true);
    charts.set(parentElement, me);
  }
  Object.assign(me.plot, { role: "group", ariaLabel: data.label });
  me.root.dataset.title = data.title;
  write(me.told.firstChild, `${data.title} in numbers`);
  me.tell = () => setTriggerValue("deleted", true);
  const asked = JSON.stringify(data);
  if (me.asked !== asked) Object.assign(me, { asked, data, seen: "", wake: true, since: performance.now() });
  const call = (me.call = {}); // Streamlit may end a call after the next has begun, which goes on then
  if (!me.alive) {
    me.alive = true;
    follow(me);
  }
  return () => {
    if (me.call === call) me.alive = false;
  };
}

async function follow(me) {
  while (me.alive) {
    me.wake = false;
    me.took = 0;
    if (!document.hidden && near(me.plot)) {
      await ask(me).catch(() => write(me.words, "The server does not answer. Trying again."));
    }
    // a slow server is asked less often: it spends at most a third of its time on one watcher
    const alive = ALIVE.has(me.status);
    const early = !me.failed && (!me.updates || (alive && performance.now() - me.since < MOMENTS));
    const pause = Math.max(early ? FIRST : alive ? NEXT : QUIET, Math.min(2 * me.took, SLOW));
    for (let slept = 0; slept < pause && !me.wake && me.alive; slept += 50) await new Promise((r) => setTimeout(r, 50));
  }
}

// in the window or a window's height away: what nobody can see costs nothing
function near(element) {
  const { top, bottom } = element.getBoundingClientRect();
  return bottom > -innerHeight && top < 2 * innerHeight;
}

async function ask(me) {
  const asked = me.asked;
  const { address, query } = me.data;
  const began = performance.now();
  const late = setTimeout(() => me.figure || say(me, "The chart is on its way."), LATE);
  const answer = await fetch(`${address}?${query}${query && "&"}seen=${me.seen}`).finally(() => clearTimeout(late));
  me.took = performance.now() - began;
  me.status = answer.headers.get("x-status");
  me.failed = answer.status >= 400;
  if (asked !== me.asked) return; // the visitor has chosen something else meanwhile
  if (answer.status === 200) {
    let figure = await answer.json();
    if (!drawable(figure)) figure = { data: [], layout: { height: figure.layout.height, meta: { said: UNDRAWABLE } } };
    await load(build(figure, me.build));
    if (asked !== me.asked || me.plot._dragging) return; // a redraw would take the zoom box from under the mouse
    me.seen = answer.headers.get("x-version");
    me.figure = figure;
    await draw(me);
    say(me, figure.layout.meta?.said);
  } else if (answer.status === 204) {
    const same = me.look === look(me.plot).text && me.width === me.plot.clientWidth && me.screen === screenful(me);
    if (me.figure && !same) await draw(me); // the theme or the window has changed
    say(me, me.figure?.layout.meta?.said);
  } else {
    write(me.words, await answer.text());
    if (answer.status !== 404 || me.deleted === address || document.querySelector(".board")) return; // a board tells it
    me.deleted = address; // rerun the page, once: the run was deleted in another tab
    me.tell();
  }
}

// a figure that only says why it is empty says it in the page's own words, which wrap and are read aloud, in its place
function say(me, said = "") {
  me.plot.classList.toggle("live-empty", !!said);
  write(me.words, said);
}

// Firefox puts no quotes where Chromium does, and plotly's pictures count on them
const bare = (name) => name.replaceAll(/["']/g, "");

const look = (element) => {
  const css = getComputedStyle(element);
  const color = (name, other) => css.getPropertyValue(name).trim() || other;
  return {
    text: color("--st-text-color", "#333"),
    line: color("--st-border-color", "#ccc"),
    font: bare(color("--st-font", "sans-serif")),
    back: color("--st-background-color", "#fff"),
    raised: color("--st-secondary-background-color", "#eee"),
  };
};

const screenful = (me) => (document.fullscreenElement === me.root ? innerHeight : 0); // pixels
const narrow = (element) => element.clientWidth < 560; // pixels, too few for panels side by side

async function draw(me, again = false) {
  const address = me.data.address; // the visitor may choose another run while this is drawn
  const { layout } = me.figure;
  const c = look(me.plot);
  const away = hidden.get(address);
  const data = me.figure.data.map((line) => ({ ...line, ...(away?.has(entry(line)) && { visible: "legendonly" }) }));
  const axis = { gridcolor: c.line, linecolor: c.line, zerolinecolor: c.line, tickcolor: c.line, automargin: true };
  const own = layout.template?.layout ?? {};
  const theme = {
    ...own,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: c.back, // names in hover lie on it
    font: { ...own.font, color: c.text, family: c.font },
    hoverlabel: { ...own.hoverlabel, bgcolor: c.raised, bordercolor: c.line, font: { color: c.text, family: c.font } },
    xaxis: { ...own.xaxis, ...axis },
    yaxis: { ...own.yaxis, ...axis },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: ICON, activecolor: c.text },
  };
  const usual = layout.height ?? HEIGHT;
  me.screen = screenful(me);
  me.narrow = narrow(me.plot);
  const which = build(me.figure, me.build);
  const shown = {
    ...layout,
    template: { ...layout.template, layout: theme },
    autosize: true,
    ...(FINGER.matches && which === FLAT && { dragmode: false }), // what is 3-D is turned
    height: me.screen ? SQUEEZED * usual : usual,
    uirevision: layout.uirevision ?? address,
    legend: { ...layout.legend, uirevision: me.updates }, // plotly's own memory counts lines
  };
  if (me.narrow) {
    Object.assign(shown, stacked(layout, usual), { margin: { ...layout.margin, l: 48, r: 8 } });
    shown.legend.maxheight = 1; // the whole of it is seen, and takes nothing from the curves
    shown.height += me.legend;
  }
  if (me.screen) shown.height = Math.max(shown.height, me.screen - AROUND - me.note.offsetHeight);
  // said outright: plotly keeps a given range's "no"
  for (const name of Object.keys(shown).filter((name) => /^[xy]axis/.test(name))) {
    shown[name] = { ...shown[name], autorange: shown[name].autorange ?? !shown[name].range };
  }
  const plotly = await load(which);
  const anew = me.build !== which;
  const config = (me.config ??= configured(me, plotly));
  if (anew && me.build) (await load(me.build)).purge(me.plot); // one build cannot redraw what the other has drawn
  await plotly.react(me.plot, data, anew ? shown : zoomed(address, shown), config);
  Object.assign(me, { build: which, drawn: address });
  if (anew) {
    // at first without a zoom, so that a double-click finds the figure's own ranges
    me.plot.on("plotly_relayout", (changed) => {
      remember(me, changed);
      label(me);
    });
    me.plot.on("plotly_restyle", () => hide(me));
    me.plot.on("plotly_afterplot", () => label(me));
    if (zooms.has(address)) await plotly.react(me.plot, data, zoomed(address, shown), config);
  }
  // a legend of fewer rows is placed by the old margin at first
  if (me.width && me.width !== me.plot.clientWidth) await plotly.redraw(me.plot);
  me.width = me.plot.clientWidth;
  const { margin, legend } = me.plot._fullLayout;
  const beyond = Math.max(0, (legend?._height ?? 0) - margin.t); // pixels
  if (me.narrow && beyond !== me.legend && !again) return draw(Object.assign(me, { legend: beyond }), true);
  label(me);
  keepHover(me);
  me.look = c.text;
  me.plot.style.minHeight = `${shown.height}px`; // the page does not jump while another figure is on its way
  write(me.note, layout.meta?.note ?? "");
  tell(me, layout.meta?.told ?? []);
  Object.assign(me.plot.dataset, { updates: ++me.updates, version: me.seen, address }); // for browser tests
}

// A finger that is the page's: plotly, which hears of it as well as of the mouse that follows, would take a tap for two
function leave({ plot }, event) {
  if (plot._fullLayout?.dragmode === false && event.target.closest(".draglayer")) event.stopPropagation();
}

// A button that gave the finger to the chart gives it back when it is pressed again
async function release({ build, plot }, event) {
  if (!FINGER.matches || build !== FLAT || !event.target.closest(".modebar-btn.active[data-attr=dragmode]")) return;
  event.stopPropagation();
  (await load(build)).relayout(plot, { dragmode: false });
}

// Once a chart, as plotly begins anew where a button is another
function configured(me, { Icons }) {
  const add = [{ name: "picture", title: "Download as a picture", icon: Icons.camera, click: () => photograph(me) }];
  const turn = () => (screenful(me) ? document.exitFullscreen() : me.root.requestFullscreen());
  if (document.fullscreenEnabled) add.push({ name: "screen", title: "Full screen", icon: CORNERS, click: turn });
  return {
    responsive: true,
    displaylogo: false,
    showTips: !FINGER.matches,
    showSendToCloud: false,
    modeBarButtonsToAdd: add,
    modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d"],
  };
}

// The chart as it stands, below its title and its run's name and on the theme's background: for a slide
async function photograph(me) {
  const { data, layout } = structuredClone({ data: me.plot.data, layout: me.plot.layout });
  const { title, run, address } = me.data;
  const { width, height, _size } = me.plot._fullLayout;
  const c = look(me.plot);
  const plotly = await load(me.build);
  // letters are about half as wide as high
  const wrapped = (text, size) => {
    const most = Math.floor((width - 32) / (size / 2));
    const lines = text.match(new RegExp(`.{1,${most}}(?= |$)|.{1,${most}}`, "gu"));
    return (lines ?? []).map((line) => line.trim().replace(/[&<>%]/g, (letter) => `&#${letter.charCodeAt()};`));
  };
  const bold = wrapped(title, 17);
  const small = wrapped(run, 13);
  const room = 24 + 22 * (bold.length + small.length);
  const text = `<b>${bold.join("<br>")}</b><br><span style="font-size: 13px">${small.join("<br>")}</span>`;
  const how = { format: "svg", width, height: height + room, scale: SCALE, imageDataOnly: true };
  Object.assign(layout, {
    paper_bgcolor: c.back,
    margin: { ...layout.margin, t: _size.t + room },
    title: { text, font: { size: 17 }, x: 16 / width, xanchor: "left", y: 1 - 24 / how.height, yanchor: "top" },
  });
  const drawn = await plotly.toImage({ data, layout }, how);
  const image = new Image();
  const canvas = document.createElement("canvas");
  const outlined = `.shapelayer text { paint-order: stroke; stroke: ${c.back}; stroke-width: 4px }`;
  const style = `${await font(c.font).catch(() => "")} ${outlined}`;
  image.src = `data:image/svg+xml,${encodeURIComponent(drawn.replace(">", `><style>${style}</style>`))}`;
  await image.decode();
  Object.assign(canvas, { width: SCALE * width, height: SCALE * how.height });
  canvas.getContext("2d").drawImage(image, 0, 0);
  const href = URL.createObjectURL(await new Promise((done) => canvas.toBlob(done)));
  const name = `${run} ${address.split("/").pop()}`.match(/[\p{L}\p{N}]+/gu).join("-");
  Object.assign(document.createElement("a"), { href, download: `${name}.png` }).click();
  setTimeout(() => URL.revokeObjectURL(href), ASKED);
}

// The page's font as a picture needs it, which sees nothing outside itself
async function font(names) {
  const ours = (sheet) => !sheet.href || new URL(sheet.href).origin === location.origin;
  const rules = [...document.styleSheets].filter(ours).flatMap((sheet) => [...sheet.cssRules]);
  const upright = ({ style }) => names.startsWith(bare(style.fontFamily)) && style.fontStyle !== "italic";
  const face = rules.find((rule) => rule instanceof CSSFontFaceRule && upright(rule));
  const [, address] = face.style.src.match(/url\("?(.*?)"?\)/);
  const reader = new FileReader();
  reader.readAsDataURL(await (await fetch(new URL(address, face.parentStyleSheet.href))).blob());
  await new Promise((done) => (reader.onload = done));
  return face.cssText.replace(/url\(.*?\)/, `url(${reader.result})`);
}

// Panels that stand side by side, one below the other instead: row by row where each has its title, else column by
// column, whose panels share their steps. {} where there is one column only.
function stacked(layout, height) {
  const names = Object.keys(layout).filter((name) => /^([xy]axis|scene)/.test(name));
  const box = (name, way) => layout[name]?.domain?.[way] ?? layout[name]?.domain ?? [0, 1]; // a scene's has both ways
  const first = (numbers) => [...new Set(numbers)].sort((a, b) => a - b);
  const columns = first(names.filter((name) => name[0] !== "y").map((name) => box(name, "x")[0]));
  const n = columns.length;
  if (n < 2) return {};
  const titles = layout.annotations?.filter((words) => words.yref === "paper" && words.xref === "paper") ?? [];
  const single = new Set(titles.map((words) => words.y)).size > 1;
  const upright = names.filter((name) => name[0] !== "x");
  const bottoms = single ? first(upright.map((name) => box(name, "y")[0])) : [0];
  const m = bottoms.length;
  const tops = single ? first(upright.map((name) => box(name, "y")[1])) : [1];
  const place = (list, value) => Math.max(0, list.findLastIndex((start) => start <= value + 1e-6));
  const cells = single ? titles.length : n * m;
  const found = { height: (height * cells) / m };
  const gap = (titles.length ? 115 : 85) / found.height;
  const size = (1 - gap * (cells - 1)) / cells;
  const moved = (y, x) => {
    const row = place(bottoms, y);
    const before = (m - 1 - row) * n + place(columns, x);
    return 1 - before * (size + gap) - size * (1 - (y - bottoms[row]) / (tops[row] - bottoms[row]));
  };
  const titled = (name, way) => {
    const others = names.filter((other) => other[0] === name[0] && layout[other].title?.text);
    const beside = others.find((other) => way === "x" || box(other, "y")[0] === box(name, "y")[0]);
    return layout[name].title ?? layout[beside]?.title;
  };
  for (const name of names) {
    const panel = layout[name];
    const x = [0, 1];
    const under = name[0] === "y" ? `xaxis${(panel.anchor ?? "x").slice(1)}` : name;
    const y = box(name, "y").map((y) => moved(y, box(under, "x")[0]));
    if (name[0] === "x") {
      found[name] = { ...panel, domain: x, ...(single && { showticklabels: true, title: titled(name, "x") }) };
    } else if (name[0] === "y") {
      found[name] = { ...panel, showticklabels: true, domain: y, title: titled(name, "y") };
    } else {
      found[name] = { ...panel, domain: { x, y } };
    }
  }
  found.annotations = layout.annotations?.map((words) =>
    titles.includes(words) ? { ...words, x: 0.5, y: moved(words.y, words.x) } : words,
  );
  if (layout.coloraxis) {
    const bar = layout.coloraxis.colorbar;
    const below = { orientation: "h", x: 0.5, y: -75 / found.height, yanchor: "top", thickness: 14 }; // takes no width
    found.coloraxis = { ...layout.coloraxis, colorbar: { ...bar, ...below, title: { ...bar?.title, side: "top" } } };
  }
  return found;
}

// What is read aloud of a chart: whose toolbar it is, and the legend's entries as buttons; ticks and marks are not. Of
// each bar one button is reached by Tab, the others from there (keyboard.js). plotly keeps what is set here
function label({ plot, data }) {
  const drawing = ".main-svg:not(:has(> .infolayer)), .main-svg > :not(.infolayer), .infolayer > :not(.legend)";
  for (const part of plot.querySelectorAll(`${drawing}, .gl-container, .modebar svg`)) part.ariaHidden = "true";
  plot.querySelector(".main-svg:has(> .infolayer)").role = "none"; // of an image some readers read nothing but its name
  for (const entry of plot.querySelectorAll(".legend .traces")) {
    Object.assign(entry, { role: "button", ariaPressed: String(entry.style.opacity === "1") });
  }
  for (const mode of plot.querySelectorAll(".modebar-btn[data-attr=dragmode]")) {
    mode.ariaPressed = String(mode.classList.contains("active"));
  }
  const bars = { ".modebar": data.title, ".legend": `${data.title}: legend` };
  for (const [at, words] of Object.entries(bars)) {
    const bar = plot.querySelector(at);
    const buttons = [...(bar?.querySelectorAll("button, [role=button]") ?? [])];
    if (bar) Object.assign(bar, { role: "toolbar", ariaLabel: words });
    const first = buttons.find((button) => button.getAttribute("tabindex") === "0") ?? buttons[0];
    for (const button of buttons) button.tabIndex = button === first ? 0 : -1;
  }
}

function remember(me, changed) {
  const zoom = { ...zooms.get(me.drawn) };
  const { layout, _fullLayout } = me.plot;
  const names = Object.keys(changed).map((key) => key.match(/^([xy]axis|scene)\d*(?=\.)/)?.[0]);
  for (const name of new Set(names.filter(Boolean))) {
    const { autorange, range, type, camera } = layout[name];
    const { _rangeInitial0, _rangeInitial1 } = _fullLayout[name];
    if (camera) zoom[name] = { camera };
    else if (autorange || (range[0] === _rangeInitial0 && range[1] === _rangeInitial1)) delete zoom[name];
    else zoom[name] = { type, range: [...range], autorange: false };
  }
  zooms.set(me.drawn, zoom);
}

function hide(me) {
  const found = new Set(hidden.get(me.drawn));
  for (const line of me.plot.data) found[line.visible === "legendonly" ? "add" : "delete"](entry(line));
  hidden.set(me.drawn, found);
}

function zoomed(address, shown) {
  const found = { ...shown };
  for (const [name, zoom] of Object.entries(zooms.get(address) ?? {})) {
    const one = (type) => type === "log"; // steps of a linear axis are no powers of a logarithmic one
    if (one(shown[name]?.type) === one(zoom.type)) found[name] = { ...shown[name], ...zoom, type: shown[name]?.type };
  }
  return found;
}

// a redraw takes the hover label away; put it back where the mouse still is
function keepHover(me) {
  if (!me.listening) {
    me.listening = true;
    me.plot.addEventListener("mousemove", (event) => (me.mouse = event), true);
    me.plot.addEventListener("mouseleave", () => (me.mouse = null), true);
  }
  const over = me.mouse?.target;
  if (over?.isConnected && over.matches?.(".nsewdrag")) over.dispatchEvent(new MouseEvent("mousemove", me.mouse));
}

// its curves in sentences, for who cannot see them or has no mouse; each keeps its place while the chart follows
// its run
function tell({ told }, sentences) {
  const list = told.lastChild;
  told.hidden = !sentences.length;
  while (list.children.length > sentences.length) list.lastChild.remove();
  sentences.forEach((sentence, i) => {
    write(list.children[i] ?? list.appendChild(document.createElement("li")), sentence);
  });
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
