// One entry in the browser's history for a page: another question or run on it takes the place of the one before, so
// Back goes to the page before. Streamlit makes an entry of every change, and of a page that is opened two.
const push = history.pushState;
// ; = and , may stand in a value as they are
const plain = (value) => value.replace(/%(3B|3D|2C)/gi, decodeURIComponent);
const readable = (address) => address && `${address}`.replace(/=[^&#]*/g, plain);
history.pushState = function (state, title, address) {
  const here = new URL(address ?? location.href, location.href).pathname === location.pathname;
  return (here ? history.replaceState : push).call(this, state, title, readable(address));
};

export default () => {};
