// What the keyboard needs and Streamlit lacks: Tab leads into an open popover, a button that is pressed and goes away
// hands the focus on, a run's buttons and a help say whose they are, and a chart's toolbar and legend are gone through
// by arrows. And what an impatient mouse needs.
const BUTTON = "button, summary";
const FIELD = "button, input, textarea";
const POPOVER = "[data-testid=stPopoverBody]";
const OPENER = "[data-testid=stPopoverButton][aria-expanded=true]";
const PRESSED = `button, ${POPOVER} input`; // Enter in a box may shut it, and the focus goes back to what opened it
const REGION = "[data-testid=stMain], [data-testid=stSidebar]";
const ROW = "[class*=st-key-row-]";
const HEADING = "h2";
const TRAINING = ".board:is([data-status=queued], [data-status=running])";
const BUSY = `${TRAINING}, [data-testid=stApp]:not([data-test-script-state=notRunning])`;
// Step is disabled while it makes its step, and then the focus belongs there, not on Stop
const LOOK = 250;
const QUIET = 4;
// Safari 17.3 lacks the first
const VISIBLE = { visibilityProperty: true }; // what waits hidden for the mouse takes no focus
const seen = (element) => element.checkVisibility?.(VISIBLE) ?? element.getClientRects().length > 0;
const usable = (element) => !element.disabled && seen(element);
// a button with a help is there twice, once for telephones
const opened = () => [...document.querySelectorAll(OPENER)].find(usable);

// Tab goes round in an open popover and the button that opened it: its text is at the end of the document
function turn(event) {
  const opener = opened();
  const popover = document.querySelector(POPOVER);
  if (!opener || !popover) return;
  const ring = [opener, ...[...popover.querySelectorAll(FIELD)].filter(usable)];
  // Safari gives a button that is clicked no focus: what is around it has it then
  const active = document.activeElement;
  const at = active.contains(opener) ? 0 : ring.indexOf(active);
  if (at < 0) return;
  event.preventDefault();
  ring.at((at + (event.shiftKey ? -1 : 1)) % ring.length).focus();
}

// Where to look for what takes a button's place: its surroundings, the near ones first, and how many buttons are
// before it
function surroundings(button) {
  const found = [];
  for (let branch = button; branch.parentElement?.closest(REGION); branch = branch.parentElement) {
    const inside = [...branch.parentElement.querySelectorAll(BUTTON)];
    found.push([branch.parentElement, inside.findIndex((other) => branch.contains(other))]);
  }
  return found;
}

// What stands in the place of a part that is gone, where it has a key of its own, as a run's row has
function again(part) {
  const key = [...part.classList].find((name) => name.startsWith("st-key-"));
  return key && document.querySelector(`.${CSS.escape(key)}`);
}

function successor(places) {
  for (const [part, before] of places) {
    const around = part.isConnected ? part : again(part);
    const buttons = [...(around?.querySelectorAll(BUTTON) ?? [])];
    const next = [...buttons.slice(before), ...buttons.slice(0, before).reverse()].find(usable);
    if (next) return next;
  }
}

// The button that a key pressed last, until the next key or click, and what got the focus in its place
let last = null;
let held = false;
const watch = new MutationObserver(handOn);

function remember(button) {
  const from = button.closest(POPOVER) ? opened() : button;
  if (!from) return;
  last = { from, places: surroundings(from), page: location.pathname, quiet: 0 };
  watch.observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ["disabled"] });
}

function forget() {
  clearInterval(last?.timer);
  last = null;
  watch.disconnect();
}

function handOn() {
  if (!last || held) return; // a key that is held would press the next button, too
  if (location.pathname !== last.page) return forget();
  const { from, given } = last;
  const active = document.activeElement;
  if (![document.body, from, given].includes(active)) return; // the focus is not lost
  if (from.isConnected && !from.disabled) {
    clearInterval(last.timer);
    Object.assign(last, { timer: 0, quiet: 0 });
    if (active !== from) from.focus();
  } else if (from.isConnected && last.quiet < QUIET) {
    last.timer ||= setInterval(look, LOOK);
  } else if (!given?.isConnected || given.disabled) {
    last.given = successor(last.places);
    last.given?.focus();
  }
}

function look() {
  last.quiet = document.querySelector(BUSY) ? 0 : last.quiet + 1;
  handOn();
}

addEventListener("keydown", (event) => {
  held = true;
  if (event.repeat) return;
  if (event.target !== document.body) forget();
  else if (last) last.quiet = 0; // the focus is lost, and may come back yet: the board waits for the end of the keys
  if (event.key === "Tab") turn(event);
  const pressed = { Enter: PRESSED, " ": "button" }[event.key];
  if (pressed && event.target.matches?.(pressed)) remember(event.target);
}, true);
addEventListener("keyup", () => ((held = false), handOn()), true);
addEventListener("pointerdown", forget, true);

// The second click of a double click, and Enter again while Ctrl is held, are no press of their own: they may meet the
// button of the run that the first has begun
const BEGINS = "[class*=st-key-train-], [class*=st-key-reset-]";
const HOLDS = ["Control", "Meta"];
let entered = false;
addEventListener("click", (event) => {
  if (event.detail > 1 && event.target.closest?.(BEGINS)) event.stopPropagation();
}, true);
addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    if (entered) event.stopPropagation();
    entered = true;
  } else if (HOLDS.includes(event.key) && !event.repeat) entered = false;
}, true);
addEventListener("keyup", ({ key }) => (entered &&= !HOLDS.includes(key)), true);

// In a chart's toolbar and its legend arrows lead from button to button, and Tab comes back to the last one. An entry
// of the legend, which is no HTML, does at Enter or Space what it does at a click
const BAR = ".live-plot [role=toolbar]";
const ENTRY = ".legend [role=button]";
const WAYS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
const inside = (bar) => [...bar.querySelectorAll("button, [role=button]")];
addEventListener("keydown", (event) => {
  const { target, key } = event;
  const bar = target.closest?.(BAR);
  const entry = target.matches?.(ENTRY) && ["Enter", " "].includes(key);
  if (!bar || event.ctrlKey || event.metaKey || event.altKey || !(WAYS[key] || entry)) return;
  event.preventDefault();
  const buttons = inside(bar);
  const toggle = target.querySelector(".legendtoggle");
  if (WAYS[key]) {
    buttons.at((buttons.indexOf(target) + WAYS[key]) % buttons.length).focus();
  } else if (!event.repeat) {
    for (const kind of ["mousedown", "mouseup"]) toggle.dispatchEvent(new MouseEvent(kind));
  }
}, true);
addEventListener("focusin", ({ target }) => {
  for (const button of target.closest(BAR) ? inside(target.closest(BAR)) : []) {
    button.tabIndex = button === target ? 0 : -1;
  }
}, true);

// A run's row is a group by its name from when it is drawn, and so is what opens from it
function nameRows() {
  for (const row of document.querySelectorAll(ROW)) {
    const heading = row.querySelector(HEADING); // it comes after its row, and under a new name has another id
    if (heading && row.getAttribute("aria-labelledby") !== heading.id) {
      row.setAttribute("role", "group");
      row.setAttribute("aria-labelledby", heading.id);
    }
  }
}

// A help says what it helps with also beside a heading, or after a choice whose label is hidden. Where another view
// takes a place, its heading has the button of the one before
const PART = "[data-testid=stElementContainer]";
const NAMED = "h1, h2, h3, [role=radiogroup], input, [data-testid=stPopoverBody] p";
const HELP = "button:is([aria-label=Help], [data-helps])";
function nameHelps() {
  for (const help of document.querySelectorAll(HELP)) {
    const part = help.closest(PART);
    const of = part?.querySelector(NAMED) ?? part?.previousElementSibling?.querySelector(NAMED);
    const name = of?.getAttribute("aria-label") ?? of?.textContent;
    if (!name || name === help.dataset.helps) continue;
    help.dataset.helps = name;
    help.setAttribute("aria-label", `Help for ${name}`);
  }
}
const nameAll = () => (nameRows(), nameHelps());
const named = { subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ["id"] };
new MutationObserver(nameAll).observe(document.body, named);
nameAll(); // what was there before
addEventListener("focusin", ({ target }) => {
  const popover = target.closest(POPOVER);
  const heading = popover && opened()?.closest(ROW)?.querySelector(HEADING);
  if (!heading) return;
  popover.setAttribute("aria-label", `${popover.getAttribute("aria-label").split(":")[0]}: ${heading.innerText}`);
}, true);

export default () => {};
