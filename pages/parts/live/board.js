// The run's state in words, its progress, and one card an arm. Texts come formatted; they are only ever set as text.
// as plotly draws them
const DASHES = {
  solid: "none",
  dash: "9 3",
  dot: "3 3",
  dashdot: "9 3 3 3",
  longdash: "14 4",
  longdashdot: "14 3 3 3",
};
const BUSY = 500; // a rerun asked for right after a click could take the click's place
const ANSWERED = 5000; // what the page is told can be lost on the way: it is told again, after ever longer
const boards = new WeakMap();
let touched = -BUSY;
for (const kind of ["pointerdown", "pointerup", "keydown"]) {
  addEventListener(kind, () => (touched = performance.now()), true);
}

// Esc that closes a list or a help text, or leaves a text or a full screen, must not stop the training as well: what is
// open is seen before it closes, and the key goes no further. The help of a button that was just pressed is nothing to
// close: Train, then Esc, stops
const OPEN = "[role=listbox], [role=menu], [data-testid=stPopoverBody]";
const WRITTEN =
  "input:not([type=range], [type=checkbox], [type=radio]), textarea, select, [role=combobox], [contenteditable]";
let spent = false;
let pressed = null;
// where a button stands: what begins a run is another button once that run is shown, and Pause stands where Resume did
const key = (part) => part?.closest("[class*=st-key-]")?.className.match(/st-key-[a-z]+/)[0];
const place = (part) => key(part)?.replace("resume", "pause");
const read = (help) => !pressed || place(document.querySelector(`[aria-describedby="${help.id}"]`)) !== pressed;
const open = () => !!document.querySelector(OPEN) || [...document.querySelectorAll("[role=tooltip]")].some(read);
addEventListener("focusin", () => (pressed = null), true);
addEventListener("click", (event) => (pressed = place(event.target.closest?.("button")) ?? null), true);
addEventListener("keydown", (event) => {
  spent = event.key === "Escape" && (event.target.matches?.(WRITTEN) || !!document.fullscreenElement || open());
}, true);
document.body.addEventListener("keydown", (event) => spent && event.stopPropagation());

const make = (tag, name, text) => {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
};

export default function ({ data, parentElement, setTriggerValue }) {
  let me = boards.get(parentElement);
  if (!me) {
    me = {
      root: make("div", "board"),
      state: make("span"),
      facts: make("span", "board-facts"),
      bar: make("div", "board-bar"),
      done: make("div", "board-done"),
      cards: make("div", "board-cards"),
      told: make("details", "live-told"),
    };
    const line = make("div", "board-line");
    const head = make("h2", "board-state"); // above the cards, whose heads are h3
    me.state.ariaLive = "polite"; // no role of its own, which would leave the heading without a name
    me.state.ariaAtomic = "true";
    me.bar.setAttribute("role", "progressbar");
    me.bar.setAttribute("aria-label", "Steps done");
    me.bar.append(me.done);
    head.append(me.state);
    line.append(head, me.facts);
    me.told.append(make("summary", "", "How to read the cards"), make("ul"));
    me.told.hidden = true;
    me.root.append(line, me.bar, me.cards, me.told);
    parentElement.append(me.root);
    boards.set(parentElement, me);
  }
  if (me.data?.address !== data.address) Object.assign(me, { seen: "", wake: true, answer: null, since: {} });
  if (me.data?.status !== data.status) me.wake = true;
  Object.assign(me, { data, tell: (status) => setTriggerValue("status", status) });
  return follow(me, turn);
}

async function turn(me) {
  const began = performance.now();
  if (!document.hidden) await ask(me).catch(() => complain(me, UNANSWERED));
  const took = performance.now() - began;
  return me.again || Math.max(ALIVE.has(me.status) ? NEXT : QUIET, Math.min(3 * took, SLOW));
}

// in the place of the state, which is asked for anew then
function complain(me, words) {
  me.seen = "";
  write(me.state, words);
}

// to the page a run that waits is one that trains
const alike = (one, other) => one === other || (ALIVE.has(one) && ALIVE.has(other));

async function ask(me) {
  const { address, status } = me.data;
  me.again = 0;
  const answer = await fetch(`${address}?seen=${me.seen}`);
  if (address !== me.data.address) return;
  const deleted = answer.status === 404;
  if (answer.status >= 400) complain(me, await answer.text());
  if (answer.status >= 400 && !deleted) return;
  me.status = deleted ? "deleted" : answer.headers.get("x-status");
  if (answer.status === 200) {
    me.seen = answer.headers.get("x-version");
    show(me, (me.answer = await answer.json()));
  } else if (!deleted && me.held && me.answer) show(me, me.answer);
  const now = performance.now();
  const news = `${address} ${me.status} ${me.seen}`;
  const again = me.news === news;
  if (alike(me.status, status) || (again && now < me.due)) return;
  me.again = Math.max(0, touched + BUSY - now); // too early to tell: look again as soon as it is not
  if (me.again) return;
  me.patience = again ? 2 * me.patience : ANSWERED;
  Object.assign(me, { news, due: now + me.patience });
  me.tell(me.status); // the page's buttons belong to another status: rerun it
}

// While the run trains a verdict stands for some seconds, unless its tone changes: its digits change at every step
function show(me, state) {
  const now = performance.now();
  me.held = false;
  me.root.dataset.run = me.data.address.split("/").pop();
  me.root.dataset.status = state.status;
  me.root.dataset.step = state.step;
  write(me.state, state.words);
  write(me.facts, state.facts.join(" · "));
  const share = state.steps ? (100 * state.made) / state.steps : 100;
  me.done.style.width = `${Math.min(100, share)}%`;
  me.bar.setAttribute("aria-valuenow", Math.round(share));
  while (me.cards.children.length > state.arms.length) me.cards.lastChild.remove();
  state.arms.forEach((arm, i) => {
    const card = me.cards.children[i] ?? me.cards.appendChild(newCard());
    const [head, rows, verdict] = card.children;
    const line = head.querySelector("line");
    line.setAttribute("stroke", arm.color);
    line.setAttribute("stroke-dasharray", DASHES[arm.dash]);
    write(head.lastChild, arm.label);
    while (rows.children.length > arm.rows.length) rows.lastChild.remove();
    arm.rows.forEach(({ name, value, help }, j) => {
      const row = rows.children[j] ?? rows.appendChild(newRow());
      row.title = help;
      write(row.firstChild, name);
      write(row.lastChild, value);
    });
    const fresh = now < me.since[i] + 1000 * state.hold;
    const stands = fresh && verdict.dataset.tone === arm.tone && ALIVE.has(state.status);
    me.held ||= stands;
    if (stands) return;
    me.since[i] = now;
    verdict.dataset.tone = arm.tone;
    verdict.title = arm.verdict_help;
    write(verdict, arm.verdict);
  });
  tell(me.told, state.told);
}

function newCard() {
  const card = make("section", "board-card");
  const head = make("h3", "board-head");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS(svg.namespaceURI, "line");
  svg.setAttribute("viewBox", "0 0 28 6");
  svg.setAttribute("aria-hidden", "true");
  for (const [name, value] of Object.entries({ x1: 0, y1: 3, x2: 28, y2: 3, "stroke-width": 3 })) {
    line.setAttribute(name, value);
  }
  svg.append(line);
  head.append(svg, make("span"));
  card.append(head, make("dl", "board-rows"), make("p", "board-verdict"));
  return card;
}

function newRow() {
  const row = make("div");
  row.append(make("dt"), make("dd"));
  return row;
}
