// One clip on the page. It draws what `look` says and tells the page what the reader did; it keeps
// no state of its own but the elements.

const STRIPE = 5; // pixels of each colour of an edge of several rules
const SVG = "http://www.w3.org/2000/svg";

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
// Three digits; of a thousand and more, all of the whole number.
function number(value) {
  if (value === 0) return "0";
  const text = Math.abs(value) >= 999.5 ? value.toFixed(0) : value.toPrecision(3);
  return text.replaceAll("-", "−");
}
const listed = new Intl.ListFormat("en-GB");
const percent = (value) => `${(100 * value).toFixed(1)} %`;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children); // strings become text, never markup
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Most nodes stay as they are under a moving pointer; the browser would lay out the others for nothing.
function put(node, key, value) {
  if (node.getAttribute(key) !== String(value)) node.setAttribute(key, value);
}

// Colour [r, g, b] and opacity of a value, by the figures' colours. What lies at or below `low` (the
// mean) lets the frame show through; of signed values, 0 does.
function paint(value, { low, high, signed }, colors) {
  const share = signed ? (clamp(value / (high || 1), -1, 1) + 1) / 2 : clamp((value - low) / (high - low || 1), 0, 1);
  const steps = signed ? colors.signed : colors.plain;
  const at = share * (steps.length - 1);
  const [left, right] = [steps[Math.floor(at)], steps[Math.ceil(at)]];
  const [red, green, blue, opacity] = left.map((from, i) => from + (right[i] - from) * (at % 1));
  return [[red, green, blue].map(Math.round), opacity];
}

class Viewer {
  constructor(clip, { rules, colors }, tell) {
    Object.assign(this, { clip, rules, colors, tell });
    const root = document.getElementById("viewer").content.firstElementChild.cloneNode(true);
    this.root = root;
    this.parts = Object.fromEntries(
      [...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    this.moved = false; // a pointer that rests where this clip appears has not chosen anything
    this.makeHeader();
    this.makeScrub();
    this.nodes = { patch: this.makePatches(), segment: this.makeSegments() };
    this.makeClasses();
    this.listen("patch", this.parts.patches, clip.grid[1]);
    this.listen("segment", this.parts.strip, 1);
    this.parts.scrub.addEventListener("input", () => tell.frame(Number(this.parts.scrub.value)));
    this.parts.play.addEventListener("click", () => tell.play());
  }

  // Making, once

  makeHeader() {
    const { clip, parts } = this;
    parts.name.textContent = clip.name;
    parts.verdict.append(...verdict(clip));
  }

  // A tick under each frame that the patches come from, and the same in words; both count from 1.
  makeScrub() {
    const { frames, patch_frames } = this.clip;
    this.parts.scrub.max = frames.length - 1;
    this.parts.ticks.append(...patch_frames.map((index) => {
      const tick = element("i");
      tick.style.setProperty("--at", index / (frames.length - 1 || 1));
      return tick;
    }));
    const numbers = patch_frames.map(String);
    this.parts.sources.hidden = !numbers.length; // not known of an extractor of somebody's own
    this.parts.sources.textContent = numbers.length === frames.length ? "The patches come from all frames"
      : `The patches come from ${numbers.length === 1 ? "frame" : "frames"} ${listed.format(numbers)}`;
  }

  makePatches() {
    const [rows, columns] = this.clip.grid;
    const [width, height] = this.clip.size;
    this.parts.overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.parts.stage.style.aspectRatio = `${width} / ${height}`;
    const [w, h] = [width / columns, height / rows];
    this.box = (index) => ({ x: (index % columns) * w, y: Math.floor(index / columns) * h, width: w, height: h });
    return Array.from({ length: rows * columns }, (_, index) => {
      const patch = drawn("rect", { ...this.box(index), class: "patch", role: "option" });
      this.parts.patches.append(patch);
      return patch;
    });
  }

  makeSegments() {
    const count = this.clip.temporal.nodes;
    this.parts.arcs.setAttribute("viewBox", `0 0 ${count} 1`);
    this.parts.reel.style.minWidth = `${count * 40}px`;
    this.parts.reel.style.maxWidth = `${count * 140}px`; // few segments: no thumbnail as large as the frame
    return Array.from({ length: count }, (_, index) => {
      const thumbnail = element("img", { src: this.clip.frames[this.clip.segment_frames[index]], alt: "" });
      const segment = element("div", { class: "segment", role: "option" },
        thumbnail, element("div", { class: "heat" }), element("span", { class: "number" }));
      this.parts.strip.append(segment);
      return segment;
    });
  }

  makeClasses() {
    for (const entry of this.clip.classes) {
      const button = element("button", { type: "button", "data-label": entry.label },
        element("bdi", { class: "name" }, entry.name),
        element("span", { class: "number" }, percent(entry.probability)));
      if (entry.label === this.clip.truth) {
        button.firstChild.append(" ", element("em", { class: "tag" }, "true"));
      }
      button.style.setProperty("--share", entry.probability);
      button.addEventListener("click", () => this.tell.class(entry.label));
      this.parts.classes.append(element("li", {}, button));
    }
  }

  // Pointer, tap and keys. One node of a kind can be reached with Tab, the arrows reach the others.
  listen(kind, holder, columns) {
    const nodes = this.nodes[kind];
    const choose = (index) => this.tell.choose(
      { kind, index }, kind === "segment" ? this.clip.segment_frames[index] : null);
    const indexOf = (event) => nodes.indexOf(event.target.closest("[role=option]"));
    nodes.forEach((node, index) => node.setAttribute("tabindex", index ? -1 : 0));
    const point = (event) => {
      if (event.pointerType !== "touch" && indexOf(event) >= 0) {
        this.tell.point({ kind, index: indexOf(event) });
      }
    };
    holder.addEventListener("pointerover", (event) => {
      if (this.moved) point(event);
    });
    holder.addEventListener("pointermove", (event) => {
      if (this.moved) return;
      this.moved = true;
      point(event);
    });
    holder.addEventListener("pointerleave", () => this.tell.point(null));
    holder.addEventListener("click", (event) => {
      if (indexOf(event) >= 0) choose(indexOf(event));
    });
    holder.addEventListener("focusin", (event) => {
      const index = indexOf(event);
      if (index < 0) return;
      nodes.forEach((node, other) => node.setAttribute("tabindex", other === index ? 0 : -1));
      if (event.target.matches(":focus-visible")) this.tell.point({ kind, index });
    });
    holder.addEventListener("focusout", () => this.tell.point(null));
    holder.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return; // the browser's own, such as Back
      const index = indexOf(event);
      const column = index % columns;
      const wide = columns > 1;
      const next = {
        ArrowRight: wide && column === columns - 1 ? index : index + 1,
        ArrowLeft: wide && column === 0 ? index : index - 1,
        ArrowDown: index + columns,
        ArrowUp: index - columns,
        Home: 0,
        End: nodes.length - 1,
      }[event.key];
      if (next !== undefined) {
        (nodes[next] ?? nodes[index]).focus();
      } else if (event.key === "Enter" || event.key === " ") {
        choose(index);
      } else {
        return;
      }
      event.preventDefault();
    });
  }

  // What the clip has of the node that the reader chose, perhaps in another clip.
  own(chosen) {
    return chosen && chosen.index < this.nodes[chosen.kind].length ? chosen : null;
  }

  // Drawing, at every change

  drawFrame(frame, playing) {
    const { clip, parts } = this;
    const index = Math.min(frame, clip.frames.length - 1);
    if (parts.frame.getAttribute("src") !== clip.frames[index]) parts.frame.src = clip.frames[index];
    const place = `${index} of 0 to ${clip.frames.length - 1}`; // as patches and segments are numbered
    parts.frame.alt = `Frame ${place}`;
    parts.scrub.value = index;
    const source = clip.patch_frames.includes(index) ? ", the patches come from it" : "";
    parts.scrub.setAttribute("aria-valuetext", parts.frame.alt + source);
    const time = clip.times ? `${clip.times[index].toFixed(2)} s · ` : "";
    parts.time.textContent = `${time}frame ${place}`;
    parts.play.textContent = playing ? "❚❚" : "▶";
    parts.play.setAttribute("aria-label", playing ? "Pause" : "Play");
    const now = Math.floor((index * clip.temporal.nodes) / clip.frames.length);
    this.nodes.segment.forEach((node, i) => node.classList.toggle("now", i === now));
  }

  draw(seen, state, chosen, scales) {
    const { parts } = this;
    // It is read out when it changes, also where only its text is set anew.
    if (parts.caption.textContent !== seen.caption) parts.caption.textContent = seen.caption;
    for (const kind of ["patch", "segment"]) this.drawNodes(kind, seen, chosen, scales[kind]);
    this.drawScale(seen.patch, scales.patch);
    this.drawPatchLinks(seen.links.patch, scales.patch.edges, Boolean(chosen));
    this.drawArcs(seen.links.segment, scales.segment.edges, Boolean(chosen));
    parts.arcs.toggleAttribute("hidden", state.view !== "graph");
    this.drawRules(seen.links);
    this.drawReading(seen, state, chosen, scales);
  }

  drawNodes(kind, seen, chosen, scale) {
    this.nodes[kind].forEach((node, index) => {
      const value = seen[kind]?.[index] ?? null;
      const shown = value !== null && Math.abs(value) >= scale.cut;
      const [color, opacity] = shown ? paint(value, scale, this.colors) : [[0, 0, 0], 0];
      const own = chosen?.kind === kind && chosen.index === index;
      put(node, "aria-selected", own);
      put(node, "aria-label", this.nameOf(kind, index) + (shown ? `: ${number(value)}` : ""));
      if (kind === "patch") {
        put(node, "fill", `rgb(${color})`);
        put(node, "fill-opacity", opacity.toFixed(3));
      } else {
        // Segments are few: bars with their numbers.
        const [, bar, label] = node.children;
        bar.style.visibility = seen.segment ? "visible" : "hidden";
        bar.style.setProperty("--share", shown ? clamp(Math.abs(value) / (scale.high || 1), 0, 1) : 0);
        const sign = `rgb(${value < 0 ? this.colors.below : this.colors.above})`;
        bar.style.setProperty("--color", scale.signed ? sign : "var(--accent)");
        label.textContent = shown ? number(value) : "";
      }
    });
    if (kind === "patch") {
      const ring = chosen?.kind === "patch";
      this.parts.ring.toggleAttribute("hidden", !ring);
      if (ring) {
        for (const [key, value] of Object.entries(this.box(chosen.index))) this.parts.ring.setAttribute(key, value);
      }
    }
  }

  drawScale(values, scale) {
    const { parts } = this;
    parts.scale.style.visibility = values ? "visible" : "hidden";
    if (!values) return;
    const least = scale.signed ? -scale.high : 0;
    this.drawRamp(least, scale);
    parts.low.textContent = number(least);
    parts.high.textContent = number(scale.high);
    for (const part of [parts.mark, parts.mean]) part.hidden = scale.signed || !scale.low;
    parts.mean.textContent = `mean ${number(scale.low)}`;
    parts.scale.style.setProperty("--at", scale.high ? scale.low / scale.high : 0);
    parts.scale.setAttribute("aria-label", `Colours from ${number(least)} to ${number(scale.high)}`);
  }

  drawRamp(least, scale) {
    const { ramp } = this.parts;
    const look = `${scale.signed} ${scale.low / (scale.high || 1)}`; // all that its colours depend on
    if (ramp.dataset.look === look) return;
    ramp.dataset.look = look;
    const ink = ramp.getContext("2d");
    ink.clearRect(0, 0, ramp.width, 1);
    for (let x = 0; x < ramp.width; x += 1) {
      const [color, opacity] = paint(least + ((scale.high - least) * x) / (ramp.width - 1), scale, this.colors);
      ink.fillStyle = `rgba(${color}, ${opacity})`;
      ink.fillRect(x, 0, 1, 1);
    }
  }

  drawPatchLinks(links, scale, strong) {
    const middle = (index) => {
      const { x, y, width, height } = this.box(index);
      return [x + width / 2, y + height / 2];
    };
    this.parts.links.replaceChildren(...links.filter(({ value }) => value >= scale.cut).map((link) => {
      const [[x1, y1], [x2, y2]] = [middle(link.source), middle(link.target)];
      return this.strokes(link, `M${x1} ${y1}L${x2} ${y2}`, scale, strong);
    }));
  }

  drawArcs(links, scale, strong) {
    const shown = links.filter(({ value }) => value >= scale.cut);
    const reach = Math.max(1, ...shown.map(({ source, target }) => Math.abs(source - target)));
    this.parts.arcs.replaceChildren(...shown.map((link) => {
      const [x1, x2] = [link.source + 0.5, link.target + 0.5];
      const top = 1 - 1.25 * (Math.abs(x1 - x2) / reach);
      return this.strokes(link, `M${x1} 1C${x1} ${top} ${x2} ${top} ${x2} 1`, scale, strong);
    }));
  }

  // A pale casing, so that dark edges show on a dark frame, and a stroke in the colour of each rule.
  strokes(link, path, scale, strong) {
    const { source, target, value } = link;
    const group = drawn("g", { class: "edge", "data-source": source, "data-target": target, "data-value": value });
    group.classList.toggle("strong", strong);
    const width = (strong ? 1.2 : 0.8) + (strong ? 3.2 : 1.6) * clamp(value / (scale.high || 1), 0, 1);
    const colors = this.rules.filter(({ bit }) => link.rule & bit).map(({ color }) => color);
    if (!colors.length) colors.push(this.colors.no_rule);
    const period = STRIPE * colors.length;
    group.append(drawn("path", { d: path, class: "casing", "stroke-width": width + 1.6 }));
    colors.forEach((stroke, i) => group.append(drawn("path", {
      d: path,
      stroke,
      "stroke-width": width,
      ...(colors.length > 1 && { "stroke-dasharray": `${STRIPE} ${period - STRIPE}`, "stroke-dashoffset": -i * STRIPE }),
    })));
    return group;
  }

  drawRules(links) {
    const drawnRules = [...links.patch, ...links.segment].reduce((bits, { rule }) => bits | rule, 0);
    this.parts.rules.replaceChildren(...this.rules.filter(({ bit }) => bit & drawnRules).map((rule) =>
      element("li", {}, this.chip(rule), rule.name)));
  }

  chip({ color }) {
    const chip = element("i", { class: "chip" });
    chip.style.background = color;
    return chip;
  }

  drawReading(seen, state, chosen, scales) {
    const { parts, clip } = this;
    parts.title.textContent = chosen ? this.nameOf(chosen.kind, chosen.index) : "Whole clip";
    parts.note.textContent = seen.note;
    const shownClass = state.view === "evidence" ? classShown(clip, state)?.label : undefined;
    for (const button of parts.classes.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", Number(button.dataset.label) === shownClass);
    }
    const rows = seen.rows?.filter(({ kind, value }) => value >= scales[kind].cut);
    const [head, body] = seen.classes ? this.classRows(seen)
      : rows ? this.nodeRows(rows)
      : seen.sums ? [[], seen.sums.map(([name, value]) => [name, number(value)])] : [[], []];
    const row = (cell) => (values) => element("tr", {}, ...values.map((value) => element(cell, {}, ...[value].flat())));
    parts.head.replaceChildren(...(head.length ? [row("th")(head)] : []));
    parts.rows.replaceChildren(...body.map(row("td")));
    if (rows && !seen.classes) {
      rows.forEach(({ index }, i) => { parts.rows.children[i].dataset.index = index; });
    }
    parts.rows.closest(".rows").hidden = !body.length;
  }

  classRows(seen) {
    return [["class", "adds"], seen.classes.map(({ name, value }) => [name, number(value)])];
  }

  nodeRows(rows) {
    const withRule = rows.length > 0 && rows[0].rule !== undefined;
    const withSimilarity = withRule && rows[0].similarity !== null;
    const head = ["attended", ...(withRule ? ["rule"] : []), ...(withSimilarity ? ["similarity"] : []), "attention"];
    return [[rows[0]?.kind ?? "", ...head.slice(1)], rows.map((one) => [
      this.nameOf(one.kind, one.index).replace(/^\w+ /, ""),
      ...(withRule ? [this.ruleCell(one)] : []),
      ...(withSimilarity ? [number(one.similarity)] : []),
      number(one.value),
    ])];
  }

  ruleCell({ rule }) {
    const made = this.rules.filter(({ bit }) => rule & bit);
    return [...made.map((one) => this.chip(one)), made.map(({ name }) => name).join(" + ")];
  }

  nameOf(kind, index) {
    const columns = this.clip.grid[1];
    return kind === "segment" ? `Segment ${index}`
      : `Patch ${index} (row ${Math.floor(index / columns)}, column ${index % columns})`;
  }
}

// Right or wrong, in words and by mark, where the true class is known.
function verdict(clip) {
  const [best] = clip.classes;
  const said = [element("bdi", { class: "said" }, best.name), `, ${percent(best.probability)}`];
  if (clip.truth === null) return said;
  const right = best.label === clip.truth;
  const mark = element("strong", { class: right ? "right" : "wrong" }, right ? "✓ right" : "✗ wrong");
  const truth = clip.classes.find(({ label }) => label === clip.truth).name;
  if (right) return [mark, " ", ...said];
  return [mark, " ", ...said, element("span", { class: "note" }, " (true: ", element("bdi", {}, truth), ")")];
}
