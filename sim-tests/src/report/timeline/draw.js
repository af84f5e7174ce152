"use strict";
// Layout and drawing. Times are µs of simulated time; `look` is what part of the run is shown.
const data = JSON.parse(document.getElementById("data").textContent);
const GUTTER = 132, LANE = 40, SHARD = 13, CALL = 13, FAULT = 17, GAP = 8, TITLE = 22;
const TAIL = 60; // px of an operation that was never answered
const ROLES = ["follower", "pre-candidate", "candidate", "leader"];
const STATES = ["absent", "arriving", "serving", "leaving", "held"];
const FAMILIES = { partition: 268, messages: 205, process: 22, moment: 340, damage: 0, disk: 40,
  clock: 165, shards: 110, network: 268 };
const look = { from: 0, to: data.end, key: null, only: false, lit: null, x: null };
const whole = { from: -data.end * 0.004, to: data.end * 1.012 };
const canvas = { time: document.getElementById("axis"), body: document.getElementById("body") };
const pen = { time: canvas.time.getContext("2d"), body: canvas.body.getContext("2d") };
let ink = {}, dark = false, width = 0;

function readTheme() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["back", "panel", "ink", "soft", "faint", "line", "lane", "down", "downink", "bad",
    "heal", "commit", "applied", "cross", "read", "write", "open"])
    ink[name] = style.getPropertyValue("--" + name).trim();
  const chosen = document.documentElement.dataset.theme;
  dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
function familyColour(family, alpha) {
  let hue = FAMILIES[family];
  if (hue === undefined) { hue = 0; for (const c of family) hue = (hue * 31 + c.charCodeAt(0)) % 360; }
  return `hsl(${hue} ${dark ? 60 : 62}% ${dark ? 62 : 46}% / ${alpha})`;
}
function termColour(term, alpha) {
  return `hsl(${(205 + term * 137.508) % 360} ${dark ? 48 : 52}% ${dark ? 48 : 44}% / ${alpha})`;
}
function groupColour(group, alpha) {
  return `hsl(${(20 + group * 137.508) % 360} ${dark ? 45 : 50}% ${dark ? 52 : 46}% / ${alpha})`;
}
const seconds = (us, digits = 3) => (us / 1e6).toFixed(digits) + " s";

// ---- layout: what is where, from top to bottom -------------------------------------------------
const lay = { titles: [], lanes: [], shards: [], clients: [], faults: 0, height: 0 };
function layOut() {
  let y = 4;
  const title = text => { lay.titles.push({ y, text }); y += TITLE; };
  if (data.bands.length) {
    title("Faults, as they were carried out");
    lay.faults = y;
    y += data.band_rows * FAULT + GAP;
  }
  let group = null;
  data.servers.forEach((server, i) => {
    if (server.group !== group) {
      group = server.group;
      title(group === 0 ? "Controllers (group 0)" : `Group ${group}`);
    }
    lay.lanes.push({ y, h: LANE, server, i });
    y += LANE + 4;
  });
  if (data.shards.length) {
    y += GAP; title("Shards and who holds them");
    for (const shard of data.shards) {
      const h = Math.max(1, shard.rows) * SHARD + 3;
      lay.shards.push({ y, h, shard }); y += h + 3;
    }
  }
  if (data.clients.length) {
    y += GAP; title("Clients' operations" + (data.hidden ? ` (${data.hidden} of them not shown)` : ""));
    for (const client of data.clients) {
      const h = Math.max(1, client.rows) * CALL + 4;
      lay.clients.push({ y, h, client }); y += h + 3;
    }
  }
  lay.height = y + 12;
}

// ---- drawing -----------------------------------------------------------------------------------
const X = t => GUTTER + (t - look.from) / (look.to - look.from) * (width - GUTTER - 8);
const T = x => look.from + (x - GUTTER) / (width - GUTTER - 8) * (look.to - look.from);
const shown = (from, to) => to >= look.from && from <= look.to;
// A span on the screen: cut to what is shown, never thinner than `least`.
function span(from, to, least = 1) {
  const a = Math.max(X(from), GUTTER - 2), b = Math.min(X(to), width + 2);
  return [a, Math.max(b - a, least)];
}
function fit(c, kind, height) {
  const scale = devicePixelRatio || 1;
  width = document.documentElement.clientWidth;
  canvas[kind].width = width * scale; canvas[kind].height = height * scale;
  canvas[kind].style.height = height + "px";
  c.setTransform(scale, 0, 0, scale, 0, 0);
  c.fillStyle = ink.back; c.fillRect(0, 0, width, height);
  c.textBaseline = "middle";
}
const font = (size, weight = 400) => `${weight} ${size}px system-ui, "Segoe UI", "DejaVu Sans", sans-serif`;
function label(c, text, x, y, colour, halo) {
  if (halo) { c.lineWidth = 3; c.lineJoin = "round"; c.strokeStyle = halo; c.strokeText(text, x, y); }
  c.fillStyle = colour; c.fillText(text, x, y);
}
function hatch(c, x, y, w, h, colour, step = 5) {
  c.save(); c.beginPath(); c.rect(x, y, w, h); c.clip();
  c.strokeStyle = colour; c.lineWidth = 1.3; c.beginPath();
  for (let i = x - h - ((x - h) % step); i < x + w; i += step) { c.moveTo(i, y + h); c.lineTo(i + h, y); }
  c.stroke(); c.restore();
}
function gutter(c, y, h, text, size, colour, weight) {
  c.fillStyle = ink.back; c.fillRect(0, y - 1, GUTTER - 3, h + 2);
  c.font = font(size, weight); c.textAlign = "right";
  label(c, text, GUTTER - 10, y + h / 2, colour); c.textAlign = "left";
}

function drawLane({ y, h, server, i }) {
  const c = pen.body, strip = 15;
  c.fillStyle = ink.lane; c.fillRect(GUTTER, y, width - GUTTER, h);
  const born = server.roles.length ? server.roles[0].from : data.end;
  if (born > look.from) hatch(c, ...place(0, born, y, h), ink.line, 7);
  for (const role of server.roles) {
    if (!shown(role.from, role.to)) continue;
    const [x, w] = span(role.from, role.to);
    c.fillStyle = termColour(role.term, role.role === 3 ? 1 : 0.2); c.fillRect(x, y, w, strip);
    if (role.role === 1 || role.role === 2) hatch(c, x, y, w, strip, termColour(role.term, role.role === 2 ? 0.95 : 0.5), 4);
    const name = role.role === 3 ? `leader · term ${role.term}` : `term ${role.term}`;
    c.font = font(10.5, role.role === 3 ? 650 : 400);
    const text = [name, `T${role.term}`].find(t => c.measureText(t).width + 6 < w);
    if (text) label(c, text, x + 4, y + strip / 2 + 0.5, role.role === 3 ? "#fff" : ink.soft);
  }
  steps(server.applied, y + strip + 2, h - strip - 4, server.group, ink.applied, true);
  steps(server.commit, y + strip + 2, h - strip - 4, server.group, ink.commit, false);
  for (const [at, text] of server.marks) {
    if (!shown(at, at)) continue;
    c.fillStyle = text.startsWith("start") ? ink.heal : ink.soft;
    c.fillRect(X(at) - 0.5, y + h - 5, 1.5, 5);
  }
  for (const [from, to] of server.down) {
    if (!shown(from, to)) continue;
    const [x, w] = span(from, to, 2);
    c.fillStyle = ink.down; c.fillRect(x, y, w, h);
    hatch(c, x, y, w, h, ink.back, 9);
    if (w > 34) { c.font = font(11, 600); label(c, "down", x + 5, y + h / 2, ink.downink, ink.down); }
  }
  let free = GUTTER;
  for (const band of data.bands) {
    if (!band.servers.includes(i) || !shown(band.from, band.to)) continue;
    const [x, w] = span(band.from, band.to, 2), lit = look.lit === band.event;
    c.fillStyle = familyColour(band.family, lit ? 0.42 : 0.17); c.fillRect(x, y, w, h);
    c.fillStyle = familyColour(band.family, 0.95); c.fillRect(x, y, lit ? 3 : 1.5, h);
    c.fillRect(x, y + h - 2, w, 2);
    c.font = font(10);
    const text = clipTo(c, band.text, w - 8);
    if (text && x + 4 >= free) { label(c, text, x + 4, y + h - 9, ink.ink, ink.lane); free = x + 10 + c.measureText(text).width; }
  }
  gutter(c, y, h, server.name, 12.5, ink.ink, 500);
}
function place(from, to, y, h) { const [x, w] = span(from, to); return [x, y, w, h]; }
function clipTo(c, text, room) {
  if (room < 26) return "";
  if (c.measureText(text).width <= room) return text;
  let n = Math.floor(text.length * room / c.measureText(text).width) - 1;
  while (n > 3 && c.measureText(text.slice(0, n) + "…").width > room) n--;
  return n > 3 ? text.slice(0, n) + "…" : "";
}
// The scale of a group's indexes: what is shown of them fills the lane.
let scales = {};
function scale() {
  scales = {};
  for (const { group, commit, applied } of data.servers) for (const points of [commit, applied]) {
    const s = scales[group] ||= { low: Infinity, high: 0 };
    points.forEach(([t, v], i) => {
      if (t > look.to || (i + 1 < points.length && points[i + 1][0] < look.from)) return;
      s.low = Math.min(s.low, v); s.high = Math.max(s.high, v);
    });
  }
}
function steps(points, y, h, group, colour, fill) {
  if (!points.length) return;
  const { low, high } = scales[group];
  const c = pen.body, Y = v => y + h - 1 - (v - low) / Math.max(1, high - low) * (h - 2);
  c.beginPath();
  let last = null;
  for (let i = 0; i < points.length; i++) {
    const next = i + 1 < points.length ? points[i + 1][0] : data.end;
    if (!shown(points[i][0], next)) { last = points[i]; continue; }
    const [x, w] = span(points[i][0], next, 0);
    if (fill) { c.rect(x, Y(points[i][1]), w, y + h - Y(points[i][1])); continue; }
    if (last === null) c.moveTo(x, Y(points[i][1])); else c.lineTo(x, Y(last[1])), c.lineTo(x, Y(points[i][1]));
    c.lineTo(x + w, Y(points[i][1])); last = points[i];
  }
  c.globalAlpha = fill ? 0.25 : 0.9;
  if (fill) { c.fillStyle = colour; c.fill(); } else { c.strokeStyle = colour; c.lineWidth = 1; c.stroke(); }
  c.globalAlpha = 1;
}

function drawFaults() {
  const c = pen.body;
  const rows = [];
  for (const band of data.bands) (rows[band.row] ||= []).push(band);
  for (const row of rows) (row || []).forEach((band, i) => {
    if (!shown(band.from, band.to) && X(band.to) < GUTTER - 400) return;
    const y = lay.faults + band.row * FAULT, [x, w] = span(band.from, band.to, 3);
    const visible = shown(band.from, band.to), lit = look.lit === band.event;
    if (visible) {
      c.fillStyle = familyColour(band.family, lit ? 0.85 : 0.5); c.fillRect(x, y, w, FAULT - 3);
      c.fillStyle = familyColour(band.family, 1); c.fillRect(x, y, 3, FAULT - 3);
    }
    const next = row[i + 1] ? X(row[i + 1].from) : width;
    c.font = font(11, lit ? 650 : 400);
    const text = visible && clipTo(c, band.text, next - x - 12);
    if (text) label(c, text, x + 6, y + FAULT / 2 - 1, ink.ink, dark ? "#0007" : "#fff9");
  });
  gutter(c, lay.faults, data.band_rows * FAULT, "", 11, ink.soft);
}
function drawShard({ y, h, shard }) {
  const c = pen.body;
  c.fillStyle = ink.lane; c.fillRect(GUTTER, y, width - GUTTER, h);
  for (const hold of shard.holdings) {
    if (!shown(hold.from, hold.to)) continue;
    const [x, w] = span(hold.from, hold.to, 1.5), top = y + 1.5 + hold.row * SHARD;
    c.fillStyle = groupColour(hold.group, hold.accepts ? 1 : 0.25); c.fillRect(x, top, w, SHARD - 2);
    if (!hold.accepts) hatch(c, x, top, w, SHARD - 2, groupColour(hold.group, 0.9), 5);
    c.font = font(9.5, hold.accepts ? 600 : 400);
    const state = hold.state === 2 ? "" : ` ${STATES[hold.state] || hold.state}`;
    const text = [`group ${hold.group}${state} · config ${hold.config}`, `g${hold.group}${state}`, `${hold.group}`]
      .find(t => c.measureText(t).width + 6 < w);
    if (text) label(c, text, x + 4, top + SHARD / 2 - 0.5, hold.accepts ? "#fff" : ink.ink, hold.accepts ? null : ink.lane);
  }
  gutter(c, y, h, `shard ${shard.shard}`, 11, ink.soft);
}
const dimmed = call => (look.key !== null && call.key !== look.key) || (look.only && !bad.has(call.key));
function drawClient({ y, h, client }) {
  const c = pen.body;
  c.fillStyle = ink.lane; c.fillRect(GUTTER, y, width - GUTTER, h);
  const named = [];
  for (const late of [false, true]) for (const call of client.operations) {
    if (!!call.bad !== late || !shown(call.from, call.to ?? T(X(call.from) + TAIL))) continue;
    const top = y + 2 + call.row * CALL, read = /^get/i.test(call.call);
    const colour = call.bad ? ink.bad : read ? ink.read : ink.write;
    c.globalAlpha = dimmed(call) ? 0.13 : 1;
    if (call.to === null) {
      const x = X(call.from), tail = TAIL;
      const fade = c.createLinearGradient(x, 0, x + tail, 0);
      fade.addColorStop(0, call.bad ? ink.bad : ink.open); fade.addColorStop(1, "transparent");
      c.fillStyle = fade; c.fillRect(Math.max(x, GUTTER), top, Math.max(0, x + tail - Math.max(x, GUTTER)), CALL - 2);
    } else {
      const [x, w] = span(call.from, call.to, call.bad ? 4 : 1);
      c.fillStyle = colour; c.fillRect(x, top, w, CALL - 2);
      if (w > 2.5 && !call.bad) { c.fillStyle = ink.lane; c.fillRect(x + w - 0.7, top, 0.7, CALL - 2); }
    }
    const [x, w] = span(call.from, call.to ?? T(X(call.from) + TAIL), 0);
    c.font = font(9, call.bad ? 650 : 400);
    const text = !dimmed(call) && clipTo(c, `${call.call} ${call.key} → ${call.to === null ? "?" : call.answer}`, w - 4);
    if (text && X(call.from) < width) label(c, text, x + 3, top + CALL / 2 - 0.5, "#fff", colour);
    if (call.bad && !text && x > (named[call.row] || 0)) {
      const beside = clipTo(c, `${call.call} ${call.key} → ${call.to === null ? "?" : call.answer}`, 190);
      label(c, beside, x + w + 3, top + CALL / 2, ink.bad, ink.lane);
      named[call.row] = x + w + c.measureText(beside).width;
    }
  }
  c.globalAlpha = 1;
  gutter(c, y, h, `client ${client.client}`, 11, ink.soft);
}
const bad = new Set(data.clients.flatMap(c => c.operations.filter(o => o.bad).map(o => o.key)));

function verticals(c, from, to) {
  const line = (at, colour, dash, thick) => {
    if (at === null || !shown(at, at)) return;
    c.strokeStyle = colour; c.lineWidth = thick; c.setLineDash(dash);
    c.beginPath(); c.moveTo(X(at), from); c.lineTo(X(at), to); c.stroke(); c.setLineDash([]);
  };
  line(data.healed, ink.heal, [6, 4], 1.5);
  line(data.violated, ink.bad, [], 2);
  if (look.x !== null && look.x > GUTTER) line(T(look.x), ink.cross, [2, 3], 1);
}
function drawTime() {
  const c = pen.time, H = 62;
  fit(c, "time", H);
  // The whole run, with a window on what is shown.
  const W = width - GUTTER - 8, O = t => GUTTER + t / data.end * W;
  c.fillStyle = ink.lane; c.fillRect(GUTTER, 4, W, 20);
  for (const band of data.bands) {
    c.fillStyle = familyColour(band.family, 0.45);
    c.fillRect(O(band.from), 6 + band.row % 4 * 4, Math.max(2, O(band.to) - O(band.from)), 3.4);
  }
  if (data.healed !== null) { c.fillStyle = ink.heal; c.fillRect(O(data.healed) - 1, 4, 2, 20); }
  if (data.violated !== null) { c.fillStyle = ink.bad; c.fillRect(O(data.violated) - 1, 4, 2.5, 20); }
  c.strokeStyle = ink.ink; c.lineWidth = 1.2;
  c.strokeRect(O(Math.max(0, look.from)), 3.5, Math.max(3, O(Math.min(data.end, look.to)) - O(Math.max(0, look.from))), 21);
  c.font = font(11); c.textAlign = "right"; label(c, "whole run", GUTTER - 10, 14, ink.soft);
  label(c, "simulated time", GUTTER - 10, 52, ink.soft); c.textAlign = "left";
  const room = (look.to - look.from) / Math.max(2, W / 95);
  const step = [1, 2, 5].flatMap(m => [...Array(9).keys()].map(e => m * 10 ** e)).sort((a, b) => a - b).find(s => s >= room) || 1e8;
  const digits = Math.max(0, 6 - Math.floor(Math.log10(step)));
  for (let t = Math.ceil(Math.max(0, look.from) / step) * step; t <= look.to; t += step) {
    c.fillStyle = ink.line; c.fillRect(X(t), 42, 1, H - 42);
    label(c, seconds(t, Math.min(digits, 6)), X(t) + 4, 52, ink.soft);
  }
  const flag = (at, text, colour) => {
    if (at === null || !shown(at, at)) return;
    c.font = font(11, 650); const w = c.measureText(text).width, x = Math.min(X(at) + 4, width - w - 4);
    label(c, text, at === data.healed && data.violated !== null && Math.abs(X(data.violated) - X(at)) < w + 12 && data.violated > at ? X(at) - w - 6 : x, 34, colour, ink.back);
  };
  flag(data.healed, `healed ${seconds(data.healed)}`, ink.heal);
  flag(data.violated, `violated ${seconds(data.violated)}`, ink.bad);
  verticals(c, 40, H);
  c.fillStyle = ink.line; c.fillRect(0, H - 1, width, 1);
}
function draw() {
  drawTime();
  const c = pen.body;
  fit(c, "body", lay.height);
  scale();
  if (data.bands.length) drawFaults();
  lay.lanes.forEach(drawLane);
  lay.shards.forEach(drawShard);
  lay.clients.forEach(drawClient);
  c.save(); c.beginPath(); c.rect(GUTTER - 2, 0, width, lay.height); c.clip();
  verticals(c, 0, lay.height); c.restore();
  for (const { y, text } of lay.titles) {
    c.fillStyle = ink.back; c.fillRect(0, y, width, TITLE - 3);
    c.font = font(12.5, 650); label(c, text, 20, y + TITLE / 2, ink.ink);
  }
}
