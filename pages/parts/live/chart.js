// Follows one figure of one run: asks for it, redraws in place, keeps zoom, hover and hidden curves.

// milliseconds
const FIRST = 100; // between two questions of a new run's first moments
const MOMENTS = 2000; // in which it has its first points
const LATE = 400; // the first figure is: say that it comes
const charts = new WeakMap();

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
  return follow(me, turn);
}

async function turn(me) {
  me.took = 0;
  if (!document.hidden && near(me.plot)) {
    await ask(me).catch(() => write(me.words, UNANSWERED));
  }
  const alive = ALIVE.has(me.status);
  const early = !me.failed && (!me.updates || (alive && performance.now() - me.since < MOMENTS));
  return Math.max(early ? FIRST : alive ? NEXT : QUIET, Math.min(2 * me.took, SLOW));
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
