// The shape of a sound: how loud it is along its length, drawn once it is read; a press on it goes there. The browser reads the
// file, so that whatever it can play is drawn, and the service needs no decoder.
import { el } from "./base.js";

const RATE = 8000; // samples a second are enough for a drawing, and ten minutes are 19 MB
const BARS = 160;
const HEIGHT = 44; // pixels, twice as many on the canvas

/* { drawing, loudness }: a canvas for a player, and a promise of its root mean square; null where it cannot be read. */
export function shape(player, src) {
  const drawing = el("canvas", { class: "shape", width: String(BARS * 4), height: String(HEIGHT * 2), "aria-hidden": "true" }); // the player itself is what keyboards and screen readers use
  let peaks = [];

  const draw = () => {
    const pen = drawing.getContext("2d");
    const { color, accentColor } = getComputedStyle(drawing); // of the light that is on
    const reached = player.duration ? (player.currentTime / player.duration) * BARS : 0;
    pen.clearRect(0, 0, drawing.width, drawing.height);
    peaks.forEach((peak, place) => {
      const tall = Math.max(2, peak * drawing.height);
      pen.fillStyle = place < reached ? accentColor : color;
      pen.fillRect(place * 4, (drawing.height - tall) / 2, 3, tall);
    });
  };
  for (const name of ["timeupdate", "seeked", "loadedmetadata"]) player.addEventListener(name, draw);
  const go = ({ clientX }) => {
    const box = drawing.getBoundingClientRect();
    if (player.duration) player.currentTime = Math.min(1, Math.max(0, (clientX - box.left) / box.width)) * player.duration;
  };
  drawing.addEventListener("pointerdown", (event) => {
    drawing.setPointerCapture(event.pointerId);
    go(event);
  });
  drawing.addEventListener("pointermove", (event) => drawing.hasPointerCapture(event.pointerId) && go(event));

  const read = async () => {
    const file = await (await fetch(src)).arrayBuffer();
    const sound = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(file);
    const channels = Array.from({ length: sound.numberOfChannels }, (_, number) => sound.getChannelData(number));
    let squares = 0;
    const highest = new Float32Array(BARS);
    for (const samples of channels) samples.forEach((value, place) => {
      const bar = Math.floor((place * BARS) / samples.length);
      squares += value * value;
      if (Math.abs(value) > highest[bar]) highest[bar] = Math.abs(value);
    });
    peaks = [...highest];
    draw();
    drawing.dataset.state = "drawn";
    return Math.sqrt(squares / (channels.length * sound.length));
  };
  const loudness = read().catch(() => {
    drawing.remove(); // it may play all the same
    return null;
  });
  return { drawing, loudness };
}
