// Answers that are files. All pictures of a screen zoom and move together, so that the same spot is compared; holding V shows the
// other picture in the same place. Of sounds and clips one plays at a time, and the next begins where the last one was; sounds
// can be made equally loud, as the louder one sounds the better one; clips also play in step, side by side.
import { announce, el, number, t } from "./base.js";
import { shape } from "./sound.js";

const MOST = 12;
const STEP = 1.25;
const SPEEDS = [0.25, 0.5, 0.75, 1, 1.25, 1.5, 2];
const SECONDS = 5; // back and on
const FRAME = 1 / 25; // of a second; a player does not say how many it has
const DRIFT = 0.15; // seconds that clips in step may be apart
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/* gallery().show(content, name) is the element of one answer; a gallery is what stands on a screen together. */
export function gallery() {
  const frames = [];
  const players = [];
  let view = { scale: 1, x: 0, y: 0 }; // x and y as shares of the frame, so that frames of any size show the same spot
  let at = 0; // seconds, of whatever played last

  const draw = () => frames.forEach(({ frame, image }) => {
    image.style.transform = view.scale === 1 ? "" : `translate(${view.x * frame.clientWidth}px, ${view.y * frame.clientHeight}px) scale(${view.scale})`;
    frame.classList.toggle("is-zoomed", view.scale > 1);
  });

  /* Larger or smaller around a point of the frame, given as shares of it; never away from the picture. */
  const zoom = (factor, px = 0.5, py = 0.5) => {
    const scale = clamp(view.scale * factor, 1, MOST);
    const moved = (from, share) => clamp(share - ((share - from) / view.scale) * scale, 1 - scale, 0);
    view = { scale, x: moved(view.x, px), y: moved(view.y, py) };
    draw();
  };
  const pan = (dx, dy) => {
    view = { ...view, x: clamp(view.x + dx, 1 - view.scale, 0), y: clamp(view.y + dy, 1 - view.scale, 0) };
    draw();
  };
  const whole = () => {
    view = { scale: 1, x: 0, y: 0 };
    draw();
  };

  function picture(content, name) {
    const image = el("img", { src: content.src, alt: t("media.picture", { name }), draggable: "false", decoding: "async" });
    const label = el("span", { class: "letter swapped", hidden: true });
    const frame = el("div", { class: "picture", tabindex: "0", role: "group", "aria-label": t("media.picture", { name }), title: t("media.hint") }, image, label);
    const one = { frame, image, name, src: content.src };
    frames.push(one);
    image.addEventListener("error", () => frame.replaceChildren(el("p", { class: "broken" }, t("media.broken"))));
    const share = ({ clientX, clientY }) => {
      const box = frame.getBoundingClientRect();
      return [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
    };
    frame.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoom(event.deltaY < 0 ? STEP : 1 / STEP, ...share(event));
    }, { passive: false });
    frame.addEventListener("dblclick", (event) => (view.scale > 1 ? whole() : zoom(3, ...share(event))));
    frame.addEventListener("pointerdown", (event) => view.scale > 1 && frame.setPointerCapture(event.pointerId));
    frame.addEventListener("pointermove", (event) => frame.hasPointerCapture(event.pointerId) && pan(event.movementX / frame.clientWidth, event.movementY / frame.clientHeight));
    frame.addEventListener("keydown", (event) => {
      const act = { "+": () => zoom(STEP), "=": () => zoom(STEP), "-": () => zoom(1 / STEP), 0: whole, v: () => swap(one, true) }[event.key];
      const move = view.scale > 1 && { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
      if ((!act && !move) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      event.stopPropagation(); // these keys mean something else elsewhere on the page
      if (!event.repeat || event.key !== "v") act ? act() : pan(...move);
    });
    frame.addEventListener("keyup", ({ key }) => key === "v" && swap(one, false));
    frame.addEventListener("blur", () => swap(one, false));
    return frame;
  }

  /* The next picture in the place of this one, for as long as the key is held. */
  function swap(one, isOn) {
    const other = frames[(frames.indexOf(one) + 1) % frames.length];
    one.image.src = isOn ? other.src : one.src;
    const label = one.frame.querySelector(".swapped");
    if (!label) return;
    label.hidden = !isOn;
    label.textContent = other.name;
    if (isOn) announce(t("media.picture", { name: other.name }));
  }

  let last = null; // the player that played last
  const isInStep = () => players.length > 1 && Boolean(transport.querySelector("[name=in_step]")?.checked);

  function player(content, name) {
    const made = el(content.type, { src: content.src, controls: true, preload: "metadata", "aria-label": t(`media.${content.type}`, { name }) });
    players.push(made);
    made.dataset.name = name;
    made.addEventListener("play", () => {
      last = made;
      if (!isInStep()) players.forEach((other) => other !== made && other.pause());
      if (at < (made.duration || 0) && Math.abs(made.currentTime - at) > DRIFT) made.currentTime = at;
    });
    made.addEventListener("timeupdate", () => {
      if (made.paused || made !== last) return;
      at = made.currentTime;
      if (isInStep()) players.forEach((other) => other !== made && !other.ended && Math.abs(other.currentTime - at) > DRIFT && (other.currentTime = at));
    });
    made.addEventListener("seeked", () => (isInStep() && made !== last) || (at = made.currentTime));
    made.addEventListener("ended", () => (at = 0));
    made.addEventListener("error", () => made.replaceWith(el("p", { class: "broken" }, t("media.broken"))));
    if (!transport.childElementCount) transport.append(...controls(content.type));
    transport.hidden = false;
    if (content.type !== "audio") return made;
    const { drawing, loudness } = shape(made, content.src);
    loudness.then((found) => {
      made.loudness = found;
      level();
    });
    return el("div", { class: "sound" }, drawing, made);
  }

  /* With "equally loud" every sound is turned down to the quietest; one that could not be measured stays as it is. */
  function level() {
    const isEqual = Boolean(transport.querySelector("[name=equally_loud]")?.checked);
    const known = players.map(({ loudness }) => loudness).filter((one) => one > 0);
    players.forEach((one) => (one.volume = isEqual && one.loudness > 0 ? Math.min(...known) / one.loudness : 1));
  }

  const of = (name) => players.find((one) => one.dataset.name === name) ?? last ?? players[0];
  const playing = () => players.filter((one) => !one.paused);

  /* Play what has this name, or all of them in step; pause where something plays that would go on. False where nothing can be played. */
  function play(name) {
    const one = of(name);
    if (!one) return false;
    const wasPlaying = isInStep() ? playing().length > 0 : !one.paused;
    players.forEach((each) => each.pause());
    if (wasPlaying) return true;
    last = one;
    players.forEach((each) => (each.muted = isInStep() && each !== one)); // one is heard
    (isInStep() ? players : [one]).forEach((each) => {
      each.currentTime = at;
      each.play().catch(() => {});
    });
    return true;
  }

  /* Back or on, all together: whichever plays next begins there. */
  function wind(seconds) {
    if (!players.length) return false;
    const longest = Math.max(...players.map(({ duration }) => duration || 0));
    at = clamp(at + seconds, 0, longest);
    players.forEach((one) => (one.currentTime = Math.min(at, one.duration || at)));
    return true;
  }

  const transport = el("div", { class: "transport row", role: "group", "aria-label": t("media.transport"), hidden: true });
  const step = (label, name, seconds) => el("button", { type: "button", class: "button small-button", "aria-label": t(name), title: t(name), onclick: () => wind(seconds) }, label);
  function controls(kind) {
    const speed = el("select", { class: "input", "aria-label": t("media.speed"), name: "speed", onchange: () => players.forEach((one) => (one.playbackRate = Number(speed.value))) },
      SPEEDS.map((one) => el("option", { value: String(one), selected: one === 1 }, `${number(one)}×`)));
    const inStep = el("label", { class: "row small" }, el("input", { type: "checkbox", name: "in_step", onchange: () => players.forEach((one) => one.pause()) }), t("media.in_step"));
    const equal = el("label", { class: "row small", title: t("media.equally_loud_hint") }, el("input", { type: "checkbox", name: "equally_loud", onchange: level }), t("media.equally_loud"));
    const isClip = kind === "video";
    return [el("button", { type: "button", class: "button small-button", onclick: () => play() }, t("media.play")), step("−5", "media.back", -SECONDS), step("+5", "media.on", SECONDS),
      isClip && step("‹", "media.frame_back", -FRAME), isClip && step("›", "media.frame_on", FRAME), speed, isClip ? inStep : equal].filter(Boolean);
  }

  return { show: (content, name) => (content.type === "image" ? picture : player)(content, name), transport, play, wind };
}
