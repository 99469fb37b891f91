"use strict";
// What a page marks with data-live is kept up to date, while nobody works in it.

const EVERY_MS = 5000;

function typed(live) {
  return Array.from(live.querySelectorAll("input, textarea")).some((one) => one.value !== one.defaultValue);
}

function busy(live) {
  return live.contains(document.activeElement) || typed(live) || String(document.getSelection()) !== "";
}

function open(live) {
  return new Set(Array.from(live.querySelectorAll("details[open][id]"), (one) => one.id));
}

function renew(live, fresh) {
  if (busy(live)) return;
  const kept = open(live);
  for (const one of fresh.querySelectorAll("details[id]")) one.open = kept.has(one.id);
  if (fresh.innerHTML !== live.innerHTML) live.replaceChildren(...fresh.childNodes);
}

async function look() {
  const lives = Array.from(document.querySelectorAll("[data-live]"));
  if (lives.length === 0 || document.hidden || lives.every(busy)) return;
  const stale = document.getElementById("stale");
  try {
    const answer = await fetch(location.href, { headers: { "X-Rainhill-Look": "1" }, cache: "no-store" });
    if (answer.status === 401) return location.reload();
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = Array.from(page.querySelectorAll("[data-live]"));
    stale.hidden = answer.ok && fresh.length === lives.length;
    if (stale.hidden) lives.forEach((live, place) => renew(live, fresh[place]));
  } catch {
    stale.hidden = false;
  }
}

setInterval(look, EVERY_MS);
