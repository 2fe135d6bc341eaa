// Lets the countdown tick. Without this script, the text and the bar are as the server wrote them.
(() => {
  const text = document.getElementById("life");
  const bar = document.querySelector("progress[aria-labelledby=life]");
  const left = bar.value;
  const shown = text.querySelector("b");
  const two = (number) => String(number).padStart(2, "0");
  // Measured from the page's arrival, so that the clock of this computer does not matter.
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
