"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const names = {copy: "copy", partial_copy: "partial copy", near_duplicate: "near duplicate", no_match: "no match", failed: "failed"};
const order = Object.keys(names);
const ROW = 84, SPARE = 6; // pixels of a row, as in the style; rows drawn beyond the edges of the list
const find = id => document.getElementById(id);
const list = find("list"), space = find("rows"), evidence = find("evidence"), text = find("text"), least = find("least");
const off = new Set();
const showing = {overlay: true, difference: true, wipe: 50};
let seen = []; // the rows that pass the filter
let at = 0; // place in `seen` of the chosen row
let which = 0; // its chosen reference
const drawn = new Map(); // place in `seen` -> element in the list

// Every value reaches the page as a text node or a number, never as markup.
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.map(child => typeof child === "number" ? String(child) : child));
  return element;
}
function button(label, pressed, act) {
  const element = make("button", "", ...[].concat(label));
  element.type = "button";
  if (pressed !== null) element.setAttribute("aria-pressed", String(pressed));
  element.addEventListener("click", act);
  return element;
}
const kind = row => row.status === "ok" ? row.verdict : "failed";
const toned = (element, verdict) => { element.style.setProperty("--tone", `var(--${order.includes(verdict) ? verdict : "failed"})`); return element; };
const percent = value => value >= .9995 && value < 1 ? "99.9 %" : `${(100 * value).toFixed(1)} %`;
const share = value => `${(100 * value).toFixed(value < .1 ? 1 : 0)} %`;
const count = value => value.toLocaleString("en");
const pill = verdict => toned(make("span", "pill", names[verdict] || verdict), verdict);
const named = (id, uri) => { const element = make("b", "", id); element.title = uri || id; return element; };

// Pictures.
const source = (image, large) => find("t" + (large && image.large !== undefined ? image.large : image.n)).textContent;
function photo(image, large, alt) {
  const img = make("img");
  img.alt = alt;
  img.decoding = "async";
  img.src = source(image, large);
  return img;
}
function frame(image, tall, ...children) { // keeps the picture's shape and fits the width and the height `tall`
  const box = make("div", "picture", ...children), ratio = image.width / image.height;
  box.style.aspectRatio = String(ratio);
  box.style.width = `min(100%, calc(${tall} * ${ratio}))`;
  return box;
}
function outline(points) {
  const path = points.reduce((said, value, i) => said + (i % 2 ? " " : i ? "L" : "M") + value, "") + "Z";
  const svg = find("blank").cloneNode();
  svg.removeAttribute("id");
  svg.removeAttribute("hidden");
  for (const [name, shape] of [["rest", "M0 0H1V1H0Z" + path], ["under", path], ["over", path]]) {
    const part = document.createElementNS(svg.namespaceURI, "path");
    part.setAttribute("class", name);
    part.setAttribute("d", shape);
    part.setAttribute("fill-rule", "evenodd");
    svg.append(part);
  }
  return svg;
}
const gone = uri => make("div", "gone", uri ? "image not shown: out of reach, or left out to keep the page small" : "image was not read from a file");

// The list: only the rows in view exist.
function thumb(image, points) {
  const box = make("div", "thumb");
  if (!image) box.append(make("div", "gone"));
  else box.append(frame(image, "66px", photo(image, false, ""), ...(points ? [outline(points)] : [])));
  return box;
}
function rowElement(place) {
  const row = seen[place], best = row.references[0];
  const names = make("div", "names", make("div", "id cut", row.id));
  const judged = make("div", "judged");
  if (row.status !== "ok") names.append(make("div", "soft cut", `${row.status}: ${row.message}`));
  else if (!best) names.append(make("div", "soft cut", "no reference was proposed"));
  else {
    names.append(make("div", "soft cut", best.id));
    if (best.words) names.append(make("div", "soft cut", best.words));
    names.title = best.words || "";
  }
  if (best) judged.append(make("div", "score", percent(best.score)));
  judged.append(pill(kind(row)));
  const element = make("div", "row", thumb(row.image, best && best.in_query), best ? thumb(best.image, best.in_reference) : make("div"), names, judged);
  element.id = "row" + place;
  element.setAttribute("role", "option");
  element.setAttribute("aria-posinset", place + 1);
  element.setAttribute("aria-setsize", seen.length);
  element.setAttribute("aria-selected", String(place === at));
  element.style.transform = `translateY(${place * ROW}px)`;
  element.addEventListener("click", () => { choose(place); if (!evidence.offsetParent) open(); });
  element.addEventListener("dblclick", open);
  return element;
}
function drawList() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
  const last = Math.min(seen.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
  for (const [place, element] of drawn) if (place < first || place >= last) { element.remove(); drawn.delete(place); }
  for (let place = first; place < last; place++) if (!drawn.has(place)) {
    const element = rowElement(place);
    drawn.set(place, element);
    space.append(element);
  }
}
function choose(place, reference = 0) {
  at = Math.max(0, Math.min(seen.length - 1, place));
  which = reference;
  const top = at * ROW, bottom = top + ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  drawList();
  for (const [each, element] of drawn) element.setAttribute("aria-selected", String(each === at));
  if (seen.length) list.setAttribute("aria-activedescendant", "row" + at);
  else list.removeAttribute("aria-activedescendant");
  drawEvidence();
}

// The evidence of the chosen row.
function figure(title, extras, body, className) {
  return make("figure", className || "", make("figcaption", "", make("h3", "", title), ...extras), body);
}
function side(title, image, uri, points, alt) {
  const facts = image ? [make("span", "number", `${image.width} × ${image.height}`)] : [];
  return figure(title, facts, image ? frame(image, "var(--tall)", photo(image, true, alt), ...(points ? [outline(points)] : [])) : gone(uri));
}
function fit(laid, img, lay, box) { // the reference laid over the query: its homography in pixels of the box
  const [w, h] = [box.clientWidth, box.clientHeight];
  const [a, b, c, d, e, f, g, i, j] = lay;
  img.style.width = img.style.height = `${w}px`;
  img.style.transform = `matrix3d(${[a, d * h / w, 0, g / w, b, e * h / w, 0, i / w, 0, 0, 1, 0, c * w, f * h, 0, j]})`;
}
const corners = points => points.map((value, at) => `${(100 * value).toFixed(2)}%${at % 2 ? "," : " "}`).join("").slice(0, -1);
const sized = new ResizeObserver(entries => { for (const entry of entries) entry.target.fit(); });
function overlay(row, reference) {
  const img = photo(reference.image, true, "reference laid over the query");
  if (reference.part) img.style.clipPath = `polygon(${corners(reference.in_reference)})`; // of the reference, before it is laid
  const laid = make("div", "laid", img), line = make("div", "wipe");
  const box = frame(row.image, "var(--tall)", photo(row.image, true, "query"), laid, line);
  box.fit = () => fit(laid, img, reference.lay, box);
  sized.observe(box);
  const wipe = make("input");
  wipe.type = "range";
  wipe.setAttribute("aria-label", "How much of the overlay is seen");
  const draw = () => {
    laid.style.clipPath = `inset(0 ${100 - showing.wipe}% 0 0)`;
    line.style.left = `${showing.wipe}%`;
    laid.hidden = !showing.overlay;
    line.hidden = !showing.overlay || showing.wipe === 0 || showing.wipe === 100;
  };
  wipe.value = showing.wipe;
  const move = to => {
    showing.wipe = Math.round(Math.max(0, Math.min(100, to)));
    showing.overlay = true;
    wipe.value = showing.wipe;
    toggle.setAttribute("aria-pressed", "true");
    draw();
  };
  wipe.addEventListener("input", () => move(Number(wipe.value)));
  const follow = event => { const place = box.getBoundingClientRect(); move(100 * (event.clientX - place.left) / place.width); };
  box.addEventListener("pointerdown", event => { event.preventDefault(); box.setPointerCapture(event.pointerId); follow(event); });
  box.addEventListener("pointermove", event => { if (event.buttons) follow(event); });
  box.classList.add("wiped");
  const toggle = button("Overlay", showing.overlay, toggleOverlay);
  draw();
  return figure("Laid over the query", [toggle, wipe], box);
}
function changes(row, reference) {
  const {n, box: [left, top, width, height], changed} = reference.difference;
  const base = photo(row.image, true, "query"), heat = photo({n}, false, "what was changed");
  base.classList.add("base");
  base.classList.toggle("off", !showing.difference);
  heat.className = "heat";
  Object.assign(heat.style, {left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * width}%`, height: `${100 * height}%`});
  heat.hidden = !showing.difference;
  const said = make("span", "end number", changed < .002 ? "nothing" : `${share(changed)} of the shared area`);
  const box = frame(row.image, "var(--tall)", base, heat, outline(reference.in_query));
  return figure("What was changed", [button("Difference", showing.difference, toggleDifference), said], box, "changes");
}
function without(reference) {
  const why = reference.image && reference.lay
    ? `Difference maps are made for the best ${count(data.evidence.made)} verified matches; this is not one of them.`
    : "There is nothing to lay over: the transform between the two is not known.";
  return make("p", "note", why);
}
function numbers(row, reference) {
  const facts = [["similarity", reference.similarity.toFixed(3)], ["normalised", reference.normalised.toFixed(3)]];
  if (reference.inliers !== null) facts.push(["inliers", count(reference.inliers)]);
  if (reference.query_overlap !== null) facts.push(["of the query", share(reference.query_overlap)]);
  if (reference.reference_overlap !== null) facts.push(["of the reference", share(reference.reference_overlap)]);
  facts.push(["query view", reference.query_view], ["reference view", reference.reference_view]);
  if (row.more > 0) facts.push(["proposed", `best ${row.references.length} of ${count(row.references.length + row.more)}`]);
  return make("dl", "numbers", ...facts.map(([name, value]) => make("div", "", make("dt", "", name), make("dd", "", value))));
}
function tabs(row) {
  const group = make("div", "tabs");
  group.setAttribute("role", "tablist");
  row.references.forEach((reference, i) => {
    const score = make("span", "soft number", percent(reference.score));
    const tab = button([toned(make("span", "dot"), reference.verdict), make("span", "cut", reference.id), score], null, () => choose(at, i));
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-selected", String(i === which));
    group.append(tab);
  });
  return group;
}
function heading(row, reference) {
  const pair = make("p", "pair", named(row.id, row.uri));
  let said = "No reference was proposed";
  if (row.status !== "ok") said = `${row.status}: ${row.message}`;
  else if (reference) {
    said = reference.words || (reference.verdict === "no_match" ? "No match" : `Found as a ${names[reference.verdict] || reference.verdict} by its descriptor`);
    pair.append(reference.verdict === "no_match" ? " is nearest to " : " shows ", named(reference.id, reference.uri));
  }
  const score = reference ? [make("div", "score", percent(reference.score))] : [];
  const close = button("Close", null, shut);
  close.id = "close";
  return make("div", "title", make("div", "said", make("h2", "", said), pair), make("div", "", pill(reference ? reference.verdict : kind(row))), ...score, close);
}
// The panels take the width of their pictures, within reason, so that the numbers find a place beside tall ones.
const widest = (...images) => Math.max(1, ...images.map(image => image ? image.width / image.height : 1.5));
function drawEvidence() {
  sized.disconnect();
  const row = seen[at];
  if (!row) {
    evidence.replaceChildren(make("p", "note", data.rows.length ? "No row matches the filter." : "There were no queries."));
    return;
  }
  const reference = row.references[which];
  const parts = [heading(row, reference)];
  if (row.references.length > 1) parts.push(tabs(row));
  const panels = make("div", "panels", side("Query", row.image, row.uri, reference && reference.in_query, "query " + row.id));
  if (reference) {
    panels.append(side("Reference", reference.image, reference.uri, reference.in_reference, "reference " + reference.id));
    if (reference.lay) panels.append(overlay(row, reference));
    if (reference.difference) panels.append(changes(row, reference));
  }
  panels.style.flexBasis = `calc(${2 * widest(row.image, reference && reference.image)} * var(--tall) + 20px)`;
  parts.push(make("div", "proof", panels, ...(reference ? [numbers(row, reference)] : [])));
  if (reference && !reference.difference) parts.push(without(reference));
  evidence.replaceChildren(...parts);
}
function toggleOverlay() { showing.overlay = !showing.overlay; drawEvidence(); }
function toggleDifference() { showing.difference = !showing.difference; drawEvidence(); }
function open() { if (seen.length) { document.body.classList.add("open"); evidence.focus(); } }
function shut() { document.body.classList.remove("open"); drawList(); choose(at, which); list.focus(); }

// Filters.
const haystacks = new Map(data.rows.map(row => [row, [row.id, ...row.references.flatMap(each => [each.id, each.words || ""])].join("\n").toLowerCase()]));
function filter() {
  const wanted = text.value.trim().toLowerCase(), from = Number(least.value) / 100, before = seen[at];
  find("least-said").textContent = `${least.value} %`;
  seen = data.rows.filter(row => !off.has(kind(row)) && (row.score || 0) >= from && haystacks.get(row).includes(wanted));
  for (const element of drawn.values()) element.remove();
  drawn.clear();
  space.style.height = `${seen.length * ROW}px`;
  const said = [seen.length === data.rows.length ? `${count(seen.length)} queries` : `${count(seen.length)} of ${count(data.rows.length)} queries`];
  if (data.evidence.of > data.evidence.made) said.push(`difference maps of the best ${count(data.evidence.made)} of ${count(data.evidence.of)} verified matches`);
  if (data.left_out) said.push(`${count(data.left_out)} more are in the table of matches, not on this page`);
  find("count").textContent = said.join(" · ");
  choose(Math.max(0, seen.indexOf(before)));
}
for (const verdict of order) {
  const n = data.rows.filter(row => kind(row) === verdict).length;
  if (!n) continue;
  const toggle = toned(button([make("span", "dot"), names[verdict], make("span", "n", count(n))], true, () => {
    off.has(verdict) ? off.delete(verdict) : off.add(verdict);
    toggle.setAttribute("aria-pressed", String(!off.has(verdict)));
    filter();
  }), verdict);
  find("verdicts").append(toggle);
}
text.addEventListener("input", filter);
least.addEventListener("input", filter);
list.addEventListener("scroll", drawList, {passive: true});
new ResizeObserver(drawList).observe(list);

// Keys.
const page = () => Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
const acts = {
  j: () => choose(at + 1), ArrowDown: () => choose(at + 1), k: () => choose(at - 1), ArrowUp: () => choose(at - 1),
  PageDown: () => choose(at + page()), PageUp: () => choose(at - page()), Home: () => choose(0), End: () => choose(seen.length - 1),
  h: () => turn(-1), ArrowLeft: () => turn(-1), l: () => turn(1), ArrowRight: () => turn(1),
  Enter: () => document.body.classList.contains("open") ? shut() : open(), Escape: shut,
  o: toggleOverlay, d: toggleDifference, "/": () => { text.focus(); text.select(); }, "?": () => { find("keys").hidden = !find("keys").hidden; drawList(); },
};
function turn(by) {
  const row = seen[at];
  if (row && row.references.length) choose(at, Math.max(0, Math.min(row.references.length - 1, which + by)));
}
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(acts, event.key)) return;
  if (event.target === text) { if (event.key === "Escape" || event.key === "Enter") list.focus(); return; }
  const type = event.target.type;
  if (type === "range" && event.key.startsWith("Arrow") || type === "button" && event.key === "Enter") return;
  event.preventDefault();
  acts[event.key]();
});

const theme = find("theme"), root = document.documentElement;
const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameTheme(); });
nameTheme();
filter();
list.focus();
performance.mark("first row");
