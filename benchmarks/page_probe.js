// Runs before a page's own scripts: records when words of an answer arrive and are shown, and how
// long the frames are. All times are of performance.now(), in milliseconds.

window.probe = { arrived: [], shown: [], lengths: [], frames: [] };

const read = ReadableStreamDefaultReader.prototype.read;
ReadableStreamDefaultReader.prototype.read = async function readAndRecord(...options) {
  const result = await read.apply(this, options);
  if (typeof result.value === "string" && result.value.includes("event: delta")) {
    window.probe.arrived.push(performance.now());
  }
  return result;
};

// A frame's callbacks run before it is painted, the next task after that.
const afterPaint = (action) => requestAnimationFrame(() => setTimeout(action));

document.addEventListener("DOMContentLoaded", () => {
  new MutationObserver((changes) => {
    const content = changes[0].target.parentElement?.closest(".message.assistant .content")
      ?? document.querySelector(".message.assistant:last-of-type .content");
    const length = content?.textContent.length ?? 0;
    if (!length || length === window.probe.lengths.at(-1)) return;
    window.probe.lengths.push(length);
    afterPaint(() => window.probe.shown.push(performance.now()));
  }).observe(document.querySelector("#thread") ?? document.body,
    { childList: true, subtree: true, characterData: true });
});

/** Scrolls the messages by `step` pixels a frame to their beginning, then waits for earlier ones;
    ends once the button for them is away. The times between frames are in `probe.frames`. */
window.scrollToBeginning = (step) => new Promise((resolve) => {
  const thread = document.querySelector("#thread");
  let last = performance.now();
  const frame = (now) => {
    window.probe.frames.push(now - last);
    last = now;
    thread.scrollTop -= step;
    const isDone = thread.scrollTop === 0 && !document.querySelector("#thread #earlier");
    if (isDone) resolve(window.probe.frames.slice(1));
    else requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
});

/** Scrolls back to the end in the same way. */
window.scrollToEnd = (step) => new Promise((resolve) => {
  const thread = document.querySelector("#thread");
  const frames = [];
  let last = performance.now();
  const frame = (now) => {
    frames.push(now - last);
    last = now;
    const before = thread.scrollTop;
    thread.scrollTop += step;
    if (thread.scrollTop === before) resolve(frames.slice(1));
    else requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
});
