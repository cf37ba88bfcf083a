// Figures that move in the browser, without a kernel. explorers.py embeds this file whole, beside the data of one figure.
(() => {
  "use strict";

  // EXPLORERS[kind](root, data, kit) fills the element `root`. It may return (a promise of) an object, which
  // `root.explorer` then holds: what a test reads.
  const EXPLORERS = {};

  const STYLE = `
.pcma-explorer { color: inherit; line-height: 1.45; margin: 0.6rem 0; max-width: 860px; }
.pcma-explorer .pcma-body { border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: 10px; padding: 0.8rem 1rem; }
.pcma-explorer *, .pcma-explorer *::before { box-sizing: border-box; }
.pcma-explorer .pcma-row { align-items: flex-start; display: flex; flex-wrap: wrap; gap: 0.5rem 1.2rem; margin: 0.5rem 0; }
.pcma-explorer .pcma-box { flex: 1 1 220px; min-width: 0; }
.pcma-explorer canvas, .pcma-explorer svg { display: block; height: auto; max-width: 100%; }
.pcma-explorer svg text { fill: currentColor; font: 12px system-ui, sans-serif; }
.pcma-explorer .pcma-figure { flex: 1 1 130px; max-width: 420px; min-width: 0; text-align: left; }
.pcma-explorer .pcma-figure canvas { border-radius: 4px; width: 100%; }
.pcma-explorer .pcma-caption { font-size: 0.85em; margin: 0 0 0.2rem; }
.pcma-explorer label, .pcma-explorer legend { font-size: 0.9em; }
.pcma-explorer .pcma-slider { align-items: center; display: flex; flex: 1 1 260px; flex-wrap: wrap; gap: 0 0.7rem; }
.pcma-explorer .pcma-slider input { accent-color: #ff7f0e; flex: 1 1 120px; margin: 0.3rem 0; min-width: 0; }
.pcma-explorer output { display: inline-block; font-variant-numeric: tabular-nums; font-weight: 600; min-width: 4.5em; }
.pcma-explorer fieldset { border: 0; display: flex; flex-wrap: wrap; gap: 0.3rem; margin: 0; min-width: 0; padding: 0; }
.pcma-explorer legend { border: 0; float: none; margin: 0 0 0.2rem; padding: 0; width: auto; }
.pcma-explorer fieldset label, .pcma-explorer button, .pcma-explorer select { background: transparent; border: 1px solid color-mix(in srgb, currentColor 35%, transparent); border-radius: 6px; color: inherit; cursor: pointer; font: inherit; font-size: 0.88em; margin: 0; padding: 0.2rem 0.6rem; }
.pcma-explorer select option { background: Canvas; color: CanvasText; }
.pcma-explorer fieldset label:has(:checked) { background: color-mix(in srgb, #ff7f0e 22%, transparent); border-color: #ff7f0e; }
.pcma-explorer button:hover, .pcma-explorer fieldset label:hover { border-color: currentColor; }
.pcma-explorer input[type="radio"], .pcma-explorer input[type="checkbox"] { accent-color: #ff7f0e; margin: 0 0.35rem 0 0; }
.pcma-explorer :focus-visible { outline: 2px solid #d6249f; outline-offset: 2px; }
.pcma-explorer .pcma-dot { background: color-mix(in srgb, #ff7f0e 80%, transparent); border: 2px solid transparent; border-radius: 50%; height: 16px; margin: 7px 0 0 -8px; padding: 0; position: absolute; top: 0; transition: left 0.3s; width: 16px; z-index: 1; }
.pcma-explorer .pcma-dot[aria-pressed="true"] { background: #ff7f0e; border-color: currentColor; box-shadow: 0 0 0 2px color-mix(in srgb, #ff7f0e 45%, transparent); z-index: 2; }
.pcma-explorer .pcma-line { align-items: center; display: flex; flex-wrap: wrap; font-size: 0.88em; }
.pcma-explorer .pcma-lane { border-bottom: 1px solid color-mix(in srgb, currentColor 15%, transparent); flex: 3 1 240px; height: 30px; margin: 0 12px; position: relative; }
.pcma-explorer .pcma-mean { min-width: 4.5em; text-align: right; }
.pcma-explorer .pcma-bar-of-mean { border-left: 2px solid currentColor; height: 22px; position: absolute; top: 4px; transition: left 0.3s; }
.pcma-explorer .pcma-tick { font-size: 0.9em; position: absolute; top: 2px; transform: translateX(-50%); white-space: nowrap; }
.pcma-explorer [hidden] { display: none; }
.pcma-explorer .pcma-said { margin: 0.5rem 0 0; min-height: 1.45em; }
.pcma-explorer table { border-collapse: collapse; color: inherit; display: table; font-size: 0.82em; font-variant-numeric: tabular-nums; margin: 0.3rem 0; width: auto; }
.pcma-explorer .pcma-table { max-width: 100%; overflow-x: auto; }
.pcma-explorer tr, .pcma-explorer tbody tr:nth-child(odd) { background: transparent; }
.pcma-explorer td, .pcma-explorer th { background: transparent; border: 0; border-bottom: 1px solid color-mix(in srgb, currentColor 18%, transparent); color: inherit; padding: 0.15rem 0.25rem; text-align: right; vertical-align: top; white-space: normal; }
.pcma-explorer td:first-child, .pcma-explorer th:first-child { text-align: left; }
@media (max-width: 500px) { .pcma-explorer .pcma-body { padding: 0.6rem; } .pcma-explorer table { font-size: 0.78em; } .pcma-explorer td, .pcma-explorer th { padding: 0.15rem; } }
.pcma-explorer .pcma-chosen td, .pcma-explorer .pcma-chosen th { background: color-mix(in srgb, #ff7f0e 18%, transparent); }
.pcma-explorer .pcma-scale { align-items: center; display: flex; flex-wrap: wrap; font-size: 0.82em; gap: 0.2rem 0.5rem; margin: 0.3rem 0; }
.pcma-explorer .pcma-scale i { background: linear-gradient(to right, #000004, #3b0f70, #8c2981, #de4968, #fe9f6d, #fcfdbf); border-radius: 3px; height: 10px; width: 120px; }
.pcma-explorer .pcma-scale b { font-weight: 400; }
.pcma-explorer .pcma-strips { display: grid; gap: 4px; grid-template-columns: minmax(3.2rem, 6.5rem) repeat(var(--seconds), minmax(0, 1fr)); margin: 0.4rem 0; max-width: 620px; }
.pcma-explorer .pcma-strips > * { align-self: center; min-width: 0; }
.pcma-explorer .pcma-strips canvas { cursor: crosshair; width: 100%; }
.pcma-explorer .pcma-strips b { display: block; font-size: 0.85em; }
.pcma-explorer .pcma-strips small { display: block; font-size: 0.72em; line-height: 1.2; }
.pcma-explorer .pcma-strips > small { text-align: center; }
.pcma-explorer .pcma-share { background: linear-gradient(to right, color-mix(in srgb, #ff7f0e 55%, transparent) var(--share), transparent 0); border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: 4px; font-size: 0.82em; font-variant-numeric: tabular-nums; padding: 0.1rem 0.2rem; text-align: center; white-space: nowrap; }
.pcma-explorer .pcma-idle { background: linear-gradient(to right, color-mix(in srgb, currentColor 18%, transparent) var(--share), transparent 0); font-style: italic; }
.pcma-explorer .pcma-bars { align-content: start; align-items: center; display: grid; font-size: 0.9em; gap: 0.35rem 0.6rem; grid-template-columns: auto minmax(0, 1fr) auto; }
.pcma-explorer .pcma-bars > b, .pcma-explorer .pcma-bars > small { grid-column: 1 / -1; }
.pcma-explorer .pcma-bars output { min-width: 2.4em; }
.pcma-explorer .pcma-bar { background: color-mix(in srgb, currentColor 12%, transparent); border-radius: 3px; height: 1.1em; position: relative; }
.pcma-explorer .pcma-bar i { background: #ff7f0e; border-radius: 3px; display: block; height: 100%; }
.pcma-explorer .pcma-bar u { background: currentColor; bottom: -2px; position: absolute; top: -2px; width: 2px; }
.pcma-explorer .pcma-tiles { align-content: start; display: grid; gap: 0.5rem; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); margin: 0.5rem 0; }
.pcma-explorer [hidden] { display: none; }
.pcma-explorer .pcma-tiles canvas { cursor: crosshair; }
.pcma-explorer .pcma-plane { display: grid; grid-template-columns: 4rem minmax(0, 1fr); margin: 0.5rem 0 1.4rem; }
.pcma-explorer .pcma-plane canvas { cursor: crosshair; height: clamp(150px, 28vw, 220px); width: 100%; }
.pcma-explorer .pcma-ticks { font-size: 0.78em; position: relative; }
.pcma-explorer .pcma-ticks span { position: absolute; transform: translateY(-50%); white-space: nowrap; }
.pcma-explorer .pcma-ticks:last-child span { transform: none; }
.pcma-explorer .pcma-panel { flex: 1 1 300px; max-width: 420px; min-width: 0; }
.pcma-explorer .pcma-panel svg { width: 100%; }
.pcma-explorer .pcma-view { border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: 8px; height: 380px; overflow: auto; position: relative; }
.pcma-explorer .pcma-sheet { min-width: 800px; position: relative; width: 100%; }
.pcma-explorer .pcma-sheet img { background: none !important; display: block; margin: 0; max-width: none !important; width: 100%; }
.pcma-explorer .pcma-light { background: color-mix(in srgb, #d6249f 16%, transparent); border: 3px solid #d6249f; border-radius: 8px; position: absolute; transition: all 0.25s; }
.pcma-explorer .pcma-sheet .pcma-spot { background: transparent; border: 0; padding: 0; position: absolute; }
.pcma-explorer .pcma-sheet .pcma-spot:hover { background: color-mix(in srgb, #d6249f 12%, transparent); }
.pcma-explorer .pcma-title { font-size: 1.05em; font-weight: 600; margin: 0.2rem 0 0; }
@media (prefers-reduced-motion: reduce) { .pcma-explorer .pcma-light { transition: none; } }
@media (max-width: 520px) { .pcma-explorer .pcma-strips { grid-template-columns: 4rem repeat(var(--seconds), minmax(0, 1fr)); } .pcma-explorer .pcma-share { font-size: 0.7em; padding: 0.1rem 0; } .pcma-explorer .pcma-halved { grid-template-columns: repeat(calc(var(--columns) / 2), minmax(0, 1fr)); } }`;

  // What all explorers share. Controls are native inputs, so that a keyboard moves them; `changed` gets the new value.
  const toolkit = (colours) => {
    const append = (element, attributes, children) => {
      for (const [name, value] of Object.entries(attributes)) {
        if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
        else if (name === "class") element.setAttribute("class", value);
        else if (value === true) element.setAttribute(name, "");
        else if (value !== false && value != null) element.setAttribute(name, value);
      }
      element.append(...children);
      return element;
    };
    // make("p", {class: "x", onclick: f}, "text", child)
    const make = (tag, attributes = {}, ...children) => append(document.createElement(tag), attributes, children);
    const draw = (tag, attributes = {}, ...children) =>
      append(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
    const row = (parent, ...children) => {
      const made = make("div", {class: "pcma-row"}, ...children);
      parent.append(made);
      return made;
    };

    // Each control returns {input, value, set(value)}; set changes it without calling `changed`.
    const slider = (parent, label, {min = 0, max, step = 1, value = min, say = String}, changed) => {
      const input = make("input", {type: "range", min, max, step, value}), said = make("output");
      const show = () => { said.value = say(+input.value); input.setAttribute("aria-valuetext", said.value); };
      input.addEventListener("input", () => { show(); changed(+input.value); });
      parent.append(make("label", {class: "pcma-slider"}, make("span", {}, label), input, said));
      show();
      return {input, get value() { return +input.value; }, set(to) { input.value = to; show(); }};
    };
    // options: [[value, text], ...]
    const radios = (parent, label, options, value, changed) => {
      const name = `pcma-${Math.random().toString(36).slice(2)}`, inputs = new Map();
      const box = make("fieldset", {}, make("legend", {}, label));
      for (const [key, text] of options) {
        const input = make("input", {type: "radio", name, value: key, checked: key === value});
        input.addEventListener("change", () => changed(key));
        inputs.set(key, input);
        box.append(make("label", {}, input, text));
      }
      parent.append(box);
      return {box, inputs, get value() { return [...inputs].find(([, i]) => i.checked)?.[0]; },
        set(to) { inputs.get(to).checked = true; }};
    };
    const tick = (parent, label, value, changed) => {
      const input = make("input", {type: "checkbox", checked: value});
      input.addEventListener("change", () => changed(input.checked));
      parent.append(make("label", {}, input, label));
      return {input, get value() { return input.checked; }, set(to) { input.checked = to; }};
    };
    const choice = (parent, label, options, value, changed) => {
      const input = make("select", {}, ...options.map(([key, text]) => make("option", {value: key}, text)));
      input.value = value;
      input.addEventListener("change", () => changed(input.value));
      parent.append(make("label", {}, `${label} `, input));
      return {input, get value() { return input.value; }, set(to) { input.value = to; }};
    };
    const button = (parent, label, pressed) => {
      const made = make("button", {type: "button", onclick: pressed}, label);
      parent.append(made);
      return made;
    };
    // A line that a screen reader reads when it changes: say(text).
    const readout = (parent) => {
      const line = make("p", {class: "pcma-said", role: "status", "aria-live": "polite"});
      parent.append(line);
      return (text) => { if (line.textContent !== text) line.textContent = text; };
    };
    // rows of cells; returns the function that fills the table anew. The row with the number `chosen` is marked.
    const table = (parent, head) => {
      const body = make("tbody");
      const cells = (kind, texts) => texts.map((text) => make(kind, {}, String(text)));
      const whole = make("table", {}, make("thead", {}, make("tr", {}, ...cells("th", head))), body);
      parent.append(make("div", {class: "pcma-table"}, whole));
      return (rows, chosen = -1) => body.replaceChildren(
        ...rows.map((texts, k) => make("tr", k === chosen ? {class: "pcma-chosen"} : {}, ...cells("td", texts))));
    };

    // What explorers.py packed: numbers {shape, values}, masks as a list of maps {height, width, values}, pictures, sounds.
    const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
    const TYPES = {float32: Float32Array, uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int16: Int16Array};
    const numbers = ({type, shape, data, low, step}) => {
      const stored = new TYPES[type](bytes(data));
      return {shape, values: step === undefined ? stored : Float64Array.from(stored, (v) => low + step * v)};
    };
    const maps = (packed) => { // [..., h, w] as one list of maps
      const {shape, values} = numbers(packed), [height, width] = shape.slice(-2), size = height * width;
      return Array.from({length: values.length / size}, (_, k) =>
        ({height, width, values: values.subarray(k * size, (k + 1) * size)}));
    };
    const masks = ({shape, runs}) => {
      const [height, width] = shape.slice(-2);
      return runs.map((packed) => {
        const values = new Uint8Array(height * width);
        let place = 0, on = 0;
        for (const length of numbers(packed).values) {
          if (on) values.fill(1, place, place + length);
          place += length;
          on = 1 - on;
        }
        return {height, width, values};
      });
    };
    const picture = async (source) => {
      const image = new Image();
      image.src = source;
      await image.decode();
      return image;
    };
    const sound = (source) => Object.assign(new Audio(source), {preload: "auto"});

    // A canvas under a caption. Its pixels are fixed, the page scales it.
    const canvas = (parent, caption, width, height, described = caption) => {
      const made = make("canvas", {width, height, role: "img", "aria-label": described}), text = make("div", {class: "pcma-caption"}, caption);
      const box = make("div", {class: "pcma-figure"}, text, made);
      parent.append(box);
      return Object.assign(made, {caption: text, box});
    };
    const rgb = (colour) => [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));
    // A map {height, width, values in 0..1} as an image, as opaque as its values times `strength`.
    const tinted = (map, colour, strength = 0.55) => {
      const image = new ImageData(map.width, map.height), channels = rgb(colour);
      map.values.forEach((value, k) => image.data.set([...channels, Math.round(255 * strength * value)], 4 * k));
      const small = make("canvas", {width: map.width, height: map.height});
      small.getContext("2d").putImageData(image, 0, 0);
      return small;
    };
    const outline = (context, map, colour) => { // the border between ones and zeros, also along the edge of the picture
      const {width, height} = context.canvas, {values} = map, x = width / map.width, y = height / map.height;
      const at = (i, j) => i >= 0 && j >= 0 && i < map.height && j < map.width && values[i * map.width + j] > 0.5;
      const line = Math.max(2, width / 170), inside = (v, end) => Math.min(Math.max(v, line / 2), end - line / 2);
      context.beginPath();
      for (let i = 0; i <= map.height; i++) {
        for (let j = 0; j <= map.width; j++) {
          const here = at(i, j), [u, v] = [inside(j * x, width), inside(i * y, height)];
          if (here !== at(i, j - 1)) { context.moveTo(u, i * y); context.lineTo(u, (i + 1) * y); }
          if (here !== at(i - 1, j)) { context.moveTo(j * x, v); context.lineTo((j + 1) * x, v); }
        }
      }
      Object.assign(context, {strokeStyle: colour, lineWidth: line, lineCap: "square"});
      context.stroke();
    };
    // The bright frame (an image), a prediction as an orange fill, tokens in doubt as magenta cells with their grid over the
    // frame in greys, and the truth as a green contour. All but the frame are maps and may be left out.
    const paint = (canvas, {frame, heat, truth, prediction, cells}) => {
      const context = canvas.getContext("2d"), {width, height} = canvas;
      context.clearRect(0, 0, width, height);
      if (frame) context.drawImage(frame, 0, 0, width, height);
      if (cells) {
        Object.assign(context, {globalCompositeOperation: "saturation", fillStyle: "#808080"});
        context.fillRect(0, 0, width, height);
        context.globalCompositeOperation = "source-over";
      }
      context.imageSmoothingEnabled = false;
      if (heat) context.drawImage(heated(heat), 0, 0, width, height);
      if (prediction) context.drawImage(tinted(prediction, colours.prediction), 0, 0, width, height);
      if (cells) {
        context.drawImage(tinted(cells, colours.doubt), 0, 0, width, height);
        context.fillStyle = "rgba(255, 255, 255, 0.4)";
        for (let k = 1; k < cells.width; k++) context.fillRect(Math.round((k * width) / cells.width), 0, 2, height);
        for (let k = 1; k < cells.height; k++) context.fillRect(0, Math.round((k * height) / cells.height), width, 2);
      }
      context.imageSmoothingEnabled = true;
      if (truth) outline(context, truth, colours.truth);
    };

    // act(x, y) while a mouse moves over an element or a finger touches it, in shares of its width and height
    const pointed = (element, act) => {
      for (const kind of ["pointermove", "pointerdown"]) {
        element.addEventListener(kind, (event) => {
          const {left, top, width, height} = element.getBoundingClientRect(),
            inside = (v) => Math.max(0, Math.min(0.9999, v));
          act(inside((event.clientX - left) / width), inside((event.clientY - top) / height));
        });
      }
    };
    // act(dx, dy) for the arrow keys, once a keyboard has moved to the element
    const arrows = (element, act) => {
      element.tabIndex = 0;
      element.addEventListener("keydown", (event) => {
        const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
        if (!way) return;
        event.preventDefault();
        act(...way);
      });
    };
    // A frame around a part of a canvas, given in shares of its width and height
    const box = (canvas, x, y, width, height, colour = "white") => {
      const context = canvas.getContext("2d"), line = Math.max(2, canvas.width / 150),
        [w, h] = [canvas.width, canvas.height];
      for (const [stroke, thick] of [["black", 2 * line], [colour, line]]) {
        Object.assign(context, {strokeStyle: stroke, lineWidth: thick, lineJoin: "round"});
        context.strokeRect(x * w + line / 2, y * h + line / 2, Math.max(1, width * w - line),
          Math.max(1, height * h - line));
      }
    };
    // The colours of a map {height, width, values} between `low`, which is dark, and `high`, which is bright
    const magma = "000004140e363b0f70641a808c2981b73779de4968f7705cfe9f6dfecf92fcfdbf".match(/../g)
      .map((part) => parseInt(part, 16));
    const heated = ({height, width, values, low, high}) => {
      const image = new ImageData(width, height), last = magma.length / 3 - 1;
      values.forEach((value, k) => {
        const place = Math.max(0, Math.min(1, (value - low) / (high - low || 1))) * last,
          below = Math.min(last - 1, Math.floor(place));
        for (let c = 0; c < 3; c++) {
          image.data[4 * k + c] = magma[3 * below + c] + (place - below) * (magma[3 * below + 3 + c] - magma[3 * below + c]);
        }
        image.data[4 * k + 3] = 255;
      });
      const small = make("canvas", {width, height});
      small.getContext("2d").putImageData(image, 0, 0);
      return small;
    };
    const scale = (parent, low, high, label) => parent.append(
      make("div", {class: "pcma-scale"}, make("span", {}, low), make("i"), make("span", {}, high), make("b", {}, label)));

    // Lines over x: {x, lines: [{label, values, colour, x?}], xlabel, limits: [low, high], ticks: [[x, text]]}. Returns
    // mark(x), which draws a vertical line there.
    const chart = (parent, caption, {x, lines, xlabel, limits, xlimits, ticks, yticks}) => {
      const [width, height, left, right, top, bottom] = [360, 190, 34, 24, 8, 36];
      const [low, high] = limits, [start, end] = xlimits ?? [Math.min(...x), Math.max(...x)];
      const across = (v) => left + ((v - start) / (end - start || 1)) * (width - left - right);
      const up = (v) => height - bottom - ((v - low) / (high - low)) * (height - top - bottom);
      const image = draw("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": caption});
      const faint = {stroke: "currentColor", "stroke-opacity": 0.25};
      for (const value of yticks ?? [low, (low + high) / 2, high]) {
        image.append(draw("line", {x1: left, x2: width - right, y1: up(value), y2: up(value), ...faint}));
        image.append(draw("text", {x: left - 5, y: up(value) + 4, "text-anchor": "end"}, String(+value.toFixed(3))));
      }
      for (const [value, text] of ticks) {
        image.append(draw("text", {x: across(value), y: height - bottom + 15, "text-anchor": "middle"}, text));
      }
      image.append(draw("text", {x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle"}, xlabel));
      for (const {values, colour, x: own = x, width: stroke = 2, opacity = 1} of lines) {
        const points = values.map((v, k) => `${across(own[k]).toFixed(1)},${up(v).toFixed(1)}`).join(" ");
        image.append(draw("polyline", {points, fill: "none", stroke: colour, "stroke-width": stroke, "stroke-opacity": opacity}));
      }
      const marker = draw("line", {y1: top, y2: height - bottom, stroke: colours.doubt, "stroke-width": 1.5, visibility: "hidden"});
      image.append(marker);
      const names = lines.filter((line) => line.label).map(({label, colour}) =>
        make("span", {style: "white-space: nowrap; margin-left: 0.6rem"}, make("span", {style: `color: ${colour}`}, "━ "), label));
      parent.append(make("div", {class: "pcma-figure", style: "flex: 1 1 300px"},
        make("div", {class: "pcma-caption"}, caption, ...names), image));
      return (at) => append(marker, {x1: across(at), x2: across(at), visibility: "visible"}, []);
    };

    return {pointed, arrows, box, scale, colours, make, draw, row, slider, radios, tick, choice, button, readout, table,
      numbers, maps, masks, picture, sound, canvas, tinted, outline, paint, chart};
  };

  // Lesson 05: slide c. Every step holds the logits O_4, O_3, O_2 of a run of the network at that c; eq. 7 gives the masks.
  EXPLORERS.confidence = async (root, data, kit) => {
    const frames = await Promise.all(data.frames.map(kit.picture)), truths = kit.masks(data.truth), T = frames.length;
    const sum = (values) => values.reduce((a, b) => a + b, 0);
    const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
    // 3 N C^2 + 2 N' C^2 + 5 T C^2 + 2 T (N + N') C, as pcma_lib.measure.complexity.qsca_macs has it
    const macs = (N, asked, C) => (3 * N + 2 * asked + 5 * T) * C * C + 2 * T * (N + asked) * C;
    const cost = (kept) => sum(data.tokens.map((N, k) => macs(N, kept[k], data.channels)));
    const steps = data.steps.map(({c, marked, logits}) => {
      const stages = logits.map(kit.maps), masks = [];
      stages.forEach((stage, level) => masks.push(stage.map(({height, width, values}, k) => {
        const coarser = level && masks[level - 1][k], ratio = coarser ? height / coarser.height : 1;
        return {height, width, values: values.map((logit, n) => {
          const i = Math.floor(n / width / ratio), j = Math.floor((n % width) / ratio);
          return 1 / (1 + Math.exp(-Math.abs(logit))) < c && (!coarser || coarser.values[i * coarser.width + j]) ? 1 : 0;
        })};
      })));
      const kept = masks.map((level) => sum(level.map((mask) => sum(mask.values))));
      const drawn = kit.masks(marked);
      const ious = drawn.map(({values}, k) => { // a frame without truth scores what it rightly leaves unmarked
        const truth = truths[k].values, both = sum(values.map((v, n) => v & truth[n]));
        const either = sum(values.map((v, n) => v | truth[n]));
        return sum(truth) ? both / either : 1 - either / truth.length;
      });
      return {c, masks, kept, drawn, miou: sum(ious) / T, macs: cost([data.tokens[0], ...kept])};
    });
    const full = cost(data.tokens), doubt = (v) => -Math.log10(1 - v);
    let step = data.steps.findIndex(({c}) => c === data.trained), second = data.second;

    const controls = kit.row(root);
    kit.slider(controls, "threshold c", {max: steps.length - 1, value: step, say: (k) => String(steps[k].c)},
      (k) => { step = k; show(); });
    kit.slider(controls, "second", {max: T - 1, value: second}, (k) => { second = k; show(); });
    const pictures = kit.row(root), side = 3 * frames[0].naturalWidth;
    const canvases = ["M₃", "M₂", "M₁"].map((name) =>
      kit.canvas(pictures, name, side, side, `tokens of ${name} in doubt`));
    const final = kit.canvas(pictures, "prediction", side, side, "what the network marks");
    const below = kit.row(root), left = kit.make("div", {class: "pcma-box"});
    const fill = kit.table(left, ["", "now", "if all ask", "share"]), say = kit.readout(left);
    below.append(left);
    const ticks = [0.6, 0.9, 0.99, 0.999, 0.9999].map((c) => [doubt(c), String(c)]), x = steps.map(({c}) => doubt(c));
    const mark = kit.chart(below, "At every c:", {x, ticks, xlabel: "threshold c", limits: [0, 1], lines: [
      {label: "mIoU of the clip", values: steps.map(({miou}) => miou), colour: kit.colours.prediction},
      {label: "share of operations", values: steps.map(({macs}) => macs / full), colour: kit.colours.confidence},
    ]});
    const show = () => {
      const {c, masks, kept, drawn, miou, macs} = steps[step], frame = frames[second], truth = truths[second];
      canvases.forEach((canvas, k) => kit.paint(canvas, {frame, truth, cells: masks[k][second]}));
      kit.paint(final, {frame, truth, prediction: drawn[second]});
      fill([
        ...kept.map((n, k) => [`M${"₃₂₁"[k]}, tokens`, n, data.tokens[k + 1], percent(n / data.tokens[k + 1])]),
        ["QSCA, million operations", (macs / 1e6).toFixed(2), (full / 1e6).toFixed(2), percent(macs / full)],
      ]);
      const asked = `${kept[2]} of ${data.tokens[3]} tokens of the finest stage may ask`;
      say(`At c = ${c}, ${asked}. The mIoU of the clip is ${miou.toFixed(3)}.`);
      mark(doubt(c));
    };
    show();
    return {get state() { return {second, full, ...steps[step]}; }};
  };

  // Lessons 00 and 10: the same frames under six sounds, in step with the sound that plays.
  EXPLORERS.sounds = async (root, data, kit) => {
    const frames = await Promise.all(data.frames.map(kit.picture)), T = frames.length;
    const sounds = data.sounds.map(({name, sound, truth, marked, spectrogram}) =>
      ({name, spectrogram, player: kit.sound(sound), truths: kit.masks(truth), marks: kit.masks(marked)}));
    let chosen = 0, time = 0, playing = false, truth = true, marked = true;

    kit.radios(root, "What is heard", sounds.map(({name}, k) => [k, name]), chosen, (k) => {
      const on = playing;
      stop();
      chosen = k;
      show();
      if (on) play();
    });
    const controls = kit.row(root);
    const button = kit.button(controls, "", () => (playing ? stop() : play()));
    const slider = kit.slider(controls, "time", {max: T, step: 0.1, say: (t) => `${t.toFixed(1)} s`}, (t) => seek(t));
    kit.tick(controls, "truth (green line)", truth, (on) => { truth = on; show(); });
    kit.tick(controls, "what the network marks (orange)", marked, (on) => { marked = on; show(); });
    const views = kit.row(root), side = 3 * frames[0].naturalWidth;
    const large = kit.canvas(views, "", side, side, "the frame of this second, with truth and marks");
    const right = kit.make("div", {class: "pcma-box", style: "flex: 2 1 300px"});
    views.append(right);
    // The spectrogram with its axes; a click on it chooses the time.
    const [width, height, left, top] = [420, 150, 42, 6], bottom = 34, high = height - top - bottom, wide = width - left - 8;
    const image = kit.draw("image", {x: left, y: top, width: wide, height: high, preserveAspectRatio: "none"});
    const head = kit.draw("line", {y1: top, y2: top + high, stroke: "white", "stroke-width": 2});
    const across = (seconds) => left + (Math.min(seconds, data.seconds) / data.seconds) * wide;
    const axes = [[left + wide / 2, height - 4, "seconds", "middle"]];
    for (let k = 0; k < T; k++) axes.push([across(k), top + high + 15, k, "middle"]);
    for (const [hertz, place] of data.hertz) axes.push([left - 5, top + high * (1 - place) + 4, hertz, "end"]);
    const sheet = kit.draw("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", style: "cursor: pointer"}, image, head,
      ...axes.map(([x, y, text, anchor]) => kit.draw("text", {x, y, "text-anchor": anchor}, String(text))));
    sheet.addEventListener("click", (event) => {
      const box = sheet.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * width;
      seek(Math.min(T, Math.max(0, ((x - left) / wide) * data.seconds)));
    });
    const caption = kit.make("div", {class: "pcma-caption"});
    right.append(caption, sheet);
    const seconds = kit.row(right);
    seconds.style.gap = "0.4rem";
    const small = frames.map((_, k) => {
      const button = kit.button(seconds, "", () => seek(k));
      button.setAttribute("aria-label", `second ${k}`);
      button.setAttribute("style", "flex: 1 1 48px; max-width: 110px; padding: 2px");
      return Object.assign(kit.canvas(button, `${k} s`, 128, 128, `second ${k}`), {button});
    });
    const say = kit.readout(root);

    const second = () => Math.min(T - 1, Math.floor(time + 1e-6));
    const count = ({values}) => values.reduce((a, b) => a + b, 0);
    const measures = (truths, marks) => {
      let both = 0, either = 0, on = 0, size = 0, wanted = 0;
      marks.forEach(({values}, k) => values.forEach((v, n) => {
        const t = truths[k].values[n];
        both += v & t;
        either += v | t;
        on += v;
        wanted += t;
        size++;
      }));
      return {share: on / size, iou: wanted ? both / either : null};
    };
    const seek = (to) => {
      time = to;
      if (playing) sounds[chosen].player.currentTime = time;
      show();
    };
    const stop = () => {
      playing = false;
      sounds[chosen].player.pause();
      show();
    };
    const play = async () => {
      if (time > T - 0.05) time = 0;
      const {player} = sounds[chosen];
      player.currentTime = time;
      playing = true;
      show();
      await player.play().catch(() => { if (playing && player === sounds[chosen].player) stop(); }); // refused or cut short
      const follow = () => {
        if (!playing || player !== sounds[chosen].player) return;
        time = Math.min(T, player.currentTime);
        if (player.ended) { time = T; stop(); } else { show(); requestAnimationFrame(follow); }
      };
      follow();
    };
    let drawn = "";
    const show = () => {
      const {name, spectrogram, truths, marks} = sounds[chosen], k = second(), wanted = [chosen, k, truth, marked].join();
      slider.set(time);
      for (const end of ["x1", "x2"]) head.setAttribute(end, across(time));
      button.textContent = playing ? "❚❚ pause" : "▶ play";
      if (wanted === drawn) return;
      drawn = wanted;
      image.setAttribute("href", spectrogram);
      sheet.setAttribute("aria-label", `spectrogram of ${name}, in hertz over seconds`);
      caption.textContent = `the sound, in hertz over seconds: ${name}`;
      const layers = (n) => ({frame: frames[n], truth: truth && truths[n], prediction: marked && marks[n]});
      large.caption.textContent = `second ${k}`;
      kit.paint(large, layers(k));
      small.forEach((canvas, n) => {
        kit.paint(canvas, layers(n));
        canvas.button.setAttribute("aria-pressed", n === k);
        canvas.button.style.borderColor = n === k ? kit.colours.sound : "";
      });
      const clip = measures(truths, marks), now = count(marks[k]) / marks[k].values.length;
      const answer = clip.iou === null ? "The right answer is to mark nothing."
        : `Over the whole clip, its IoU with the truth is ${clip.iou.toFixed(3)}.`;
      const percent = (share) => `${(100 * share).toFixed(1)}\u00a0%`;
      const shares = `${percent(now)} of second ${k} and ${percent(clip.share)} of the clip`;
      say(`Under ${name}, the network marks ${shares}. ${answer}`);
    };
    show();
    return {get state() { return {chosen, time, playing, second: second()}; }};
  };

  // Lesson 07: paint a mask on each frame; the measures follow.
  EXPLORERS.metrics = async (root, data, kit) => {
    const frames = await Promise.all(data.frames.map(kit.picture)), T = frames.length;
    const truths = kit.masks(data.truth), network = kit.masks(data.marked);
    const {width, height} = truths[0], size = width * height;
    const painted = network.map((mask) => ({...mask, values: mask.values.slice()}));
    let second = T - 1, brush = 6, adding = true, cursor = [width / 2, height / 2], last = null;

    const controls = kit.row(root);
    kit.slider(controls, "second", {max: T - 1, value: second}, (k) => { second = k; show(); });
    const wide = (radius) => `${2 * radius + 1} px`;
    kit.slider(controls, "brush", {min: 1, max: 24, value: brush, say: wide}, (radius) => { brush = radius; show(); });
    kit.radios(controls, "A stroke will", [[true, "paint"], [false, "erase"]], adding, (on) => { adding = on; });
    const views = kit.row(root), scale = 4;
    const canvas = kit.canvas(views, "", scale * width, scale * height);
    canvas.box.style.cssText = "flex: 1 1 220px; max-width: 400px";
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    const help = "The frame to paint on. Arrow keys move the brush, with Shift by one pixel. The space bar paints.";
    canvas.setAttribute("aria-label", help);
    canvas.style.cssText = "cursor: crosshair; touch-action: none";
    const right = kit.make("div", {class: "pcma-box", style: "flex-basis: 330px"});
    views.append(right);
    const fillSeconds = kit.table(right, ["second", "truth", "marked", "both", "either", "IoU", "F"]);
    const fillAll = kit.table(right, ["all seconds", ""]), say = kit.readout(root);
    const buttons = kit.row(right), set = (source) => () => {
      painted[second].values.set(source(second));
      show();
    };
    kit.button(buttons, "mark nothing", set(() => new Uint8Array(size)));
    kit.button(buttons, "mark everything", set(() => new Uint8Array(size).fill(1)));
    kit.button(buttons, "mark as the network", set((k) => network[k].values));
    kit.button(buttons, "mark the truth", set((k) => truths[k].values));
    kit.button(buttons, "nothing in all seconds", () => { painted.forEach(({values}) => values.fill(0)); show(); });

    const stamp = ([x, y]) => {
      for (let i = Math.max(0, Math.ceil(y - brush)); i <= Math.min(height - 1, y + brush); i++) {
        for (let j = Math.max(0, Math.ceil(x - brush)); j <= Math.min(width - 1, x + brush); j++) {
          if ((i - y) ** 2 + (j - x) ** 2 <= brush * brush) painted[second].values[i * width + j] = adding ? 1 : 0;
        }
      }
    };
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
      return [Math.floor(x * width), Math.floor(y * height)];
    };
    const stroke = (to) => { // without gaps, however fast the hand is
      const [x, y] = last ?? to, steps = Math.max(1, Math.abs(to[0] - x), Math.abs(to[1] - y));
      for (let k = 0; k <= steps; k++) stamp([x + ((to[0] - x) * k) / steps, y + ((to[1] - y) * k) / steps].map(Math.round));
      last = cursor = to;
      show();
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      stroke(place(event));
    });
    canvas.addEventListener("pointermove", (event) => { if (last) stroke(place(event)); });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { last = null; });
    canvas.addEventListener("keydown", (event) => {
      const moves = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], " ": [0, 0]};
      if (!(event.key in moves)) return;
      event.preventDefault();
      const [x, y] = moves[event.key], step = event.shiftKey ? 1 : 4;
      const within = (v, end) => Math.min(end - 1, Math.max(0, v));
      cursor = [within(cursor[0] + step * x, width), within(cursor[1] + step * y, height)];
      if (event.key === " ") stamp(cursor);
      show();
    });
    for (const change of ["focus", "blur"]) canvas.addEventListener(change, () => show());

    const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : NaN);
    const text = (value) => (Number.isFinite(value) ? value.toFixed(3) : "–");
    const measures = () => {
      const rows = painted.map(({values}, k) => {
        let truth = 0, marked = 0, both = 0;
        values.forEach((v, n) => {
          const t = truths[k].values[n];
          truth += t;
          marked += v;
          both += v & t;
        });
        const either = truth + marked - both, precision = both / Math.max(marked, 1), recall = both / truth;
        return {truth, marked, both, either, iou: truth ? both / either : (size - either) / size,
          f: !truth ? NaN : both ? (1.3 * precision * recall) / (0.3 * precision + recall) : 0};
      });
      const total = (key) => rows.reduce((a, row) => a + row[key], 0);
      return {rows, frame: mean(rows.map(({iou}) => iou)), set: total("both") / total("either"),
        f: mean(rows.filter(({truth}) => truth).map(({f}) => f))};
    };
    const show = () => {
      const {rows, frame, set, f} = measures(), now = rows[second];
      canvas.caption.textContent = `second ${second}: paint here`;
      kit.paint(canvas, {frame: frames[second], truth: truths[second], prediction: painted[second]});
      if (document.activeElement === canvas) {
        const context = canvas.getContext("2d");
        context.beginPath();
        context.arc(...cursor.map((v) => scale * (v + 0.5)), scale * (brush + 0.5), 0, 7);
        Object.assign(context, {strokeStyle: "white", lineWidth: 2});
        context.stroke();
      }
      fillSeconds(rows.map((r, k) => [k, r.truth, r.marked, r.both, r.either, text(r.iou), text(r.f)]), second);
      fillAll([
        ["mIoU, the mean over the frames, as published", text(frame)],
        ["mIoU of the whole set, all pixels together", text(set)],
        ["F-measure, the mean over frames with a truth", text(f)],
      ]);
      const sounding = `${now.both} of the ${now.either} pixels in either mask are in both. The IoU is ${text(now.iou)}.`;
      const silent = `${size - now.either} of ${size} pixels are rightly left unmarked. The frame scores ${text(now.iou)}.`;
      say(now.truth ? `In second ${second}, ${sounding}` : `In second ${second} nothing sounds. ${silent}`);
    };
    show();
    return {get state() { return {second, brush, cursor, painted: painted.map(({values}) => [...values]), ...measures()}; }};
  };

  // Lesson 10: the runs of a sweep as dots. A dot is a button; the one that is chosen shows its settings and curves.
  EXPLORERS.runs = (root, data, kit) => {
    const recipes = [...new Set(data.rows.map(({recipe}) => recipe))];
    let measure = 0, chosen = data.rows[0];
    const units = {
      "": (v, digits = 3) => v.toFixed(digits),
      "%": (v) => `${(100 * v).toFixed(1)}\u00a0%`,
      s: (v) => `${v.toFixed(0)}\u00a0s`,
    };
    const text = (value, unit) => (value === null ? "–" : units[unit](value));
    const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
    const valuesOf = (rows) => rows.map(({values}) => values[measure]).filter((v) => v !== null);
    const measured = data.measures.map(([name], k) => [k, name])
      .filter(([k]) => data.rows.some(({values}) => values[k] !== null));

    kit.choice(kit.row(root), "Show the", measured, "0", (k) => { measure = +k; show(); });
    const sheet = kit.make("div", {style: "margin: 0.4rem 0"});
    root.append(sheet);
    const line = (label, ...inner) => {
      const space = kit.make("div", {class: "pcma-lane"}, ...inner), said = kit.make("span", {class: "pcma-mean"});
      const name = kit.make("span", {style: "flex: 1 1 190px"}, label);
      sheet.append(kit.make("div", {class: "pcma-line"}, name, space, said));
      return {space, said};
    };
    const dots = new Map(), means = [];
    for (const recipe of recipes) {
      const bar = kit.make("span", {class: "pcma-bar-of-mean"}), rows = data.rows.filter((row) => row.recipe === recipe);
      for (const row of rows) {
        dots.set(row, kit.make("button", {type: "button", class: "pcma-dot", onclick: () => { chosen = row; show(); }}));
      }
      means.push({rows, bar, said: line(recipe, bar, ...rows.map((row) => dots.get(row))).said});
    }
    const axis = line("").space;
    axis.style.borderBottom = "0";
    const say = kit.readout(root), panel = kit.row(root);

    const ticksOf = (low, high) => {
      const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= rough);
      const ticks = [];
      for (let k = Math.ceil(low / step); k * step <= high + 1e-9; k++) ticks.push(k * step);
      return ticks;
    };
    const show = () => {
      const [name, unit] = data.measures[measure], of = (row) => row.values[measure];
      const known = valuesOf(data.rows), spread = Math.max(...known) - Math.min(...known);
      const room = 0.06 * spread || 0.05, low = Math.min(...known) - room, high = Math.max(...known) + room;
      const across = (value) => `${((100 * (value - low)) / (high - low)).toFixed(2)}%`;
      for (const [row, dot] of dots) {
        dot.hidden = of(row) === null;
        dot.style.left = across(of(row) ?? low);
        dot.title = `${row.name}: ${text(of(row), unit)}`;
        dot.setAttribute("aria-label", dot.title);
        dot.setAttribute("aria-pressed", row === chosen);
      }
      for (const {rows, bar, said} of means) {
        const values = valuesOf(rows), middle = mean(values);
        bar.hidden = values.length < 2;
        bar.style.left = across(middle ?? low);
        said.textContent = text(middle, unit);
      }
      const ticks = ticksOf(low, high), digits = Math.max(1, Math.ceil(-Math.log10(ticks[1] - ticks[0]) - 1e-9));
      axis.replaceChildren(...ticks.map((v) =>
        kit.make("span", {class: "pcma-tick", style: `left: ${across(v)}`}, units[unit](v, digits))));
      say(`${chosen.name}: ${name} ${text(of(chosen), unit)}.`);

      const facts = kit.make("div", {class: "pcma-box"}), settings = Object.entries(chosen.settings);
      panel.replaceChildren(facts);
      facts.append(kit.make("strong", {}, chosen.name));
      kit.table(facts, ["what was set", ""])([
        ...["preset", "device"].filter((key) => chosen[key]).map((key) => [key, chosen[key]]), ...settings,
      ]);
      const results = kit.make("div", {class: "pcma-box"});
      panel.append(results);
      kit.table(results, ["what was measured", ""])(
        measured.map(([k, label]) => [label, text(chosen.values[k], data.measures[k][1])]));
      if (!chosen.curve) return;
      const others = data.rows.filter((row) => row.curve && row.recipe === chosen.recipe && row !== chosen);
      const x = chosen.curve.epoch, end = Math.max(...x), epochs = [0, end / 2, end].map((v) => [v, String(Math.round(v))]);
      const faint = {colour: kit.colours.confidence, width: 1, opacity: 0.7};
      kit.chart(facts, "validation mIoU", {x, xlabel: "epoch", limits: [0, 1], xlimits: [0, end], ticks: epochs, lines: [
        ...others.map(({curve}, k) =>
          ({x: curve.epoch, values: curve["per frame"], label: k ? "" : "other seeds", ...faint})),
        {label: "per frame", values: chosen.curve["per frame"], colour: kit.colours.prediction},
        {label: "whole set", values: chosen.curve["whole set"], colour: kit.colours.picture},
      ]});
    };
    show();
    return {get state() { return {measure, name: chosen.name, values: chosen.values}; }};
  };

  // Lesson 01: one slice of the sound under its window, its spectrum, the triangle of one band, and hertz beside mel.
  EXPLORERS.mel = (root, data, kit) => {
    const {make, draw, colours} = kit, [RATE, LENGTH, HOP, SIZE, BINS, BANDS] = [16000, 400, 160, 512, 257, 64];
    const wave = Float64Array.from(kit.numbers(data.wave).values, (v) => v / 32767);
    const slices = 1 + Math.floor((wave.length - LENGTH) / HOP);
    const mel = (hertz) => 1127 * Math.log(1 + hertz / 700), hertz = (m) => 700 * (Math.exp(m / 1127) - 1);
    const points = Array.from({length: BANDS + 2}, (_, k) => mel(125) + (k * (mel(7500) - mel(125))) / (BANDS + 1));
    const hann = Array.from({length: LENGTH}, (_, n) => 0.5 * (1 - Math.cos((2 * Math.PI * n) / LENGTH)));
    const triangles = Array.from({length: BANDS}, (_, b) => Float64Array.from({length: BINS}, (_, k) => {
      const m = mel((k * RATE) / SIZE), [from, centre, to] = points.slice(b, b + 3);
      return Math.max(0, Math.min((m - from) / (centre - from), (to - m) / (to - centre)));
    }));
    const transform = (real, imaginary) => { // the fast Fourier transform, in place
      for (let i = 1, j = 0; i < SIZE; i++) {
        let bit = SIZE >> 1;
        for (; j & bit; bit >>= 1) j ^= bit;
        j ^= bit;
        if (i < j) for (const part of [real, imaginary]) [part[i], part[j]] = [part[j], part[i]];
      }
      for (let half = 1; half < SIZE; half *= 2) {
        for (let k = 0; k < half; k++) {
          const c = Math.cos((Math.PI * k) / half), s = -Math.sin((Math.PI * k) / half);
          for (let i = k; i < SIZE; i += 2 * half) {
            const j = i + half, x = c * real[j] - s * imaginary[j], y = c * imaginary[j] + s * real[j];
            [real[j], imaginary[j]] = [real[i] - x, imaginary[i] - y];
            [real[i], imaginary[i]] = [real[i] + x, imaginary[i] + y];
          }
        }
      }
    };
    const transformed = (m) => {
      const real = new Float64Array(SIZE), imaginary = new Float64Array(SIZE);
      for (let n = 0; n < LENGTH; n++) real[n] = wave[m * HOP + n] * hann[n];
      transform(real, imaginary);
      return [real, imaginary];
    };
    const spectrum = (m) => {
      const [real, imaginary] = transformed(m);
      return Float64Array.from({length: BINS}, (_, k) => Math.hypot(real[k], imaginary[k]));
    };
    const sum = (magnitudes, b) => triangles[b].reduce((total, weight, k) => total + weight * magnitudes[k], 0);
    const heard = {height: BANDS, width: slices, values: new Float64Array(BANDS * slices)}; // the highest band on top
    for (let m = 0; m < slices; m++) {
      const magnitudes = spectrum(m);
      for (let b = 0; b < BANDS; b++) heard.values[(BANDS - 1 - b) * slices + m] = Math.log(sum(magnitudes, b) + 0.01);
    }

    let slice = data.slice, band = data.band, player = null, voice = null;
    const controls = kit.row(root);
    const start = kit.slider(controls, "slice", {max: slices - 1, value: slice,
      say: (m) => `${(m * HOP / RATE).toFixed(2)} s`},
      (m) => { slice = m; show(); });
    const choose = kit.slider(controls, "band", {max: BANDS - 1, value: band,
      say: (b) => `${b}, ${Math.round(hertz(points[b + 1]))} Hz`},
      (b) => { band = b; tone(); show(); });
    const buttons = kit.row(root);
    kit.button(buttons, "▶ the whole sound", () => sounded(wave));
    kit.button(buttons, "▶ this band alone", () => sounded(filtered(band)));
    const loud = kit.tick(buttons, "play a tone at the pitch of each band that I choose", false, () => tone());

    const plane = make("canvas", {width: 2 * slices, height: 256, role: "img", "aria-label": "log-mel values of the sound"});
    const places = (values, text, style) => make("div", {class: "pcma-ticks"},
      ...values.map((v) => make("span", {style: style(v)}, text(v))));
    const up = (f) => 1 - ((mel(f) - mel(125)) / (mel(7500) - mel(125)) * (BANDS + 1) - 0.5) / BANDS;
    root.append(make("div", {class: "pcma-plane"},
      places([500, 1000, 2000, 4000], (f) => `${f} Hz`, (f) => `right: 0.4em; top: ${100 * up(f)}%`), plane, make("div"),
      places([0, 1, 2, 3, 4], (s) => `${s} s`, (s) => `left: ${(100 * s * RATE) / HOP / slices}%`)));
    kit.pointed(plane, (x, y) => {
      [slice, band] = [Math.min(slices - 1, Math.floor(x * slices)), BANDS - 1 - Math.min(BANDS - 1, Math.floor(y * BANDS))];
      tone();
      show();
    });
    kit.scale(root, "-4.6, silence", "2 or more", "log(mel + 0.01)");
    const say = kit.readout(root), panels = kit.row(root);
    const panel = (caption) => {
      const image = draw("svg", {viewBox: "0 0 360 190", role: "img", "aria-label": caption});
      panels.append(make("div", {class: "pcma-panel"}, make("div", {class: "pcma-caption"}, caption), image));
      return image;
    };
    const [cut, whole, near, ladder] = ["the slice under its window", "its spectrum, and the band", "the band, close up",
      "the 64 bands, even in mel and uneven in hertz"].map(panel);
    const line = (xs, ys, colour, more = {}) => draw("polyline", {
      points: Array.from(xs, (x, k) => `${x.toFixed(1)},${ys[k].toFixed(1)}`).join(" "), fill: "none", stroke: colour,
        "stroke-width": 1.5, ...more});
    const text = (x, y, words, anchor = "middle") => draw("text", {x, y, "text-anchor": anchor}, words);
    const soft = {"stroke-opacity": 0.4}, grey = "currentColor";

    function show() {
      const magnitudes = spectrum(slice), total = sum(magnitudes, band), value = Math.log(total + 0.01);
      const edges = points.slice(band, band + 3), [from, centre, to] = edges.map(hertz);
      start.set(slice);
      choose.set(band);
      kit.paint(plane, {heat: {...heard, low: -4.6, high: 2}});
      const context = plane.getContext("2d"), step = plane.height / BANDS;
      context.fillStyle = "rgba(255, 255, 255, 0.85)";
      context.fillRect(2 * slice, 0, 2, plane.height);
      for (const edge of [BANDS - 1 - band, BANDS - band]) context.fillRect(0, edge * step - 1, plane.width, 2);

      const piece = wave.subarray(slice * HOP, slice * HOP + LENGTH), top = Math.max(1e-9, ...piece.map(Math.abs));
      const across = hann.map((_, n) => 10 + (340 * n) / LENGTH), high = (v) => 80 - 70 * v;
      cut.replaceChildren(line(across, piece.map((v) => high(v / top)), grey, soft),
        line(across, hann.map(high), grey, {"stroke-dasharray": "4 3"}),
        line(across, piece.map((v, n) => high((v * hann[n]) / top)), colours.sound),
        text(10, 182, "0 ms", "start"), text(350, 182, "25 ms", "end"), text(180, 182, `largest sample ${top.toFixed(2)}`));

      const most = Math.max(1e-9, ...magnitudes), place = (f) => 10 + (340 * f) / 8000, tall = (v) => 150 - (140 * v) / most;
      const bins = Array.from({length: BINS}, (_, k) => (k * RATE) / SIZE);
      whole.replaceChildren(
        draw("rect", {x: place(from), y: 10, width: place(to) - place(from), height: 140, fill: colours.doubt,
          "fill-opacity": 0.3}),
        line(bins.map(place), magnitudes.map(tall), colours.sound), line([10, 350], [150, 150], grey, soft),
        ...[0, 2000, 4000, 6000].map((f) => text(place(f) + (f ? 0 : 8), 166, `${f}`)), text(350, 166, "8000 Hz", "end"));

      const reach = to - from, zoom = (f) => 10 + (340 * (f - from + reach / 2)) / (2 * reach);
      const inside = bins.map((f, k) => [zoom(f), k]).filter(([x]) => x >= 10 && x <= 350);
      const loudest = Math.max(1e-9, ...inside.map(([, k]) => magnitudes[k])), rise = (v) => 150 - 130 * v;
      near.replaceChildren(
        ...inside.map(([x, k]) => line([x, x], [150, rise(magnitudes[k] / loudest)], colours.sound,
          {"stroke-width": 3, "stroke-opacity": triangles[band][k] ? 1 : 0.35})),
        line(edges.map((m) => zoom(hertz(m))), [150, 20, 150], colours.doubt, {"stroke-width": 2}),
          line([10, 350], [150, 150], grey, soft),
        text(zoom(from), 166, `${Math.round(from)}`), text(zoom(centre), 182, `${Math.round(centre)}`),
          text(zoom(to), 166, `${Math.round(to)} Hz`));

      const even = (m) => 10 + (340 * (m - points[0])) / (points.at(-1) - points[0]),
        uneven = (f) => 10 + (340 * (f - 125)) / 7375;
      const corner = (m) => `${even(m).toFixed(1)},40`, foot = (m) => `${uneven(hertz(m)).toFixed(1)},140`;
      ladder.replaceChildren(
        draw("polygon", {points: [corner(edges[0]), corner(edges[2]), foot(edges[2]), foot(edges[0])].join(" "),
          fill: colours.doubt, "fill-opacity": 0.5}),
        ...points.map((m) => line([even(m), uneven(hertz(m))], [40, 140], grey,
          {"stroke-width": 0.6, "stroke-opacity": 0.45})),
        text(10, 14, `mel: ${Math.round(points[0])}`, "start"), text(350, 14, `${Math.round(points.at(-1))}`, "end"),
          text(even(edges[1]), 32, `${Math.round(edges[1])}`),
        text(10, 182, "hertz: 125", "start"), text(350, 182, "7500", "end"),
          text(uneven(centre), 158, `${Math.round(centre)}`));

      const said = total.toFixed(total < 0.1 ? 4 : 2);
      say(`Slice ${slice} starts at ${(slice * HOP / RATE).toFixed(2)} s and lasts 25 ms. Band ${band} listens from `
        + `${Math.round(from)} to ${Math.round(to)} Hz. Its triangle sums the spectrum to ${said}, so the log-mel value is `
        + `log(${said} + 0.01) = ${value.toFixed(2)}.`);
    }
    kit.pointed(ladder, (x) => { band = Math.max(0, Math.min(BANDS - 1,
      Math.floor(((360 * x - 10) / 340) * (BANDS + 1) - 0.5))); tone(); show(); });

    // The sound through one triangle: each slice's transform times the weights, transformed back and added up.
    const filtered = (b) => {
      const out = new Float64Array(wave.length), weights = new Float64Array(wave.length);
      for (let m = 0; m < slices; m++) {
        const [real, imaginary] = transformed(m);
        for (let k = 0; k < SIZE; k++) {
          const weight = triangles[b][Math.min(k, SIZE - k)];
          real[k] *= weight;
          imaginary[k] *= -weight; // the conjugate turns the transform round
        }
        transform(real, imaginary);
        for (let n = 0; n < LENGTH; n++) {
          out[m * HOP + n] += real[n] / SIZE;
          weights[m * HOP + n] += hann[n];
        }
      }
      return out.map((v, n) => v / Math.max(weights[n], 0.1));
    };
    const sounded = (samples) => {
      voice ??= new AudioContext();
      voice.resume();
      player?.source.stop();
      const buffer = voice.createBuffer(1, samples.length, RATE), source = voice.createBufferSource(),
        began = voice.currentTime;
      buffer.copyToChannel(Float32Array.from(samples), 0);
      source.buffer = buffer;
      source.connect(voice.destination);
      source.start();
      player = {source};
      const own = player, follow = () => {
        const at = Math.floor(((voice.currentTime - began) * RATE) / HOP);
        if (player !== own || at >= slices) return;
        slice = Math.max(0, at);
        show();
        requestAnimationFrame(follow);
      };
      follow();
    };
    let last = -1;
    const tone = () => {
      if (!loud.value || last === band) return;
      last = band;
      voice ??= new AudioContext();
      voice.resume();
      const source = voice.createOscillator(), gain = voice.createGain(), now = voice.currentTime;
      source.frequency.value = hertz(points[band + 1]);
      gain.gain.setValueAtTime(0, now);
      gain.gain.linearRampToValueAtTime(0.2, now + 0.02);
      gain.gain.linearRampToValueAtTime(0, now + 0.3);
      source.connect(gain).connect(voice.destination);
      source.start();
      source.stop(now + 0.32);
    };
    show();
    return {filtered, value: (m, b) => heard.values[(BANDS - 1 - b) * slices + m],
      get state() { return {slice, band, playing: player !== null}; }};
  };

  // Lesson 03: the cosine of a pixel with the sound in each group, under one sound and the other.
  EXPLORERS.groups = async (root, data, kit) => {
    const {make} = kit, {names, seconds, groups, size} = data;
    const attention = data.attention.map((stages) => Object.fromEntries(Object.entries(stages).map(([i, packed]) => [i,
      kit.maps(packed)])));
    const truth = data.truth.map(kit.masks), frames = await Promise.all(data.frames.map(kit.picture)),
      voices = data.sounds.map(kit.sound);
    let sound = 0, stage = "4", second = data.second, [row, column] = data.pixel;
    const map = (which, n) => attention[which][stage][second * groups + n];
    const cell = () => { const side = map(0, 0).width;
      return [Math.floor((row * side) / size), Math.floor((column * side) / size), side]; };
    const value = (which, n) => { const [y, x, side] = cell(); return map(which, n).values[y * side + x]; };
    const point = (x, y) => { [row, column] = [y, x].map((share) => Math.min(size - 1, Math.floor(share * size))); show(); };

    const controls = kit.row(root);
    kit.radios(controls, "The sound is that of", names.map((name, k) => [k, name]), 0, (k) => { sound = k; show(); });
    kit.radios(controls, "Stage", [["4", "4, coarse"], ["3", "3"], ["2", "2"], ["1", "1, fine"]], "4",
      (i) => { stage = i; show(); });
    const listening = kit.row(root);
    kit.button(listening, "▶ listen", () => {
      voices.forEach((voice) => voice.pause());
      voices[sound].currentTime = 0;
      voices[sound].play().catch(() => {}); // cut short by another
    });
    kit.slider(listening, "frame of second", {max: seconds - 1, value: second}, (k) => { second = k; show(); });
    const both = kit.row(root), large = kit.canvas(both, "The frame. Point at a pixel, or press the arrow keys.", 512, 512);
    const bars = make("div", {class: "pcma-bars pcma-box"}),
      tiles = make("div", {class: "pcma-tiles pcma-halved", style: `--columns: ${groups}`});
    both.append(bars);
    bars.append(make("b", {}, "Its cosine with the sound"));
    const lines = Array.from({length: groups}, (_, n) => {
      const fill = make("i"), other = make("u"), number = make("output");
      bars.append(make("span", {}, `group ${n + 1}`), make("div", {class: "pcma-bar"}, fill, other), number);
      const canvas = kit.canvas(tiles, `group ${n + 1}`, 192, 192, `attention of group ${n + 1}`);
      kit.pointed(canvas, point);
      return {fill, other, number, canvas};
    });
    const rival = make("small", {class: "pcma-rival"});
    bars.append(rival);
    const say = kit.readout(root);
    root.append(tiles);
    kit.scale(root, "0, nothing in common", "1, same direction", "cosine");
    kit.pointed(large, point);
    kit.arrows(large, (dx, dy) => {
      const step = size / cell()[2];
      [row, column] = [row + dy * step, column + dx * step].map((place) => Math.max(0, Math.min(size - 1, place)));
      show();
    });

    function show() {
      const other = (sound + 1) % names.length, [y, x, side] = cell(), here = lines.map((_, n) => value(sound, n));
      const mark = (canvas) => kit.box(canvas, x / side, y / side, 1 / side, 1 / side),
        best = here.indexOf(Math.max(...here));
      kit.paint(large, {frame: frames[second], truth: truth[sound][second]});
      mark(large);
      lines.forEach(({fill, other: tick, number, canvas}, n) => {
        kit.paint(canvas, {heat: {...map(sound, n), low: 0, high: 1}, truth: truth[sound][second]});
        mark(canvas);
        fill.style.width = `${100 * here[n]}%`;
        tick.style.left = `${100 * value(other, n)}%`;
        number.value = here[n].toFixed(2);
      });
      rival.textContent = `The upright line is the value under the sound of ${names[other]}.`;
      say(`Row ${y + 1}, column ${x + 1} of the ${side} × ${side} places of stage ${stage}, while ${names[sound]} sounds. `
        + `Group ${best + 1} agrees most. Its cosine is ${here[best].toFixed(2)}, an angle of `
        + `${Math.round((Math.acos(Math.min(1, here[best])) * 180) / Math.PI)} degrees.`);
    }
    show();
    return {get state() {
      return {sound, stage, second, place: cell().slice(0, 2), playing: voices.map((voice) => !voice.paused)};
    }};
  };

  // Lesson 04: where the sound looks (eq. 3a), and which seconds a token hears (eq. 3b).
  EXPLORERS.looks = async (root, data, kit) => {
    const {make} = kit, {heads, seconds: T, size} = data, truth = kit.masks(data.truth),
      frames = await Promise.all(data.frames.map(kit.picture));
    const stages = Object.fromEntries(Object.entries(data.stages).map(([i, given]) => [i,
      {...given, asks: kit.masks(given.asks),
      looks: kit.maps(given.looks), hears: kit.numbers(given.hears).values}]));
    const sound = await kit.picture(data.sound), counted = Array.from({length: T}, (_, k) => k),
      numbered = Array.from({length: heads}, (_, h) => h);
    let stage = stages[4], second = data.second, [frame, row, column] = data.token;
    const side = () => stage.asks[0].width, place = () => row * side() + column;
    const looks = (h, k) => stage.looks[(h * T + second) * T + k];
    const hears = (h, k) => Math.round(100 * stage.hears[((h * T + frame) * side() ** 2 + place()) * T + k]); // percent
    const hear = (k) => { second = k; slider.set(k); show(); };

    const controls = kit.row(root), above = make("div", {class: "pcma-strips", style: `--seconds: ${T}`}),
      below = above.cloneNode();
    kit.radios(controls, "Stage", [[4, "4, coarse"], [3, "3"], [2, "2"], [1, "1, fine"]], 4, (i) => {
      const before = side();
      stage = stages[i];
      [row, column] = [row, column].map((at) => Math.floor(((at + 0.5) * side()) / before));
      show();
    });
    const slider = kit.slider(controls, "sound of second", {max: T - 1, value: second}, hear);
    const strip = (name, height, choose) => {
      const note = make("small"), canvases = counted.map((k) => {
        const canvas = make("canvas", {width: 192, height, role: "img", "aria-label": `${name}, second ${k}`});
        kit.pointed(canvas, (x, y) => choose(k, x, y));
        return canvas;
      });
      above.append(make("div", {}, make("b", {}, name), note), ...canvases);
      return {note, canvases};
    };
    const point = (k, x, y) => {
      [frame, row, column] = [k, ...[y, x].map((share) => Math.min(side() - 1, Math.floor(share * side())))];
      show();
    };
    const looking = kit.readout(root);
    root.append(above);
    above.append(make("span"), ...counted.map((k) => make("small", {}, `second ${k}`)));
    const voices = strip("sound", 128, hear), asking = strip("may ask", 192, point),
      seen = numbered.map((h) => strip(`head ${h + 1}`, 192, point));
    above.setAttribute("role", "group");
    above.setAttribute("aria-label", "tokens: move with the arrow keys");
    kit.arrows(above, (dx, dy) => {
      const across = Math.max(0, Math.min(T * side() - 1, frame * side() + column + dx));
      [frame, row, column] = [Math.floor(across / side()), Math.max(0, Math.min(side() - 1, row + dy)), across % side()];
      show();
    });
    kit.scale(root, "0", "4 or more", "times the mean weight");
    const hearing = kit.readout(root);
    root.append(below);
    const shares = numbered.map((h) => {
      const cells = counted.map(() => make("span", {class: "pcma-share"}));
      below.append(make("b", {}, `head ${h + 1}`), ...cells);
      return cells;
    });
    below.append(make("span"), ...counted.map((k) => make("small", {}, `second ${k}`)));

    function show() {
      const asked = stage.asks.reduce((sum, map) => map.values.reduce((a, b) => a + b, sum), 0);
      const n = side(), tokens = T * n * n, asks = stage.asks[frame].values[place()],
        cell = [column / n, row / n, 1 / n, 1 / n];
      voices.canvases.forEach((canvas, k) => {
        const part = sound.width / T;
        canvas.getContext("2d").drawImage(sound, k * part, 0, part, sound.height, 0, 0, canvas.width, canvas.height);
        if (k === second) kit.box(canvas, 0, 0, 1, 1, kit.colours.sound);
      });
      [asking, ...seen].forEach(({canvases}, line) => canvases.forEach((canvas, k) => {
        kit.paint(canvas, {truth: truth[k], ...(line ? {heat: {...looks(line - 1, k), low: 0,
          high: 4}} : {frame: frames[k], cells: stage === stages[4] ? null : stage.asks[k]})});
        if (k === frame) kit.box(canvas, ...cell);
      }));
      asking.note.textContent = stage === stages[4] ? `all ${tokens} tokens` : `${asked} of ${tokens} tokens`;
      seen.forEach(({note}, h) => { note.textContent = `${stage.on_object[h][second]} % on the object`; });
      looking(`The sound of second ${second} asks ${tokens} tokens, each of ${size / n} × ${size / n} pixels. What sounds `
        + `fills ${stage.fills} % of them. Bright is where a head of equation 3a puts its weight.`);
      hearing(`You point at the token in row ${row + 1}, column ${column + 1} of second ${frame}. The heads give it `
        + `${numbered.map((h) => looks(h, frame).values[place()].toFixed(1)).join(", ")} times the mean weight. `
        + (asks ? "It may ask the sound itself. This is how it shares its weight among the seconds in equation 3b."
          : "It was settled before and asks nothing. Had it asked, equation 3b would have shared its weight like this."));
      shares.forEach((cells, h) => cells.forEach((cell, k) => {
        cell.textContent = `${hears(h, k)} %`;
        cell.style.setProperty("--share", `${hears(h, k)}%`);
        cell.classList.toggle("pcma-idle", !asks);
      }));
    }
    show();
    return {get state() { return {second, token: [frame, row, column], side: side()}; }};
  };

  // Lesson 06: the diagram of the whole network, tensor by tensor, with what is in each.
  EXPLORERS.network = async (root, data, kit) => {
    const {make} = kit, {steps, size} = data, truth = kit.masks(data.truth), counted = truth.map((_, k) => k);
    const frames = await Promise.all(data.frames.map(kit.picture));
    for (const step of steps) {
      if (step.maps) step.maps = kit.maps(step.maps);
      if (step.masks) step.masks = kit.masks(step.masks);
      if (step.some) step.some = kit.maps(step.some);
    }
    let at = 0, second = data.second, cell = null;

    const controls = kit.row(root);
    const back = kit.button(controls, "◀ back", () => go(at - 1));
    const next = kit.button(controls, "next ▶", () => go(at + 1));
    const slider = kit.slider(controls, "step", {max: steps.length - 1, value: at,
      say: (k) => `${k + 1} of ${steps.length}`}, (k) => go(k));
    const light = make("div", {class: "pcma-light"}), sheet = make("div", {class: "pcma-sheet"}),
      view = make("div", {class: "pcma-view"}, sheet);
    const share = (v, whole) => `${(100 * v) / whole}%`;
    const put = (element, [x, y, width, height]) => Object.assign(element.style,
      {left: share(x, size[0]), top: share(y, size[1]), width: share(width, size[0]), height: share(height, size[1])});
    sheet.append(make("img", {src: data.diagram, alt: "The whole network, from the frames and the sound to the mask"}),
      light);
    steps.forEach((step, k) => {
      const button = make("button", {type: "button", tabindex: -1, class: "pcma-spot", "aria-label": step.name,
        title: step.name, onclick: () => go(k)});
      put(button, step.place);
      sheet.append(button);
    });
    root.append(view);
    const both = kit.row(root), large = kit.canvas(both, "", 512, 512, "the tensor in the chosen second"),
      side = make("div", {class: "pcma-box"});
    const title = make("div", {class: "pcma-title"});
    const tiles = make("div", {class: "pcma-tiles", style: `--columns: ${counted.length}`});
    large.box.style.maxWidth = "300px";
    both.append(side);
    side.append(title);
    const say = kit.readout(side);
    side.append(tiles);
    const value = kit.readout(side), channels = make("p", {class: "pcma-said"}), eight = tiles.cloneNode();
    eight.style.setProperty("--columns", 8);
    root.append(channels, eight);
    const some = steps.find((step) => step.some).some.map((_, k) => kit.canvas(eight, "", 96, 96, `channel ${k}`));
    const small = counted.map((k) => {
      const canvas = kit.canvas(tiles, `second ${k}`, 192, 192);
      kit.pointed(canvas, () => { second = k; show(); });
      return canvas;
    });
    const time = kit.slider(controls, "second", {max: counted.length - 1, value: second}, (k) => { second = k; show(); });
    kit.pointed(large, (x, y) => { cell = [x, y]; tell(); });

    const bars = (canvas, values, low, high) => {
      const context = canvas.getContext("2d"), {width, height} = canvas,
        up = (v) => height - ((v - low) / (high - low || 1)) * height;
      context.clearRect(0, 0, width, height);
      context.fillStyle = kit.colours.sound;
      values.forEach((v, k) => context.fillRect((k * width) / values.length, Math.min(up(v), up(Math.max(low, 0))),
        width / values.length - (width > 300), Math.max(1, Math.abs(up(v) - up(Math.max(low, 0))))));
    };
    const fill = (canvas, step, k) => {
      if (step.kind === "vector") return bars(canvas, step.maps[k].values, step.low, step.high);
      const drawn = {frame: {}, mask: {cells: step.masks?.[k]}, probability: {prediction: step.maps?.[k]},
        marked: {prediction: step.masks?.[k]}}[step.kind];
      kit.paint(canvas, {truth: step.kind === "sound" ? null : truth[k],
        ...(drawn ? {frame: frames[k], ...drawn} : {heat: {...step.maps[k], low: step.low, high: step.high}})});
    };
    function tell() {
      const step = steps[at], map = (step.maps ?? step.masks)?.[second];
      if (!map) return value("");
      const [x, y] = cell ?? [0.5, 0.5], column = Math.min(map.width - 1, Math.floor(x * map.width)),
        row = Math.min(map.height - 1, Math.floor(y * map.height));
      const number = map.values[row * map.width + column];
      const place = {vector: `Channel ${column}`, sound: `Slice ${column}, band ${map.height - 1 - row}`}[step.kind]
        ?? `Row ${row + 1}, column ${column + 1}`;
      value(`${place} in second ${second}: ${step.states?.[number] ?? (Math.abs(number) < 0.005 ? 0 : number).toFixed(2)}`);
    }
    function go(k) { at = Math.max(0, Math.min(steps.length - 1, k)); slider.set(at); show(); }
    function show() {
      const step = steps[at], [x, y, width, height] = step.place, scale = sheet.clientWidth / size[0];
      put(light, step.place);
      view.scrollTo({left: (x + width / 2) * scale - view.clientWidth / 2,
        top: (y + height / 2) * scale - view.clientHeight / 2, behavior: "smooth"});
      [back.disabled, next.disabled] = [at === 0, at === steps.length - 1];
      time.set(second);
      title.textContent = `${step.name}: ${step.shape}`;
      say(step.said);
      large.caption.textContent = step.caption;
      channels.hidden = eight.hidden = !step.some;
      const count = step.shape.split(", ")[1];
      channels.textContent = `Eight of the ${count} channels in second ${data.second}, those that vary most:`;
      const all = step.some?.flatMap(({values}) => [...values]) ?? [], low = Math.min(...all), high = Math.max(...all);
      step.some?.forEach((map, k) => {
        kit.paint(some[k], {heat: {...map, low, high}});
        some[k].caption.textContent = step.chosen[k];
      });
      fill(large, step, second);
      small.forEach((canvas, k) => { fill(canvas, step, k);
        if (k === second) kit.box(canvas, 0, 0, 1, 1, kit.colours.doubt); });
      tell();
    }
    requestAnimationFrame(show);
    show();
    return {go, get state() { return {at, second}; }};
  };

  const start = async (root) => {
    root.dataset.started = "";
    root.dataset.lmSuppressShortcuts = "true"; // JupyterLab leaves our keys alone
    root.addEventListener("keydown", (event) => event.stopPropagation());
    if (!document.getElementById("pcma-explorer-style")) {
      const style = document.createElement("style");
      style.id = "pcma-explorer-style";
      style.textContent = STYLE;
      document.head.append(style);
    }
    const {colours, ...data} = JSON.parse(root.querySelector("script").textContent), kit = toolkit(colours);
    const body = kit.make("div", {class: "pcma-body"});
    root.explorer = (await EXPLORERS[root.dataset.kind](body, data, kit)) ?? {};
    root.querySelector("img").remove(); // the picture for pages without scripts
    root.append(body);
    root.dataset.ready = "";
  };
  for (const root of document.querySelectorAll(".pcma-explorer:not([data-started])")) start(root);
})();
