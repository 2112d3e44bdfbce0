"use strict";
// Interactive scatter plot of a study's cells; views.py encodes the data.
(() => {
  const data = JSON.parse(document.getElementById("cells").textContent);
  const n = data.cells.length;
  const GREY = "#bbbbbb";
  const SPARE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442"];
  const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

  const unpack = (text, kind) =>
    new kind(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  for (const layout of Object.values(data.layouts)) layout.xy = unpack(layout.xy, Uint16Array);
  for (const column of Object.values(data.columns)) {
    column.values = unpack(column.values, column.names ? Uint16Array : Uint8Array);
    column.hidden = new Set();
    let spare = 0;
    column.colours = (column.colours || []).map((colour, i) =>
      column.names[i] === "" ? GREY : colour || SPARE[spare++ % SPARE.length]);
  }

  const addElement = (parent, name, style = "") => {
    const made = parent.appendChild(document.createElement(name));
    made.style.cssText = style;
    return made;
  };
  const addChoice = (parent, label, names, change) => {
    const box = addElement(parent, "label", "margin-right:1.5em");
    box.textContent = label + " ";
    const select = addElement(box, "select");
    for (const name of names) addElement(select, "option").textContent = name;
    select.onchange = () => change(select.value);
  };

  const root = document.getElementById("view");
  const bar = addElement(root, "div", "margin:.5em 0");
  const frame = addElement(root, "div", "display:flex;gap:1em");
  const canvas = addElement(frame, "canvas",
    "flex:1;min-width:0;height:70vh;border:1px solid #ddd;cursor:grab");
  const legend = addElement(frame, "div", "width:16em;max-height:70vh;overflow:auto");
  const tip = addElement(document.body, "div",
    "position:fixed;display:none;background:#fff;border:1px solid #999;padding:.3em .6em;" +
    "pointer-events:none;white-space:pre;font-size:12px");

  let layout = Object.values(data.layouts)[0];
  let column = Object.values(data.columns)[0];
  let zoom = 1, shift = [0, 0], grabbed = null, queued = false;
  // A random order of drawing, so that no class covers another.
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1, state = 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const j = state % (i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }

  const value = (c, i) => {
    const code = c.values[i];
    if (c.names) return c.names[code];
    return code === 255 ? "" : (c.low + (code / 254) * (c.high - c.low)).toPrecision(2);
  };
  const shade = (share) => {
    const place = share * (VIRIDIS.length - 1), k = Math.min(Math.floor(place), VIRIDIS.length - 2);
    const mixed = VIRIDIS[k].map((a, i) => Math.round(a + (VIRIDIS[k + 1][i] - a) * (place - k)));
    return `rgb(${mixed})`;
  };
  const colour = (i) => {
    const code = column.values[i];
    if (column.names) return column.colours[code];
    return code === 255 ? GREY : shade(code / 254);
  };
  const hasPosition = (i) => layout.xy[2 * i] !== 65535 || layout.xy[2 * i + 1] !== 65535;
  const isShown = (i) => hasPosition(i) && !column.hidden.has(column.values[i]);

  const scale = () => {
    const [w, h] = [canvas.clientWidth, canvas.clientHeight];
    const fit = Math.min(w / layout.ratio, h) * 0.94;
    return [fit * layout.ratio * zoom, fit * zoom, w / 2 + shift[0], h / 2 + shift[1]];
  };
  const position = (i, [width, height, x, y]) => [
    x + (layout.xy[2 * i] / 65534 - 0.5) * width, y - (layout.xy[2 * i + 1] / 65534 - 0.5) * height];

  const draw = () => {
    queued = false;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const s = scale();
    const size = Math.min(8, Math.max(1.5, 170 / Math.sqrt(n)) * Math.sqrt(zoom));
    // Missing values first, below the others.
    for (const missing of [true, false]) {
      for (const i of order) {
        if (!isShown(i) || (value(column, i) === "") !== missing) continue;
        const [x, y] = position(i, s);
        context.fillStyle = colour(i);
        context.fillRect(x - size / 2, y - size / 2, size, size);
      }
    }
  };
  const redraw = () => {
    if (!queued) requestAnimationFrame(draw);
    queued = true;
  };

  const drawLegend = () => {
    legend.replaceChildren();
    if (!column.names) {
      const stops = [0, 0.25, 0.5, 0.75, 1].map(shade).join(",");
      addElement(legend, "div", `height:1em;background:linear-gradient(90deg,${stops})`);
      const ends = addElement(legend, "div", "display:flex;justify-content:space-between");
      for (const end of [column.low, column.high])
        addElement(ends, "span").textContent = end.toPrecision(3);
      return;
    }
    const counts = new Uint32Array(column.names.length);
    for (const code of column.values) counts[code]++;
    column.names.forEach((name, code) => {
      const row = addElement(legend, "div", "cursor:pointer;user-select:none");
      addElement(row, "span", "display:inline-block;width:.8em;height:.8em;margin-right:.5em;" +
        `background:${column.colours[code]}`);
      addElement(row, "span").textContent = `${name || "(none)"} (${counts[code].toLocaleString("en")})`;
      const fade = () => { row.style.opacity = column.hidden.has(code) ? 0.3 : 1; };
      fade();
      row.onclick = () => {
        if (!column.hidden.delete(code)) column.hidden.add(code);
        fade();
        redraw();
      };
    });
    addElement(legend, "p", "color:#555;font-size:12px").textContent =
      "Click a name to hide or show its cells. Drag to move, scroll to zoom, double-click to reset.";
  };

  canvas.onmousedown = (event) => { grabbed = [event.clientX, event.clientY, ...shift]; };
  window.addEventListener("mouseup", () => { grabbed = null; });
  window.addEventListener("resize", redraw);
  canvas.onmouseleave = () => { tip.style.display = "none"; };
  canvas.ondblclick = () => { zoom = 1; shift = [0, 0]; redraw(); };
  canvas.onwheel = (event) => {
    event.preventDefault();
    const factor = Math.exp(-event.deltaY / 400);
    const next = Math.min(60, Math.max(0.5, zoom * factor));
    const box = canvas.getBoundingClientRect();
    const from = [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
    shift = shift.map((s, k) => from[k] - (from[k] - s) * (next / zoom));
    zoom = next;
    redraw();
  };
  canvas.onmousemove = (event) => {
    if (grabbed) {
      shift = [grabbed[2] + event.clientX - grabbed[0], grabbed[3] + event.clientY - grabbed[1]];
      redraw();
      return;
    }
    const box = canvas.getBoundingClientRect(), s = scale();
    let best = 64, found = -1; // within 8 pixels
    for (let i = 0; i < n; i++) {
      if (!isShown(i)) continue;
      const [x, y] = position(i, s);
      const distance = (x - event.clientX + box.left) ** 2 + (y - event.clientY + box.top) ** 2;
      if (distance < best) [best, found] = [distance, i];
    }
    tip.style.display = found < 0 ? "none" : "block";
    if (found < 0) return;
    const lines = Object.entries(data.columns).map(([name, c]) => `${name}: ${value(c, found) || "-"}`);
    tip.textContent = [data.cells[found], ...lines].join("\n");
    tip.style.left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 4) + "px";
    tip.style.top = Math.min(event.clientY + 14, window.innerHeight - tip.offsetHeight - 4) + "px";
  };

  addChoice(bar, "colour by", Object.keys(data.columns), (name) => {
    column = data.columns[name];
    drawLegend();
    redraw();
  });
  if (Object.keys(data.layouts).length > 1)
    addChoice(bar, "layout", Object.keys(data.layouts), (name) => {
      layout = data.layouts[name];
      zoom = 1;
      shift = [0, 0];
      redraw();
    });
  drawLegend();
  draw();
})();
