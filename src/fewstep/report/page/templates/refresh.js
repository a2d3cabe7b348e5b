
// -- a page of something that goes on: read again, but not under the hands of its reader

const live = document.getElementById("live");
const pause = make("button", { type: "button", id: "pause" });
const quiet = 3000;  // milliseconds without a key or a click before it is read again
let touched = 0;

function reflectPause() {
  pause.textContent = state.paused ? "Resume" : "Pause";
}

pause.addEventListener("click", () => {
  state.paused = !state.paused;
  touched = 0;
  reflectPause();
  remember();
});
reflectPause();
live.append(pause);

for (const kind of ["keydown", "pointerdown", "input"]) {
  addEventListener(kind, (event) => { if (event.target !== pause) touched = Date.now(); }, true);
}

const selecting = () => !getSelection().isCollapsed;

function readAgain() {
  if (state.paused || document.hidden || selecting() || Date.now() - touched < quiet) return;
  state.focus = document.activeElement?.id;
  state.scroll = [scrollX, scrollY];
  state.inner = Object.fromEntries(all(".scroll[id], pre[id]").map((region) => [region.id, region.scrollLeft]));
  remember();
  location.reload();
}

// All of the page is there by now, so that it is as it was before anything is seen.
history.scrollRestoration = "manual";
if (state.focus) document.getElementById(state.focus)?.focus({ preventScroll: true });
if (state.scroll) scrollTo({ left: state.scroll[0], top: state.scroll[1], behavior: "instant" });
for (const [id, left] of Object.entries(state.inner ?? {})) {
  const region = document.getElementById(id);
  if (region) region.scrollLeft = left;
}
for (const name of ["focus", "scroll", "inner"]) delete state[name];
remember();

const due = Date.now() + 1000 * live.dataset.seconds;
setInterval(() => { if (Date.now() >= due) readAgain(); }, 250);
