// The page: its state, in one place and in the address, and who draws it.

const data = prepare(JSON.parse(document.getElementById("data").textContent));
const FRAMES_A_SECOND = 8; // where the clip does not know its times
const BEGINNING = {
  clip: data.clips.length === 1 ? [0] : [], // none: the index; two: side by side
  view: "graph",
  edges: "in",
  layer: "action",
  direction: "motion_to_semantic",
  head: "mean",
  class: "top",
  threshold: 0, // percent of the largest value shown
  frame: null, // one that the patches come from
  chosen: null,
};

let state = { ...BEGINNING };
let pointed = null; // under the pointer or the focus: goes before what was chosen
let viewers = [];
let timer = null;
const marked = new Set();
const byId = (id) => document.getElementById(id);

function prepare(value) {
  if (value === null || typeof value !== "object") return value;
  if (value.base64 !== undefined) return new Tensor(value);
  for (const key of Object.keys(value)) value[key] = prepare(value[key]);
  return value;
}

// The address

function written(shown) {
  const { clip, chosen, ...plain } = shown;
  const all = { ...plain, clip: clip.join("+"), chosen: chosen ? `${chosen.kind}${chosen.index}` : "" };
  const beginning = { ...BEGINNING, clip: BEGINNING.clip.join("+"), chosen: "" };
  return Object.entries(all)
    .filter(([key, value]) => value !== beginning[key])
    .map(([key, value]) => `${key}=${value}`)
    .join("&");
}

// What the address says, as far as it makes sense here.
function read(hash) {
  const given = Object.fromEntries(hash.slice(1).split("&").map((pair) => pair.split("=")));
  const next = { ...BEGINNING };
  const oneOf = (key, allowed) => { if (allowed.includes(given[key])) next[key] = given[key]; };
  const whole = (text, end) => (/^\d{1,6}$/.test(text) && Number(text) < end ? Number(text) : null);
  const clips = (given.clip ?? "").split("+").map((text) => whole(text, data.clips.length));
  if (given.clip && clips.length <= 2 && !clips.includes(null)) next.clip = clips;
  // On the index, what holds for some clip is kept for the next one that is opened.
  const shown = next.clip.length ? next.clip.map((index) => data.clips[index]) : data.clips;
  oneOf("view", views(shown));
  oneOf("edges", ["in", "out"]);
  oneOf("layer", ["basic", "pattern", "action"]);
  oneOf("direction", ["motion_to_semantic", "semantic_to_motion"]);
  next.head = whole(given.head, headsOf(shown)) ?? next.head;
  if (shown.some(({ classes }) => classes.some(({ label }) => String(label) === given.class))) {
    next.class = Number(given.class);
  }
  next.threshold = whole(given.threshold, 101) ?? next.threshold;
  next.frame = whole(given.frame, Math.max(0, ...shown.map(({ frames }) => frames.length))) ?? null;
  const [, kind, index] = /^(patch|segment)(\d{1,6})$/.exec(given.chosen ?? "") ?? [];
  const nodes = kind ? Math.max(0, ...shown.map((clip) => clip[STREAMS[kind]].nodes)) : 0;
  if (kind && Number(index) < nodes) next.chosen = { kind, index: Number(index) };
  return next;
}

// Late fusion has no cross-attention.
function views(clips) {
  const crossing = clips.length > 0 && clips.every(({ layers }) => Object.keys(layers).length);
  return ["graph", ...(crossing ? ["cross"] : []), "evidence"];
}

const headsOf = (clips) => Math.min(...clips.map(({ heads }) => heads));

let pending = null;
function remember() {
  clearTimeout(pending); // browsers refuse too many changes of the address a second
  pending = setTimeout(() => history.replaceState(null, "", `#${written(state)}`), 150);
}

// Changes

function change(what) {
  Object.assign(state, what);
  remember();
  draw();
}

// Opening clips is a step that the browser's Back takes back.
function open(clip) {
  clearTimeout(pending);
  location.hash = written({ ...state, clip, chosen: null, frame: null });
}

const tell = {
  point(node) {
    if (pointed?.kind === node?.kind && pointed?.index === node?.index) return;
    pointed = node;
    draw();
  },
  // Choosing again lets go. With a segment goes its frame.
  choose(node, frame) {
    const same = state.chosen?.kind === node.kind && state.chosen.index === node.index;
    if (same) pointed = null;
    change(same ? { chosen: null } : { chosen: node, frame: frame ?? state.frame });
  },
  class: (label) => change({ view: "evidence", class: label }),
  frame(frame) {
    stop();
    change({ frame });
  },
  play() {
    if (timer === null) step();
    else stop();
    change({});
  },
};

function stop() {
  clearTimeout(timer);
  timer = null;
}

function step() {
  const { frames, times } = viewers[0].clip;
  const even = 1 / FRAMES_A_SECOND;
  // A short video repeats frames, which have the same time: they share it.
  const lasts = (frame) => {
    if (!times) return 1000 * even;
    const next = times.findIndex((time) => time > times[frame]);
    const seconds = next < 0 ? even : times[next] - times[frame];
    const repeats = times.filter((time) => time === times[frame]).length;
    return 1000 * clamp(seconds, 0.02, 2) / repeats;
  };
  timer = setTimeout(() => {
    state.frame = (state.frame + 1) % frames.length;
    for (const viewer of viewers) viewer.drawFrame(state.frame, true);
    step();
  }, lasts(state.frame));
}

// Drawing

// One colour scale for all clips shown, so that they can be compared.
function scaleOf(kind, all) {
  const values = all.flatMap((seen) => (seen[kind] ?? []).filter((value) => value !== null));
  const signed = all.some((seen) => seen.signed);
  const neighbours = all.some((seen) => seen.around === kind); // all of them are to be seen
  const largest = Math.max(0, ...values.map(Math.abs));
  const low = signed || neighbours || !values.length ? 0 : mean(values);
  const high = Math.max(largest, 2 * low); // so that nearly uniform values look nearly uniform
  const share = state.threshold / 100; // 1 at most, so that rounding never hides the largest
  const scale = { high, low, signed, cut: largest * share };
  // What a node receives is a sum: single edges are measured by the largest of them.
  const links = Math.max(0, ...all.flatMap((seen) => seen.links[kind].map(({ value }) => value)));
  return { ...scale, edges: neighbours ? scale : { high: links, cut: links * share } };
}

function draw() {
  const chosen = pointed ?? state.chosen;
  const all = viewers.map((viewer) => look(viewer.clip, state, viewer.own(chosen)));
  const scales = { patch: scaleOf("patch", all), segment: scaleOf("segment", all) };
  viewers.forEach((viewer, i) => {
    viewer.drawFrame(state.frame, timer !== null);
    viewer.draw(all[i], state, viewer.own(chosen), scales);
  });
  drawSwitches(scales, all);
}

function drawSwitches(scales, all) {
  const form = byId("switches");
  for (const part of form.querySelectorAll("[data-for]")) {
    part.hidden = !part.dataset.for.split(" ").includes(state.view);
  }
  for (const key of ["view", "edges", "layer", "direction", "head", "class", "threshold"]) {
    form.elements[key].value = state[key];
  }
  const kinds = ["patch", "segment"].filter((kind) => all.some((seen) => seen[kind]));
  byId("cut").textContent = state.threshold
    ? kinds.map((kind) => number(scales[kind].cut)).join(" · ")
    : "0";
  form.elements.threshold.setAttribute("aria-valuetext", `${state.threshold} %: ${byId("cut").textContent}`);
}

// From the address to the elements: the index, one viewer or two.
function show() {
  stop();
  pointed = null;
  state = read(location.hash);
  const clips = state.clip.map((index) => data.clips[index]);
  viewers = clips.map((clip) => new Viewer(clip, data, tell));
  byId("viewers").replaceChildren(...viewers.map(({ root }) => root));
  byId("viewers").classList.toggle("two", viewers.length === 2);
  for (const id of ["viewers", "switches", "help"]) byId(id).hidden = !viewers.length;
  for (const id of ["index", "summary"]) byId(id).hidden = viewers.length > 0;
  byId("to-index").hidden = data.clips.length === 1 || !viewers.length;
  document.title = [...clips.map(({ name }) => name), "What the model sees"].join(" · ");
  if (!viewers.length) return drawMarked();
  state.frame ??= clips[0].frame;
  const form = byId("switches");
  for (const radio of form.elements.view) {
    radio.disabled = !views(clips).includes(radio.value);
    radio.parentElement.title = radio.disabled ? "The model has no cross-attention: late fusion" : "";
  }
  const heads = [...Array(headsOf(clips)).keys()];
  form.elements.head.replaceChildren(...["mean", ...heads].map((head) =>
    element("option", { value: head }, head === "mean" ? "mean of all" : `head ${head}`)));
  const classes = new Map(clips.flatMap((clip) => clip.classes.map(({ label, name }) => [label, name])));
  form.elements.class.replaceChildren(
    element("option", { value: "top" }, "the most probable"),
    ...[...classes].map(([label, name]) => element("option", { value: label }, name)));
  draw();
}

function makeIndex() {
  const known = data.clips.filter(({ truth }) => truth !== null);
  const right = known.filter(({ truth, classes }) => classes[0].label === truth);
  byId("summary").textContent = data.clips.length === 1 ? ""
    : `${data.clips.length} clips` + (known.length ? `, ${right.length} of ${known.length} right` : "")
    + ", one view of each";
  if (data.clips.length === 1) return;
  byId("cards").append(...data.clips.map((clip, index) => {
    const picture = element("img", { src: clip.frames[clip.frame], alt: "" });
    const name = element("bdi", { class: "name" }, clip.name);
    const button = element("button", { type: "button", class: "card" },
      picture, name, element("span", { class: "verdict" }, ...verdict(clip)));
    button.addEventListener("click", () => open([index]));
    const box = element("input", { type: "checkbox", "data-clip": index, "aria-label": `mark to compare: ${clip.name}` });
    box.addEventListener("change", () => {
      if (box.checked) marked.add(index);
      else marked.delete(index);
      drawMarked();
    });
    return element("li", {}, button, element("label", {}, box, " mark to compare"));
  }));
  byId("compare").addEventListener("click", () => open([...marked]));
}

function drawMarked() {
  byId("compare").disabled = marked.size !== 2;
  byId("marked").textContent = `${marked.size} of 2 marked`;
}

byId("switches").addEventListener("input", ({ target }) => {
  const plain = target.name === "threshold" || /^\d+$/.test(target.value);
  change({ [target.name]: plain ? Number(target.value) : target.value });
});
byId("switches").addEventListener("submit", (event) => event.preventDefault());
byId("to-index").addEventListener("click", () => open([]));
document.addEventListener("keydown", ({ key }) => {
  if (key !== "Escape") return;
  pointed = null;
  change({ chosen: null });
});
addEventListener("hashchange", () => {
  const [left = 0] = state.clip; // back on the index, the focus is where the reader was
  show();
  (viewers.length ? byId("to-index") : byId("cards").querySelectorAll("button")[left])?.focus();
});
makeIndex();
show();
