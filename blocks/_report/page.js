"use strict";
(() => {
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const { paths, drawn } = JSON.parse(document.getElementById("known").textContent);
  const number = new Map(paths.map((path, i) => [path, i]));
  document.documentElement.classList.add("js");

  // What is folded is open where there are no scripts, and on paper.
  const folds = all("details");
  const fold = (open) => folds.forEach((one) => { one.open = open; });
  fold(false);
  addEventListener("beforeprint", () => fold(true));
  addEventListener("afterprint", () => fold(false));

  // Tabs
  const list = document.querySelector("[role=tablist]");
  const tabs = all("[role=tab]", list);
  const panels = tabs.map((tab) => document.getElementById(tab.getAttribute("aria-controls")));
  let apart = false;
  let shown = 0;
  const show = (i) => {
    shown = i;
    tabs.forEach((tab, j) => {
      tab.setAttribute("aria-selected", String(i === j));
      tab.tabIndex = i === j ? 0 : -1;
      panels[j].hidden = !apart && i !== j;
    });
  };
  const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
  tabs.forEach((tab, i) => {
    panels[i].setAttribute("role", "tabpanel");
    tab.addEventListener("click", () => { show(i); reveal(); });
    tab.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const last = tabs.length - 1;
      const to = Number.isFinite(step) ? (i + step + tabs.length) % tabs.length : step < 0 ? 0 : last;
      show(to);
      tabs[to].focus();
    });
  });
  const beside = document.createElement("button");
  Object.assign(beside, { type: "button", className: "beside", textContent: "side by side" });
  beside.setAttribute("aria-pressed", "false");
  beside.addEventListener("click", () => {
    apart = !apart;
    beside.setAttribute("aria-pressed", String(apart));
    document.documentElement.classList.toggle("apart", apart);
    show(shown);
    reveal();
  });
  list.after(beside);
  list.parentElement.hidden = false;

  // Who is marked: each block's picture, lines and row
  const pictures = new Map();
  const marked = paths.map(() => []);
  const own = new Map();
  for (const group of all(".diagram [data-path], .diagram [data-more]")) {
    const i = number.get(group.dataset.path ?? group.dataset.more);
    if (i === undefined) continue;
    pictures.set(i, group);
    own.set(group, []);
  }
  // One of the pictures can be reached by the tab key, from there the arrows lead to the others.
  const groups = [...pictures.values()];
  document.querySelector(".diagram svg").setAttribute("role", "group");
  groups.forEach((group, i) => {
    group.setAttribute("role", "button");
    group.tabIndex = i === 0 ? 0 : -1;
    group.addEventListener("keydown", (event) => {
      const step = { ArrowUp: -1, ArrowDown: 1, Home: -groups.length, End: groups.length }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const to = groups[Math.min(groups.length - 1, Math.max(0, i + step))];
      group.tabIndex = -1;
      to.tabIndex = 0;
      to.focus();
    });
  });
  drawn.forEach((picture, i) => {
    const group = pictures.get(picture);
    if (group === undefined) return;
    marked[i].push(group);
    own.get(group).push(i);
  });
  for (const line of all(".line[data-b]")) {
    const [mine, around] = line.dataset.b.split("|").map((part) =>
      part.split(" ").filter(Boolean).map(Number));
    own.set(line, mine);
    for (const i of [...mine, ...around]) marked[i].push(line);
  }
  for (const row of all("tr[data-block]")) {
    const i = number.get(row.dataset.block);
    own.set(row, [i]);
    marked[i].push(row);
  }

  let on = [];
  let pinned = [];
  let current = [];
  const mark = (blocks) => {
    on.forEach((one) => one.classList.remove("on"));
    current = blocks;
    on = [...new Set(blocks.flatMap((i) => marked[i]))];
    on.forEach((one) => one.classList.add("on"));
  };
  /** Scroll the boxes, not the page, to what is marked; all but the one that is pointed at. */
  const reveal = (from = null) => {
    const boxes = panels.map((panel) => panel.querySelector(".code")).filter(Boolean);
    for (const box of [...boxes, document.querySelector(".diagram")]) {
      const first = on.find((one) => box.contains(one));
      if (!first || box.contains(from) || !box.clientHeight) continue;
      const inside = first.getBoundingClientRect();
      const around = box.getBoundingClientRect();
      if (inside.top < around.top || inside.bottom > around.bottom - 60) {
        box.scrollTop += inside.top - around.top - box.clientHeight / 3;
      }
      if (first.matches(".line")) {
        const indent = first.textContent.search(/\S|$/) * parseFloat(getComputedStyle(first).fontSize);
        box.scrollLeft = box.clientWidth < 600 ? Math.max(0, 0.6 * indent - 24) : 0;
      } else if (inside.left < around.left || inside.right > around.right) {
        box.scrollLeft += inside.left - around.left - 16;
      }
    }
  };
  const found = (event) => event.target.closest?.("[data-b], tr[data-block], .diagram [tabindex]");
  const point = (event) => {
    const one = found(event);
    if (!own.has(one)) return;
    mark(own.get(one));
    reveal(one);
  };
  addEventListener("pointerover", (event) => {
    if (event.pointerType !== "touch") point(event);
  });
  addEventListener("pointerout", (event) => {
    if (event.pointerType !== "touch" && own.has(found(event))) mark(pinned);
  });
  addEventListener("focusin", point);
  const keep = (one) => {
    const blocks = own.get(one);
    pinned = String(pinned) === String(blocks) ? [] : blocks;
    mark(pinned);
    reveal(one);
    const name = pinned.length && `#block=${encodeURIComponent(paths[pinned[0]])}`;
    history.replaceState(null, "", name || location.pathname + location.search);
  };
  addEventListener("click", (event) => {
    const one = found(event);
    const link = event.target.closest?.("a");
    if (link && link.hash === location.hash) follow(); // which else follows the change
    if (own.has(one) && !link) keep(one);
  });
  addEventListener("keydown", (event) => {
    if (["Enter", " "].includes(event.key) && own.has(event.target)) {
      event.preventDefault();
      keep(event.target);
    }
    if (event.key === "Escape") mark((pinned = []));
  });

  // A link to a block: #block=encoder/0
  const follow = () => {
    if (!location.hash.startsWith("#block=")) {
      mark((pinned = []));
      return;
    }
    let path = location.hash.slice(7);
    try { path = decodeURIComponent(path); } catch { return; }
    if (!number.has(path)) return;
    pinned = [number.get(path)];
    mark(pinned);
    reveal();
    document.getElementById("section-network").scrollIntoView();
  };
  addEventListener("hashchange", follow);
  show(Math.max(0, tabs.findIndex((tab) => tab.textContent === "torch")));
  follow();
})();
