"use strict";
// The page is whole without this. It fetches the page anew and puts its content in place.
const EVERY = 2000;
const control = document.getElementById("control");
const live = document.getElementById("live");
const lost = document.getElementById("lost");

async function refresh() {
  if (live.checked && !document.hidden && !String(getSelection())) {
    try {
      const answer = await fetch(location.href, { cache: "no-store", credentials: "same-origin" });
      if (!answer.ok) throw new Error(answer.status);
      show(new DOMParser().parseFromString(await answer.text(), "text/html"));
      lost.hidden = true;
    } catch {
      lost.hidden = false;
    }
  }
  setTimeout(refresh, EVERY);
}

function show(fresh) {
  const main = document.querySelector("main");
  const open = new Set([...main.querySelectorAll("details[open]")].map((one) => one.id));
  const places = [...main.querySelectorAll(".wide")].map((one) => one.scrollLeft);
  const focused = main.contains(document.activeElement) ? document.activeElement.id : "";
  const next = document.adoptNode(fresh.querySelector("main"));
  for (const one of next.querySelectorAll("details")) one.open = open.has(one.id);
  main.replaceWith(next);
  next.querySelectorAll(".wide").forEach((one, number) => { one.scrollLeft = places[number] || 0; });
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

control.hidden = false;
setTimeout(refresh, EVERY);
