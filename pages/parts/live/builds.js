// Which build of plotly draws a figure, loaded when it is needed.

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
