"use strict";

// What is to be seen of a clip under the present switches, as plain values: no document in here.

// A tensor as the page carries it; decoded when it is first asked for.
class Tensor {
  constructor({ type, shape, base64 }) {
    Object.assign(this, { type, shape, base64, kept: new Map() });
  }

  // What `make` makes of it for a head; made once, for the pointer asks at every step.
  ofHead(head, make) {
    if (!this.kept.has(head)) this.kept.set(head, make());
    return this.kept.get(head);
  }

  get values() {
    const bytes = Uint8Array.from(atob(this.base64), (char) => char.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const read = this.type === "float32" ? "getFloat32" : "getInt32";
    const values = Array.from({ length: bytes.length / 4 }, (_, i) => view[read](4 * i, true));
    Object.defineProperty(this, "values", { value: values });
    return values;
  }
}

const PLURAL = { patch: "patches", segment: "segments" };
const STREAMS = { patch: "spatial", segment: "temporal" };
const sum = (values) => values.reduce((total, value) => total + value, 0);
const mean = (values) => sum(values) / values.length;
// A name may hold marks that turn the direction of writing: they end with it.
const isolated = (name) => `\u2068${name}\u2069`;

// Attention [E, H] of the edges of a graph: of one head, or the mean over heads.
function edgeAttention(graph, head) {
  const [count, heads] = graph.attention.shape;
  const all = graph.attention.values;
  return graph.attention.ofHead(head, () => Array.from({ length: count }, (_, e) =>
    head === "mean" ? mean(all.slice(e * heads, (e + 1) * heads)) : all[e * heads + head]));
}

// Attention [H, Q, N] of a fusion layer: rows of the asking tokens.
function crossAttention(tensor, head) {
  const [heads, asking, asked] = tensor.shape;
  const at = (h, q, n) => tensor.values[(h * asking + q) * asked + n];
  const every = [...Array(heads).keys()];
  return tensor.ofHead(head, () => Array.from({ length: asking }, (_, q) => Array.from({ length: asked }, (_, n) =>
    head === "mean" ? mean(every.map((h) => at(h, q, n))) : at(head, q, n))));
}

// The edges that enter or leave a node, its self-loop included, with all that is known of them.
function edgesOf(graph, node, side, head) {
  const attention = edgeAttention(graph, head);
  const own = side === "in" ? graph.target.values : graph.source.values;
  return attention.flatMap((value, e) => (own[e] === node ? [edge(graph, e, value)] : []));
}

// For each node the edge with most attention among those that enter it, self-loops left out: more of
// them would hide the frame.
function strongestEdges(graph, head) {
  const best = Array(graph.nodes).fill(null);
  edgeAttention(graph, head).forEach((value, e) => {
    const one = edge(graph, e, value);
    if (one.source !== one.target && value > (best[one.target]?.value ?? -1)) best[one.target] = one;
  });
  return best.filter((one) => one !== null);
}

function edge(graph, e, value) {
  return {
    source: graph.source.values[e],
    target: graph.target.values[e],
    rule: graph.rule.values[e],
    similarity: graph.similarity ? graph.similarity.values[e] : null,
    value,
  };
}

// Attention that each node receives from the others: the sum over its outgoing edges.
function received(graph, head) {
  const totals = Array(graph.nodes).fill(0);
  edgeAttention(graph, head).forEach((value, e) => {
    const source = graph.source.values[e];
    if (source !== graph.target.values[e]) totals[source] += value;
  });
  return totals;
}

// What to show of a clip. `chosen` is {kind: "patch" or "segment", index} or null. Returned are
// values a patch and a segment (null: none to show), links between patches and between segments,
// the kind around whose chosen node only its own edges are shown, rows of numbers, and words. Values
// below the threshold are left out when it is drawn.
function look(clip, state, chosen) {
  const seen = { patch: null, segment: null, links: { patch: [], segment: [] }, around: null, signed: false };
  if (state.view === "graph") return lookAtGraph(clip, state, chosen, seen);
  if (state.view === "cross") return lookAcross(clip, state, chosen, seen);
  return lookForEvidence(clip, state, chosen, seen);
}

function lookAtGraph(clip, { head, edges: side }, chosen, seen) {
  if (!chosen) {
    for (const [kind, stream] of Object.entries(STREAMS)) {
      seen[kind] = received(clip[stream], head);
      seen.links[kind] = strongestEdges(clip[stream], head);
    }
    seen.caption = "Graph: attention each node receives from the others";
    seen.note = "Of each node, the edge to its most attended neighbour is drawn.";
    return seen;
  }
  const { kind, index } = chosen;
  const graph = clip[STREAMS[kind]];
  const found = edgesOf(graph, index, side, head).sort((a, b) => b.value - a.value);
  const other = (one) => (side === "in" ? one.source : one.target);
  seen.around = kind;
  seen[kind] = Array(graph.nodes).fill(null);
  for (const one of found) seen[kind][other(one)] = one.value;
  seen.links[kind] = found.filter((one) => one.source !== one.target);
  seen.rows = found.map((one) => ({ kind, index: other(one), ...one }));
  const count = seen.links[kind].length;
  seen.caption = side === "in"
    ? `Graph: this ${kind} attends to its neighbours`
    : `Graph: its neighbours attend to this ${kind}`;
  seen.note = `${count} ${count === 1 ? "neighbour" : "neighbours"}; ` +
    (side === "in" ? "with itself, the attention sums to 1." : "how much each of them attends to it.");
  return seen;
}

function lookAcross(clip, { layer, direction, head }, chosen, seen) {
  const rows = crossAttention(clip.layers[layer][direction], head);
  const [asking, asked] =
    direction === "motion_to_semantic" ? ["segment", "patch"] : ["patch", "segment"];
  const layerName = `Cross-attention, ${layer} layer`;
  const inOrder = (kind) => seen[kind].map((value, index) => ({ kind, index, value }))
    .sort((a, b) => b.value - a.value);
  if (!chosen) {
    seen[asked] = rows[0].map((_, n) => mean(rows.map((row) => row[n])));
    seen.rows = inOrder(asked);
    seen.caption = `${layerName}: ${PLURAL[asking]} attend to ${PLURAL[asked]}`;
    seen.note = `Mean over all ${PLURAL[asking]}; sums to 1.`;
    return seen;
  }
  const asks = chosen.kind === asking;
  const kind = asks ? asked : asking;
  seen[kind] = asks ? rows[chosen.index] : rows.map((row) => row[chosen.index]);
  seen.rows = inOrder(kind);
  seen.caption = asks
    ? `${layerName}: this ${asking} attends to ${PLURAL[asked]}`
    : `${layerName}: ${PLURAL[asking]} attend to this ${asked}`;
  seen.note = asks ? `Over all ${PLURAL[asked]} it sums to 1.` : `How much each ${asking} attends to it.`;
  return seen;
}

function lookForEvidence(clip, state, chosen, seen) {
  const entry = classShown(clip, state);
  seen.signed = true;
  if (!entry) {
    seen.caption = "Evidence";
    seen.note = "The class chosen is not among those that this page holds for this clip.";
    return seen;
  }
  seen.patch = entry.patches.values;
  seen.segment = entry.segments.values;
  seen.caption = `What each patch and segment adds to the logit of “${isolated(entry.name)}”`;
  seen.sums = [
    ["patches", sum(seen.patch)],
    ["segments", sum(seen.segment)],
    ["bias", entry.bias],
    ["logit", entry.logit],
  ];
  if (chosen) {
    const part = PLURAL[chosen.kind];
    seen.classes = clip.classes.map(({ label, name, [part]: values }) =>
      ({ label, name, value: values.values[chosen.index] }));
    seen.note = "What it adds to the logit of each class.";
  } else {
    seen.note = "Together they are the logit; negative values speak against the class.";
  }
  return seen;
}

function classShown(clip, state) {
  return state.class === "top"
    ? clip.classes[0]
    : clip.classes.find(({ label }) => label === state.class);
}
