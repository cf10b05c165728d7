// What is read aloud of a chart: whose toolbar it is, and the legend's entries as buttons; ticks and marks are not. Of
// each bar one button is reached by Tab, the others from there (keyboard.js). plotly keeps what is set here
function label({ plot, data }) {
  const drawing = ".main-svg:not(:has(> .infolayer)), .main-svg > :not(.infolayer), .infolayer > :not(.legend)";
  for (const part of plot.querySelectorAll(`${drawing}, .gl-container, .modebar svg`)) part.ariaHidden = "true";
  plot.querySelector(".main-svg:has(> .infolayer)").role = "none"; // of an image some readers read nothing but its name
  for (const entry of plot.querySelectorAll(".legend .traces")) {
    Object.assign(entry, { role: "button", ariaPressed: String(entry.style.opacity === "1") });
  }
  for (const mode of plot.querySelectorAll(".modebar-btn[data-attr=dragmode]")) {
    mode.ariaPressed = String(mode.classList.contains("active"));
  }
  const bars = { ".modebar": data.title, ".legend": `${data.title}: legend` };
  for (const [at, words] of Object.entries(bars)) {
    const bar = plot.querySelector(at);
    const buttons = [...(bar?.querySelectorAll("button, [role=button]") ?? [])];
    if (bar) Object.assign(bar, { role: "toolbar", ariaLabel: words });
    const first = buttons.find((button) => button.getAttribute("tabindex") === "0") ?? buttons[0];
    for (const button of buttons) button.tabIndex = button === first ? 0 : -1;
  }
}
