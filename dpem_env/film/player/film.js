// Frames are described in dpem_env/film/frames.py. `slot` is the slot about to be decided: frame 0 is the beginning.
"use strict";

const VERDICTS = ["waited", "admitted", "denied", "illegal", "withheld"];
const DASHES = { pending: [4, 6], served: [], expired: [2, 8] };
const MOST_CLAIMS = 6, MOST_DOTS = 8, MOST_NAMED = 40;
const memoryColour = d3.scaleSequential([0, 1], d3.interpolateViridis);
const claimColour = d3.scaleLinear([0, 1], ["#a9c8ea", "#1f5fa8"]);
const most = FILMS[0].frames.length - 1;
let slot = 0, timer = null, chosen = null;

const bytes = text => Uint8Array.from(atob(text || ""), character => character.charCodeAt(0));
const places = (node, count) => d3.range(count).map(i => [node, i]);
const seconds = (film, slots) => `${(slots * film.slot_duration).toFixed(2)} s`;

// ---------------------------------------------------------------- what there is to see of a film in a slot

function fateOf(request, s) {
  const [arrival, last, , , , served] = request;
  if (arrival > s || (arrival === s && s === most)) return null;
  if (served >= 0 && served <= s) return served >= s - 1 ? "served" : null;
  if (last >= s) return "pending";
  return last === s - 1 ? "expired" : null;
}

function claimsOf(film, frame) {
  const claims = new Map(), segments = [];
  for (const [route, , ...held] of frame.a) {
    const nodes = film.routes[route], complete = new Set(), inside = new Set();
    for (const code of held) {
      const hop = code >> 6, span = (code & 63) >> 1;
      if (span > 1) {
        segments.push([nodes[hop], nodes[hop + span]]);
        for (let h = hop; h < hop + span; h++) inside.add(h);
      } else if (code & 1) complete.add(hop);
    }
    for (let h = 0; h + 1 < nodes.length; h++) {
      if (inside.has(h) && !complete.has(h)) continue;
      const key = d3.sort([nodes[h], nodes[h + 1]]).join("-");
      const claim = claims.get(key) || { key, ends: [nodes[h], nodes[h + 1]], number: 0, held: 0 };
      claim.number += 1;
      claim.held += complete.has(h) ? 1 : 0;
      claims.set(key, claim);
    }
  }
  return { claims: [...claims.values()], segments };
}

function pairsAt(film, frame) {
  const count = new Map();
  for (const [node, place, number] of frame.s)
    for (const end of [node, film.peers[node][place]]) count.set(end, (count.get(end) || 0) + number);
  return count;
}

// ---------------------------------------------------------------- a map and its curves

class Screen {
  constructor(film, number) {
    this.film = film;
    const section = d3.select("#films").append("section").attr("id", `film-${number}`);
    section.append("h2").text(film.policy);
    const proof = section.append("details");
    proof.append("summary").classed("warning", !film.verified).text(film.verified ? "verified" : "not verified");
    proof.selectAll("p").data(film.replay).join("p").text(line => line);
    this.told = section.append("p").attr("class", "told");
    this.measure();
    this.map = section.append("svg").attr("class", "map").attr("viewBox", this.box.join(" "))
      .style("max-height", "62vh");
    this.layers = Object.fromEntries(
      ["fibres", "claims", "segments", "requests", "rings", "nodes", "pairs", "names"].map(name =>
        [name, this.map.append("g").attr("class", name)]));
    this.drawWhatStays();
    this.curves(section);
    this.panel = section.append("div").attr("class", "panel");
  }

  measure() {
    const x = this.film.nodes.map(node => node.x), y = this.film.nodes.map(node => node.y);
    const longest = Math.max(d3.max(x) - d3.min(x), d3.max(y) - d3.min(y), 1e-6);
    // Room for arcs, also beside nodes in a line.
    const room = span => Math.max(0.12 * longest, 0.3 * longest - span / 2);
    const wide = d3.max(x) - d3.min(x), high = d3.max(y) - d3.min(y), [beside, above] = [room(wide), room(high)];
    this.box = [d3.min(x) - beside, -d3.max(y) - above, wide + 2 * beside, high + 2 * above];
    this.unit = longest / 600;
    const fastest = Math.max(d3.max(this.film.nodes, node => node.rate), 1e-9);
    this.radius = this.film.nodes.map(node => this.unit * (5 + 5 * Math.sqrt(node.rate / fastest)));
  }

  at(node) { return [this.film.nodes[node].x, -this.film.nodes[node].y]; }

  line(selection, ends) {
    return selection.attr("x1", d => this.at(ends(d)[0])[0]).attr("y1", d => this.at(ends(d)[0])[1])
      .attr("x2", d => this.at(ends(d)[1])[0]).attr("y2", d => this.at(ends(d)[1])[1]);
  }

  arc([from, to], bend = 0.18) {
    const [x1, y1] = this.at(from), [x2, y2] = this.at(to);
    const x = (x1 + x2) / 2 + 2 * bend * (y2 - y1), y = (y1 + y2) / 2 - 2 * bend * (x2 - x1);
    return `M${x1},${y1}Q${x},${y} ${x2},${y2}`;
  }

  drawWhatStays() {
    const { film, unit, layers } = this;
    this.line(layers.fibres.selectAll("line").data(film.links).join("line").attr("class", "fibre")
      .attr("stroke-width", unit), link => link);
    this.nodes = layers.nodes.selectAll("circle").data(film.nodes).join("circle").attr("class", "node")
      .attr("cx", (_, i) => this.at(i)[0]).attr("cy", (_, i) => this.at(i)[1]).attr("r", (_, i) => this.radius[i])
      .attr("stroke-width", unit).on("click", (_, node) => choose(film.nodes.indexOf(node)));
    this.nodes.append("title").text(node => node.name);
    if (film.nodes.length <= MOST_NAMED)
      layers.names.selectAll("text").data(film.nodes).join("text").attr("class", "name").attr("font-size", 11 * unit)
        .attr("x", (_, i) => this.at(i)[0] + this.radius[i] + 2 * unit)
        .attr("y", (_, i) => this.at(i)[1] - this.radius[i] - unit).text(node => node.name);
  }

  show(s) {
    const { film, unit, layers } = this, frame = film.frames[s], { claims, segments } = claimsOf(film, frame);
    const down = new Set(frame.x), memory = bytes(frame.m), contended = new Map(frame.c), stock = pairsAt(film, frame);
    layers.fibres.selectAll("line").classed("down", (_, i) => down.has(i));
    this.line(layers.claims.selectAll("line").data(claims, claim => claim.key).join("line").attr("class", "claim")
      .attr("stroke", claim => claimColour(claim.held / claim.number))
      .attr("stroke-width", claim => unit * (1.5 + 1.2 * Math.min(claim.number, MOST_CLAIMS))), claim => claim.ends);
    layers.segments.selectAll("path").data(segments).join("path").attr("class", "segment")
      .attr("stroke-width", 2.5 * unit).attr("d", ends => this.arc(ends, 0.08));
    const requests = d3.sort(film.requests.map(request => [fateOf(request, s), request]).filter(([fate]) => fate),
      ([fate]) => Object.keys(DASHES).indexOf(fate));
    layers.requests.selectAll("path").data(requests).join("path").attr("class", ([fate]) => `request ${fate}`)
      .attr("stroke-width", ([fate]) => unit * (fate === "served" ? 3.5 : 1.8))
      .attr("stroke-dasharray", ([fate]) => DASHES[fate].map(length => length * unit).join(" "))
      .attr("d", ([, request]) => this.arc([request[2], request[3]]));
    layers.rings.selectAll("circle").data([...contended.keys()], node => node).join("circle").attr("class", "ring")
      .attr("cx", node => this.at(node)[0]).attr("cy", node => this.at(node)[1])
      .attr("r", node => this.radius[node] + 5 * unit).attr("stroke-width", 2.5 * unit);
    this.nodes.attr("fill", (_, i) => memoryColour(memory[i] / 255)).classed("chosen", (_, i) => i === chosen)
      .attr("stroke-width", (_, i) => unit * (i === chosen ? 4 : 1));
    const dots = [...stock].flatMap(([node, count]) => places(node, Math.min(count, MOST_DOTS)));
    layers.pairs.selectAll("circle").data(dots).join("circle").attr("class", "pair").attr("r", 1.6 * unit)
      .attr("cx", ([node, i]) => this.at(node)[0] + (this.radius[node] + 3 * unit) * Math.cos(i * Math.PI / 4))
      .attr("cy", ([node, i]) => this.at(node)[1] + (this.radius[node] + 3 * unit) * Math.sin(i * Math.PI / 4));
    this.cursor.attr("x1", this.x(s)).attr("x2", this.x(s));
    const waiting = requests.filter(([fate]) => fate === "pending").length;
    const delivered = film.delivered[s] === null ? "–" : `${(100 * film.delivered[s]).toFixed(1)} %`;
    this.told.text(`delivered ${delivered} of pairs due · contention ${film.contention[s].toFixed(4)} · ` +
      `${waiting} pending · ${frame.a.length} allocations open`);
    this.tell(s, frame);
  }

  curves(section) {
    const { film } = this, width = 600, height = 100, left = 30, right = 48;
    const svg = section.append("svg").attr("class", "curves").attr("viewBox", `0 0 ${width} ${height}`);
    const top = Math.max(d3.max(FILMS, each => d3.max(each.contention)), 1e-4);
    this.x = d3.scaleLinear([0, most], [left, width - right]);
    const delivered = d3.scaleLinear([0, 1], [height - 18, 6]), contention = d3.scaleLinear([0, top], [height - 18, 6]);
    const curve = (values, y, name) => svg.append("path").attr("class", `curve ${name}`).attr("d",
      d3.line().defined(value => value !== null).x((_, i) => this.x(i)).y(value => y(value))(values));
    curve(film.delivered, delivered, "delivered");
    curve(film.contention, contention, "contention");
    const label = (text, x, y, anchor) => svg.append("text").attr("class", "axis").attr("x", x).attr("y", y)
      .attr("text-anchor", anchor).text(text);
    label("1", left - 4, 10, "end");
    label("0", left - 4, height - 16, "end");
    label(top.toPrecision(2), width - right + 4, 10, "start");
    label("0", width - right + 4, height - 16, "start");
    label("delivered (green, left) and contention (red, right), so far", width / 2, height - 4, "middle");
    this.cursor = svg.append("line").attr("class", "cursor").attr("y1", 4).attr("y2", height - 18);
  }

  // -------------------------------------------------------------- the node that was clicked

  tell(s, frame) {
    this.panel.selectAll("*").remove();
    if (chosen === null) return;
    const { film } = this, name = node => film.nodes[node].name;
    this.panel.append("h2").text(name(chosen));
    const table = this.panel.append("table");
    const say = (title, text) => {
      const row = table.append("tr");
      row.append("th").text(title);
      return row.append("td").text(text);
    };
    say("memory", `${Math.round(bytes(frame.m)[chosen] / 255 * film.memory[chosen])} of ${film.memory[chosen]} qubits`);
    say("queue", this.queue(s).map(([peer, all]) =>
      `${all.length} for ${name(peer)}, the next expires in ${seconds(film, d3.min(all, request => request[1]) + 1 - s)}`)
      .join("; ") || "empty");
    say("stock", frame.s.filter(([node]) => node === chosen)
      .map(([, place, number]) => `${number} with ${name(film.peers[chosen][place])}`).join("; ") || "none");
    say("action", s === 0 ? "none yet" : this.action(s, frame, name));
    this.forecast(say("forecast", ""), s, frame);
  }

  queue(s) {
    const waiting = this.film.requests.filter(request => request[2] === chosen && fateOf(request, s) === "pending");
    return d3.groups(waiting, request => request[3]);
  }

  place(action) { return Math.floor((action - 1) / this.film.qualities); }
  quality(action) { return (action - 1) % this.film.qualities + 1; }

  action(s, frame, name) {
    const { film } = this, [, action, route, verdict] = frame.d.find(([node]) => node === chosen) || [chosen, 0, -1, 0];
    const packed = bytes(film.frames[s - 1].l), width = packed.length / film.nodes.length;
    const legal = d3.range(8 * width).filter(i => packed[chosen * width + (i >> 3)] >> (7 - i % 8) & 1);
    if (film.choices) return `${film.choices[action]}; legal: ${legal.map(each => film.choices[each]).join(", ")}`;
    const over = action && route >= 0 ? ` over route ${route + 1}` : "";
    const asked = action ? `${name(film.peers[chosen][this.place(action)])} at quality ${this.quality(action)}${over}, ` : "";
    const taken = asked + VERDICTS[verdict];
    const offers = d3.groups(legal.filter(each => each), each => this.place(each)).map(([place, all]) =>
      `${name(film.peers[chosen][place])} at quality ${all.map(each => this.quality(each)).join(", ")}`);
    return `${taken}; legal: ${["wait", ...offers].join("; ")}`;
  }

  forecast(cell, s, frame) {
    const { film } = this;
    if (!film.forecast_unit || !frame.f) return cell.text("none");
    const expected = Array.from(bytes(frame.f).slice(chosen * film.horizon, (chosen + 1) * film.horizon),
      value => value * film.forecast_unit);
    const came = d3.range(film.horizon).map(h =>
      film.requests.filter(request => request[2] === chosen && request[0] === s + 1 + h).length);
    const width = 18, height = 46, y = d3.scaleLinear([0, Math.max(d3.max(expected), d3.max(came), 1)], [height, 4]);
    const svg = cell.append("svg").attr("viewBox", `0 0 ${width * film.horizon} ${height + 2}`).style("width", "16rem");
    const bars = (values, shift, colour) => svg.append("g").selectAll("rect").data(values).join("rect")
      .attr("x", (_, h) => width * h + shift).attr("width", width / 2 - 2).attr("y", value => y(value))
      .attr("height", value => height - y(value)).attr("fill", colour);
    bars(expected, 1, "#999");
    bars(came, width / 2, "#e08214");
    cell.append("span").attr("class", "axis").text("requests by slot ahead: expected (grey), came (orange)");
    return cell;
  }
}

// ---------------------------------------------------------------- clock and controls

const screens = FILMS.map((film, number) => new Screen(film, number));

function show(s) {
  slot = Math.max(0, Math.min(most, s));
  d3.select("#slot").property("value", slot);
  d3.select("#clock").text(`slot ${slot} of ${most}, ${seconds(FILMS[0], slot)}`);
  for (const screen of screens) screen.show(slot);
}

function choose(node) {
  chosen = node === chosen ? null : node;
  show(slot);
}

function pause() {
  clearInterval(timer);
  timer = null;
  d3.select("#play").text("Play");
}

function play() {
  if (slot === most) slot = 0;
  clearInterval(timer);
  timer = setInterval(() => slot < most ? show(slot + 1) : pause(), 1000 / d3.select("#speed").property("value"));
  d3.select("#play").text("Pause");
}

function faster(by) {
  const select = document.getElementById("speed");
  select.selectedIndex = Math.max(0, Math.min(select.options.length - 1, select.selectedIndex + by));
  if (timer !== null) play();
}

const KEYS = {
  " ": () => timer === null ? play() : pause(),
  ArrowRight: event => { pause(); show(slot + (event.shiftKey ? 10 : 1)); },
  ArrowLeft: event => { pause(); show(slot - (event.shiftKey ? 10 : 1)); },
  Home: () => { pause(); show(0); },
  End: () => { pause(); show(most); },
  "+": () => faster(1),
  "-": () => faster(-1),
};

document.addEventListener("keydown", event => {
  if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  KEYS[event.key](event);
});
d3.select("#play").on("click", event => { event.currentTarget.blur(); KEYS[" "](event); });
d3.select("#slot").attr("max", most).on("input", event => { pause(); show(+event.currentTarget.value); });
d3.select("#speed").on("change", () => { if (timer !== null) play(); });

d3.select("#legend").selectAll("span").data([
  ["request pending", '<path class="request pending" d="M0,8H36" stroke-width="2" stroke-dasharray="4 4"/>'],
  ["served", '<path class="request served" d="M0,8H36" stroke-width="3.5"/>'],
  ["expired", '<path class="request expired" d="M0,8H36" stroke-width="2" stroke-dasharray="2 6"/>'],
  ["link claimed", '<path d="M0,8H36" stroke="#a9c8ea" stroke-width="5"/>'],
  ["link filled", '<path d="M0,8H36" stroke="#1f5fa8" stroke-width="5"/>'],
  ["joined by swaps", '<path class="segment" d="M0,12Q18,0 36,12" stroke-width="2.5"/>'],
  ["contended", '<circle class="ring" cx="18" cy="8" r="6" stroke-width="2.5"/>'],
  ["link down", '<path class="fibre down" d="M0,8H36" stroke-width="1.5"/>'],
  ["stored pairs", '<circle class="pair" cx="12" cy="8" r="2"/><circle class="pair" cx="22" cy="8" r="2"/>'],
  ["memory in use, 0 to 100 %", d3.range(36).map(i =>
    `<rect x="${i}" y="2" width="1.2" height="12" fill="${memoryColour(i / 35)}"/>`).join("")],
]).join("span").html(([text, sign]) => `<svg viewBox="0 0 36 16">${sign}</svg>${text}`);

show(0);
