"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const find = id => document.getElementById(id);
const text = find("text"), space = find("clusters");
const AT_ONCE = 60; // clusters drawn before "more" is asked for
const orders = {
  "largest first": (a, b) => b.size - a.size || a.id - b.id,
  "weakest link first": (a, b) => a.weakest - b.weakest || b.size - a.size || a.id - b.id,
};
let order = "largest first", until = AT_ONCE;

// Every value reaches the page as a text node or a number, never as markup.
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.map(child => typeof child === "number" ? String(child) : child));
  return element;
}
const count = (value, noun) => `${value.toLocaleString("en")} ${noun}${value === 1 ? "" : "s"}`;
const percent = value => value >= .9995 && value < 1 ? "99.9 %" : `${(100 * value).toFixed(1)} %`;

function photo(image, alt) {
  const img = make("img");
  img.alt = alt;
  img.loading = "lazy";
  img.decoding = "async";
  img.src = find("t" + image).textContent;
  return make("div", "picture", img);
}
function member(each) {
  const box = make("div", "member " + (each.keep ? "kept" : "dropped"));
  box.append(each.image === null ? make("div", "gone", "image not shown") : photo(each.image, each.id));
  const name = make("div", "id cut", each.id);
  name.title = each.uri || each.id;
  const fate = each.against ? "other collection" : each.keep ? "keep" : "drop";
  box.append(name, make("span", "pill", fate), " ");
  const why = each.representative ? "" : each.exact === "bytes" ? "same file" : each.exact === "pixels" ? "same pixels" : `score ${percent(each.score)}`;
  box.append(make("span", "soft", why));
  if (!each.representative && !each.exact) box.append(make("div", "soft", `similarity ${each.similarity.toFixed(3)}`));
  return box;
}
function cluster(each) {
  const said = make("div", "said", make("h2", "", `Cluster ${each.id}`), make("span", "soft", count(each.size, "image")));
  if (each.weakest < 1) said.append(make("span", "soft", `weakest link ${percent(each.weakest)}`), make("span", "soft", `${count(each.diameter, "step")} across`));
  else said.append(make("span", "soft", "all exactly the same"));
  const members = make("div", "members", ...each.members.map(member));
  if (each.size > each.members.length) members.append(make("p", "more", `and ${count(each.size - each.members.length, "more image")}`));
  return make("section", "cluster", said, members);
}
function draw() {
  const wanted = text.value.trim().toLowerCase();
  const seen = data.clusters.filter(each => !wanted || each.members.some(one => one.id.toLowerCase().includes(wanted))).sort(orders[order]);
  space.replaceChildren(...seen.slice(0, until).map(cluster));
  if (seen.length > until) {
    const more = make("button", "", `Show ${Math.min(AT_ONCE, seen.length - until)} more`);
    more.id = "rest";
    more.type = "button";
    more.addEventListener("click", () => { until += AT_ONCE; draw(); });
    space.append(more);
  }
  const left = data.total - data.clusters.length;
  find("count").textContent = `${count(seen.length, "cluster")}${left ? `; ${count(left, "more")} are left out to keep the page small: clusters.parquet has all` : ""}`;
}
for (const name of Object.keys(orders)) {
  const button = make("button", "", name);
  button.type = "button";
  button.addEventListener("click", () => {
    order = name;
    until = AT_ONCE;
    for (const other of find("orders").children) other.setAttribute("aria-pressed", String(other === button));
    draw();
  });
  button.setAttribute("aria-pressed", String(name === order));
  find("orders").append(button);
}
text.addEventListener("input", () => { until = AT_ONCE; draw(); });
find("theme").addEventListener("click", () => {
  const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  find("theme").textContent = dark ? "Dark" : "Light";
});
draw();
