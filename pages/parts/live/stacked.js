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
