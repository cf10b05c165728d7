// Downloads a chart as a picture.

const ASKED = 60_000; // milliseconds: an iPhone asks first whether to download it, and it must still be there then
const SCALE = 2; // points of the picture for one of the page

// The chart as it stands, below its title and its run's name and on the theme's background: for a slide
async function photograph(me) {
  const { data, layout } = structuredClone({ data: me.plot.data, layout: me.plot.layout });
  const { run, address } = me.data;
  const of = me.figure.layout.meta?.of; // which arm, layer, step
  const title = of ? `${me.data.title}: ${of}` : me.data.title;
  const { width, height, _size } = me.plot._fullLayout;
  const c = look(me.plot);
  const plotly = await load(me.build);
  // letters are about half as wide as high
  const wrapped = (text, size) => {
    const most = Math.floor((width - 32) / (size / 2));
    const lines = text.match(new RegExp(`.{1,${most}}(?= |$)|.{1,${most}}`, "gu"));
    return (lines ?? []).map((line) => line.trim().replace(/[&<>%]/g, (letter) => `&#${letter.charCodeAt()};`));
  };
  const bold = wrapped(title, 17);
  const small = wrapped(run, 13);
  const room = 24 + 22 * (bold.length + small.length);
  const text = `<b>${bold.join("<br>")}</b><br><span style="font-size: 13px">${small.join("<br>")}</span>`;
  const how = { format: "svg", width, height: height + room, scale: SCALE, imageDataOnly: true };
  Object.assign(layout, {
    paper_bgcolor: c.back,
    margin: { ...layout.margin, t: _size.t + room },
    title: { text, font: { size: 17 }, x: 16 / width, xanchor: "left", y: 1 - 24 / how.height, yanchor: "top" },
  });
  const drawn = await plotly.toImage({ data, layout }, how);
  const image = new Image();
  const canvas = document.createElement("canvas");
  const outlined = `.shapelayer text { paint-order: stroke; stroke: ${c.back}; stroke-width: 4px }`;
  const style = `${await font(c.font).catch(() => "")} ${outlined}`;
  image.src = `data:image/svg+xml,${encodeURIComponent(drawn.replace(">", `><style>${style}</style>`))}`;
  await image.decode();
  Object.assign(canvas, { width: SCALE * width, height: SCALE * how.height });
  canvas.getContext("2d").drawImage(image, 0, 0);
  const href = URL.createObjectURL(await new Promise((done) => canvas.toBlob(done)));
  const name = `${run} ${address.split("/").pop()} ${of ?? ""}`.match(/[\p{L}\p{N}]+/gu).join("-");
  Object.assign(document.createElement("a"), { href, download: `${name}.png` }).click();
  setTimeout(() => URL.revokeObjectURL(href), ASKED);
}

// The page's font as a picture needs it, which sees nothing outside itself
async function font(names) {
  const ours = (sheet) => !sheet.href || new URL(sheet.href).origin === location.origin;
  const rules = [...document.styleSheets].filter(ours).flatMap((sheet) => [...sheet.cssRules]);
  const upright = ({ style }) => names.startsWith(bare(style.fontFamily)) && style.fontStyle !== "italic";
  const face = rules.find((rule) => rule instanceof CSSFontFaceRule && upright(rule));
  const [, address] = face.style.src.match(/url\("?(.*?)"?\)/);
  const reader = new FileReader();
  reader.readAsDataURL(await (await fetch(new URL(address, face.parentStyleSheet.href))).blob());
  await new Promise((done) => (reader.onload = done));
  return face.cssText.replace(/url\(.*?\)/, `url(${reader.result})`);
}
