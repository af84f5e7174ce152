// Interaction: wheel, drag, keys, hover, tables.
const tip = document.getElementById("tip");
let queued = false;
function redraw() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => { queued = false; draw(); });
}
function show(from, to) {
  const least = 200;
  if (to - from < least) { const mid = (from + to) / 2; from = mid - least / 2; to = mid + least / 2; }
  const most = whole.to - whole.from, length = Math.min(to - from, most);
  from = Math.max(whole.from, Math.min(from, whole.to - length));
  look.from = from; look.to = from + length;
  redraw();
}
function zoom(factor, at) {
  show(at - (at - look.from) * factor, at + (look.to - at) * factor);
}
const around = (at, us) => show(at - us, at + us * 0.6);

for (const name of ["time", "body"]) {
  const surface = canvas[name];
  surface.addEventListener("wheel", event => {
    if (event.offsetX < GUTTER || event.shiftKey) return;
    event.preventDefault();
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      const by = event.deltaX / (width - GUTTER) * (look.to - look.from);
      show(look.from + by, look.to + by);
    } else zoom(Math.exp(Math.max(-120, Math.min(120, event.deltaY)) * 0.003), T(event.offsetX));
  }, { passive: false });
  let grip = null;
  surface.addEventListener("pointerdown", event => {
    surface.setPointerCapture(event.pointerId);
    const overview = name === "time" && event.offsetY < 28;
    grip = { x: event.clientX, y: event.clientY, from: look.from, to: look.to, overview, moved: false };
    if (overview) jump(event.offsetX);
  });
  surface.addEventListener("pointermove", event => {
    look.x = event.offsetX;
    if (grip) {
      const dx = event.clientX - grip.x, dy = event.clientY - grip.y;
      if (Math.abs(dx) + Math.abs(dy) > 3) grip.moved = true;
      if (grip.overview) jump(event.offsetX);
      else if (grip.moved) {
        const by = dx / (width - GUTTER - 8) * (grip.to - grip.from);
        show(grip.from - by, grip.to - by);
        scrollBy(0, grip.y - event.clientY); grip.y = event.clientY;
        tip.style.display = "none";
      }
    }
    if (!grip || !grip.moved) hover(name, event);
    redraw();
  });
  surface.addEventListener("pointerup", event => {
    if (grip && !grip.moved && name === "body") click(event.offsetX, event.offsetY);
    grip = null;
  });
  surface.addEventListener("pointerleave", () => { look.x = null; tip.style.display = "none"; light(null); redraw(); });
}
function jump(x) {
  const at = (x - GUTTER) / (width - GUTTER - 8) * data.end, half = (look.to - look.from) / 2;
  if (half * 2 < data.end * 0.98) show(at - half, at + half); else show(at - data.end * 0.05, at + data.end * 0.05);
}
addEventListener("keydown", event => {
  if (event.target.tagName === "INPUT") return;
  const by = (look.to - look.from) * 0.2, mid = (look.from + look.to) / 2;
  const keys = {
    ArrowLeft: () => show(look.from - by, look.to - by), ArrowRight: () => show(look.from + by, look.to + by),
    "+": () => zoom(0.6, mid), "=": () => zoom(0.6, mid), "-": () => zoom(1.6, mid),
    0: () => show(whole.from, whole.to), v: () => data.violated !== null && around(data.violated, 1e6),
  };
  if (keys[event.key] && !event.ctrlKey && !event.metaKey) keys[event.key]();
});

// ---- what is under the pointer -----------------------------------------------------------------
const within = (rows, y) => rows.find(row => y >= row.y && y < row.y + row.h);
const slack = () => 3 / (width - GUTTER) * (look.to - look.from);
function callAt(lane, at, y) {
  const row = Math.floor((y - lane.y - 2) / CALL), near = slack();
  const tail = TAIL / (width - GUTTER) * (look.to - look.from);
  const hit = lane.client.operations.filter(o => Math.abs(o.row - row) < 1 &&
    o.from - near <= at && at <= (o.to ?? o.from + tail) + near);
  return hit.find(o => o.bad) || hit.find(o => !dimmed(o)) || hit[0];
}
function faultAt(at, y) {
  const row = Math.floor((y - lay.faults) / FAULT);
  if (!data.bands.length || y < lay.faults || row >= data.band_rows) return null;
  const row_bands = data.bands.filter(b => b.row === row && b.from - slack() <= at);
  return row_bands.find(b => at <= b.to + slack()) || null;
}
const escape = text => String(text).replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
const valueAt = (points, at) => { let v = "–"; for (const [t, x] of points) { if (t > at) break; v = x; } return v; };
function bandText(b) {
  const whom = b.servers.length === 0 ? "an order" : b.servers.length === data.servers.length ? "everybody" : b.servers.map(i => data.servers[i].name).join(", ");
  const time = b.to > b.from ? `${seconds(b.from)} – ${seconds(b.to)}` : seconds(b.from);
  return `<b style="color:${familyColour(b.family, 1)}">■</b> ${escape(b.text)}<br><span class=soft>${escape(b.family)} · ${time} · event ${b.event} · ${escape(whom)}</span>`;
}
function describe(at, y) {
  const fault = faultAt(at, y);
  light(fault && fault.event);
  if (fault) return bandText(fault);
  const lane = within(lay.lanes, y);
  if (lane) {
    const s = lane.server, lines = [`<b>${escape(s.name)}</b> (group ${s.group}, node ${s.node}) at ${seconds(at, 6)}`];
    const down = s.down.find(([a, b]) => a <= at && at < b), role = s.roles.find(r => r.from <= at && at < r.to);
    if (down) lines.push(`down ${seconds(down[0])} – ${seconds(down[1])}${down[2] ? "" : " (inferred: it told nothing until it started again)"}`);
    else if (role) lines.push(`${ROLES[role.role] || role.role} in term ${role.term}` + (role.role === 0 ? (role.leader ? `, follows node ${role.leader}` : ", knows no leader") : "") + ` since ${seconds(role.from)}`);
    else lines.push("not started yet");
    lines.push(`commit ${valueAt(s.commit, at)}, applied ${valueAt(s.applied, at)}`);
    const marks = s.marks.filter(([t]) => Math.abs(t - at) <= slack());
    marks.slice(0, 4).forEach(([t, text]) => lines.push(`<span class=soft>${seconds(t, 6)}</span> ${escape(text)}`));
    if (marks.length > 4) lines.push(`<span class=soft>and ${marks.length - 4} more: zoom in</span>`);
    data.bands.filter(b => b.servers.includes(lane.i) && b.from - slack() <= at && at <= b.to + slack())
      .slice(0, 5).forEach(b => lines.push(bandText(b)));
    return lines.join("<br>");
  }
  const shard = within(lay.shards, y);
  if (shard) {
    const lines = [`<b>shard ${shard.shard.shard}</b> at ${seconds(at, 6)}`];
    for (const h of shard.shard.holdings) if (h.from <= at && at < h.to)
      lines.push(`group ${h.group}: ${STATES[h.state] || h.state}${h.accepts ? ", accepts" : ", accepts nothing"} · config ${h.config} · since ${seconds(h.from)}`);
    return lines.join("<br>");
  }
  const client = within(lay.clients, y), call = client && callAt(client, at, y);
  if (call) {
    const took = call.to === null ? "never answered: it may take effect at any later moment, or never" : `took ${((call.to - call.from) / 1000).toFixed(1)} ms`;
    return `<b>client ${client.client.client}</b> ${escape(call.call)} · key ${escape(call.key)} (shard ${call.shard})<br>` +
      `answer: ${escape(call.to === null ? "–" : call.answer)}<br><span class=soft>${seconds(call.from, 6)}${call.to === null ? "" : " – " + seconds(call.to, 6)}, ${took}</span>` +
      (call.bad ? `<br><b style="color:${ink.bad}">part of the violation</b>` : "") + `<br><span class=soft>click: only this key</span>`;
  }
  return "";
}
function hover(name, event) {
  const text = name === "body" && event.offsetX > GUTTER ? describe(T(event.offsetX), event.offsetY) : "";
  tip.style.display = text ? "block" : "none";
  if (!text) return;
  tip.innerHTML = text;
  const x = event.clientX + 14, y = event.clientY + 14;
  tip.style.left = Math.max(4, x + tip.offsetWidth > innerWidth ? event.clientX - tip.offsetWidth - 10 : x) + "px";
  tip.style.top = Math.max(4, y + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : y) + "px";
}
function click(x, y) {
  const at = T(x), client = within(lay.clients, y), call = client && callAt(client, at, y);
  if (client) choose(call && call.key !== look.key ? call.key : null);
  const fault = faultAt(at, y);
  if (fault) show(fault.from - 5e5 - (fault.to - fault.from) * 0.3, fault.to + 5e5 + (fault.to - fault.from) * 0.3);
}
function choose(key) {
  look.key = key === "" ? null : key;
  document.getElementById("key").value = look.key ?? "";
  redraw();
}
function light(event) {
  if (look.lit === event) return;
  look.lit = event;
  document.querySelectorAll("tr.lit").forEach(row => row.classList.remove("lit"));
  if (event !== null) document.querySelector(`tr[data-event="${event}"]`)?.classList.add("lit");
}

// ---- buttons and tables ------------------------------------------------------------------------
const on = (id, type, what) => document.getElementById(id)?.addEventListener(type, what);
on("all", "click", () => show(whole.from, whole.to));
on("violation", "click", () => around(data.violated, 1e6));
on("near", "click", () => around(data.violated, 1e5));
on("heal", "click", () => around(data.healed, 2e6));
on("key", "input", event => choose(event.target.value));
on("only", "change", event => { look.only = event.target.checked; redraw(); });
on("theme", "click", () => {
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  readTheme(); chips(); redraw();
});
document.querySelectorAll("[data-copy]").forEach(button => button.addEventListener("click", () => {
  navigator.clipboard?.writeText(button.previousElementSibling.textContent);
  button.textContent = "copied";
}));
document.querySelectorAll("tr[data-from]").forEach(row => {
  const event = row.dataset.event === undefined ? null : +row.dataset.event;
  row.addEventListener("mouseenter", () => { light(event); redraw(); });
  row.addEventListener("mouseleave", () => { light(null); redraw(); });
  row.addEventListener("click", () => {
    const from = +row.dataset.from, to = +row.dataset.to, pad = Math.max(3e5, (to - from) * 0.4);
    if (row.dataset.key !== undefined) choose(row.dataset.key);
    show(from - pad, to + pad);
    document.getElementById("time").scrollIntoView({ behavior: "smooth" });
  });
});
function chips() {
  document.querySelectorAll(".chip[data-family]").forEach(chip => chip.style.background = familyColour(chip.dataset.family, 0.9));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readTheme(); chips(); redraw(); });
addEventListener("resize", redraw);
// `#from-to` in seconds opens that part of the run.
const part = location.hash.match(/^#([\d.]+)-([\d.]+)$/);
readTheme(); chips(); layOut();
look.from = whole.from; look.to = whole.to;
if (part) { look.from = part[1] * 1e6; look.to = part[2] * 1e6; }
draw();
