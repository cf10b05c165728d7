// One entry in the browser's history for a page: another question or run on it takes the place of the one before, so
// Back goes to the page before. Streamlit makes an entry of every change, and of a page that is opened two.
const push = history.pushState;
// ; = and , may stand in a value as they are
const plain = (value) => value.replace(/%(3B|3D|2C)/gi, decodeURIComponent);
const readable = (address) => address && `${address}`.replace(/=[^&#]*/g, plain);

// A page that is opened may write its query before the browser is there: then it was written into the address of the
// page that is left, which gets its own back. Of itself a page is opened without a query, but for what Streamlit keeps
let own = location.href; // before the last change here
const asks = (address) => [...address.searchParams.keys()].some((name) => !name.startsWith("embed"));
history.pushState = function (state, title, address) {
  const to = new URL(readable(address) ?? location.href, location.href);
  const here = to.pathname === location.pathname;
  if (!here && asks(to) && to.search === location.search) history.replaceState(history.state, "", own);
  own = here ? location.href : to.href;
  return (here ? history.replaceState : push).call(this, state, title, to.href);
};
addEventListener("popstate", () => (own = location.href), true);

export default () => {};
