// Draws a chart's figure in the page's theme, in place.

const HEIGHT = 420; // pixels of a chart that asks for no other
// in full screen: pixels above and below a chart, and the least share of its usual height
const AROUND = 64;
const SQUEEZED = 0.7;
const ICON = "#8a8f98"; // of the toolbar: 3 to 1 on white and on dark
const CORNERS = { width: 24, height: 24, path: "M5 14H3v7h7v-2H5zM3 10h2V5h5V3H3zm16 9h-5v2h7v-7h-2zM14 3v2h5v5h2V3z" };
// a finger scrolls the page, also over a chart, until a button of the toolbar gives it to the chart
const FINGER = matchMedia("(hover: none) and (pointer: coarse)");

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

// the figure's template in the page's colors and font
function themed(template, c) {
  const own = template?.layout ?? {};
  const axis = { gridcolor: c.line, linecolor: c.line, zerolinecolor: c.line, tickcolor: c.line, automargin: true };
  const layout = {
    ...own,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: c.back, // names in hover lie on it
    font: { ...own.font, color: c.text, family: c.font },
    hoverlabel: { ...own.hoverlabel, bgcolor: c.raised, bordercolor: c.line, font: { color: c.text, family: c.font } },
    xaxis: { ...own.xaxis, ...axis },
    yaxis: { ...own.yaxis, ...axis },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: ICON, activecolor: c.text },
  };
  return { ...template, layout };
}

// the figure's layout for the room there is
function fitted(me, flat) {
  const { layout } = me.figure;
  const usual = layout.height ?? HEIGHT;
  const found = {
    ...layout,
    autosize: true,
    ...(FINGER.matches && flat && { dragmode: false }), // what is 3-D is turned
    height: me.screen ? SQUEEZED * usual : usual,
    uirevision: layout.uirevision ?? me.data.address,
    legend: { ...layout.legend, uirevision: me.updates }, // plotly's own memory counts lines
  };
  if (me.narrow) {
    Object.assign(found, stacked(layout, usual), { margin: { ...layout.margin, l: 48, r: 8 } });
    found.legend.maxheight = 1; // the whole of it is seen, and takes nothing from the curves
    found.height += me.legend;
  }
  if (me.screen) found.height = Math.max(found.height, me.screen - AROUND - me.note.offsetHeight);
  // said outright: plotly keeps a given range's "no"
  for (const name of Object.keys(found).filter((name) => /^[xy]axis/.test(name))) {
    found[name] = { ...found[name], autorange: found[name].autorange ?? !found[name].range };
  }
  return found;
}

async function draw(me, again = false) {
  const address = me.data.address; // the visitor may choose another run while this is drawn
  const { layout } = me.figure;
  const c = look(me.plot);
  const which = build(me.figure, me.build);
  const anew = me.build !== which;
  me.screen = screenful(me);
  me.narrow = narrow(me.plot);
  const data = marked(address, me.figure.data);
  const shown = { ...fitted(me, which === FLAT), template: themed(layout.template, c) };
  const plotly = await load(which);
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
  tell(me.told, layout.meta?.told ?? []);
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
  const screen = () => (screenful(me) ? document.exitFullscreen() : me.root.requestFullscreen());
  if (document.fullscreenEnabled) add.push({ name: "screen", title: "Full screen", icon: CORNERS, click: screen });
  return {
    responsive: true,
    displaylogo: false,
    showTips: !FINGER.matches,
    showSendToCloud: false,
    modeBarButtonsToAdd: add,
    modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d"],
  };
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
