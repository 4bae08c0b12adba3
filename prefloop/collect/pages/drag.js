// Dragging with mouse, pen and finger alike (Pointer Events), and what a press is when it does not become a drag: a tap, a hold.
// Whatever can be dragged can be moved by buttons and keys too (WCAG 2.2, 2.5.7).

const FAR = 6; // pixels before a press is a drag
const LONG = 550; // milliseconds before a finger's press is a hold
const down = new Map(); // handles pressed now, by pointer

/* targets: a selector of what can be dropped on; over(target, event) marks it; drop(target, event) does it; together(id): two at once. */
export function draggable(handle, { id, ghost, targets, over, drop, tap, hold, together }) {
  let start = null;
  let copy = null;
  let timer = 0;
  let wasMore = false; // the press became a drag or a hold: its click is none

  const end = () => {
    clearTimeout(timer);
    copy?.remove();
    copy = null;
    over(null);
    down.delete(start?.pointerId);
    start = null;
    document.removeEventListener("keydown", escape, true);
  };
  const escape = (event) => {
    if (event.key !== "Escape" || !copy) return;
    event.stopPropagation();
    event.preventDefault();
    wasMore = true;
    end();
  };
  const under = (event) => document.elementFromPoint(event.clientX, event.clientY)?.closest(targets) ?? null;

  handle.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    start = event;
    const other = [...down.values()].find((one) => one.id !== id);
    down.set(event.pointerId, { id, cancel: () => ((start = null), clearTimeout(timer)) });
    if (other && together) {
      other.cancel();
      start = null;
      down.clear();
      together(other.id);
      return;
    }
    if (event.pointerType === "touch" && hold) timer = setTimeout(() => start && !copy && ((wasMore = true), end(), hold()), LONG);
    handle.setPointerCapture(event.pointerId);
  });
  handle.addEventListener("pointermove", (event) => {
    if (!start || event.pointerId !== start.pointerId) return;
    if (!copy) {
      if (Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) < FAR) return;
      clearTimeout(timer);
      copy = ghost();
      document.body.append(copy);
      document.addEventListener("keydown", escape, true);
    }
    copy.style.transform = `translate(${event.clientX}px, ${event.clientY}px) translate(-50%, -60%)`;
    over(under(event), event);
  });
  handle.addEventListener("pointerup", (event) => {
    setTimeout(() => (wasMore = false), 0); // after the click that belongs to this press
    if (!start || event.pointerId !== start.pointerId) return void down.delete(event.pointerId);
    const [isDrag, target] = [copy !== null, copy && under(event)];
    end();
    if (isDrag && target) drop(target, event);
    wasMore ||= isDrag;
  });
  handle.addEventListener("pointercancel", end);
  handle.addEventListener("contextmenu", (event) => start?.pointerType === "touch" && event.preventDefault());
  if (tap) handle.addEventListener("click", (event) => wasMore || tap(event)); // also Enter and Space, and a screen reader's click
}
