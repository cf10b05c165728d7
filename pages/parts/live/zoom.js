// What the visitor zoomed, turned or hid in a chart, which has it again when it comes back.

const zooms = new Map(); // address -> by axis or scene, its range or camera
const hidden = new Map(); // address -> the legend's entries that are hidden
const entry = (line) => line.legendgroup || line.name;

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

// the lines of a figure, those that are hidden in the legend alone
function marked(address, lines) {
  const away = hidden.get(address);
  return lines.map((line) => ({ ...line, ...(away?.has(entry(line)) && { visible: "legendonly" }) }));
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
