// Follows what a route tells of a run for as long as it is on the page, and writes it there in place.

// milliseconds between two questions: run alive, run at rest; and at most, where the server is slow: that one is asked
// less often, and spends at most a third of its time on one watcher
const NEXT = 250;
const QUIET = 1500;
const SLOW = 2000;
const ALIVE = new Set(["queued", "running"]);
const UNANSWERED = "The server does not answer. Trying again.";

// Takes turns until the function that is returned ends it; each turn tells how long to wait, less if `me.wake` is set.
function follow(me, turn) {
  const call = (me.call = {}); // Streamlit may end a call after the next has begun, which goes on then
  if (!me.alive) {
    me.alive = true;
    taking(me, turn);
  }
  return () => {
    if (me.call === call) me.alive = false;
  };
}

async function taking(me, turn) {
  while (me.alive) {
    me.wake = false;
    const pause = await turn(me);
    for (let slept = 0; slept < pause && !me.wake && me.alive; slept += 50) await new Promise((r) => setTimeout(r, 50));
  }
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Sentences in the list of a <details>, for who cannot see what they tell or has no mouse; each keeps its place.
function tell(told, sentences) {
  const list = told.lastChild;
  told.hidden = !sentences.length;
  while (list.children.length > sentences.length) list.lastChild.remove();
  sentences.forEach((sentence, i) => {
    write(list.children[i] ?? list.appendChild(document.createElement("li")), sentence);
  });
}
