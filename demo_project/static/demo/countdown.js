// Updates the countdown every second. Without this script, the text and the bar stay as the server sent them.
(() => {
  const text = document.getElementById("life");
  const bar = document.querySelector("progress[aria-labelledby=life]");
  const left = bar.value;
  const shown = text.querySelector("b");
  const two = (number) => String(number).padStart(2, "0");
  // Measured from when the page arrived, so that the clock of this computer does not matter.
  const arrived = performance.now();

  const tick = () => {
    const seconds = Math.ceil(left - (performance.now() - arrived) / 1000);
    bar.value = Math.max(0, seconds);
    if (seconds <= 0) {
      clearInterval(timer);
      text.textContent = text.dataset.over;
      document.getElementById("renewal")?.remove();
    } else if (seconds < 86400) {
      const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
      shown.textContent = hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
    }
  };
  const timer = setInterval(tick, 1000);
  tick();
})();
