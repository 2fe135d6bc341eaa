// Shows an agent's answer while it is being written. Without this script, the page loads again with the whole answer.
const form = document.getElementById("ask");
const stop = document.getElementById("stop");
const problem = document.getElementById("problem");

async function* eventsOf(response) {
  const stream = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { value, done } = await stream.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const [, name, data] = block.match(/^event: (.+)\ndata: (.+)$/) ?? [];
      if (name) yield { name, ...JSON.parse(data) };
    }
  }
}

function addMessage(kind, who, text) {
  const message = document.createElement("li");
  message.className = kind;
  const name = document.createElement("span");
  name.className = "demo-who";
  name.textContent = who;
  const body = document.createElement("div");
  body.className = "demo-text";
  body.textContent = text;
  message.append(name, body);
  document.getElementById("messages").append(message);
  message.scrollIntoView({ block: "nearest" });
  return body;
}

// The server's own rendering has the sources, the file and the buttons for feedback.
async function showStored() {
  const response = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const messages = page.getElementById("messages");
  if (messages) document.getElementById("messages").replaceWith(messages);
}

async function ask(leaving) {
  const question = new FormData(form);
  addMessage("user", form.dataset.you, question.get("text"));
  const answer = addMessage("ai waiting", form.dataset.airisk, form.dataset.waiting);
  const headers = { Accept: "text/event-stream" };
  const response = await fetch(form.action, { method: "POST", body: question, headers, signal: leaving.signal });
  if (!response.ok) {
    const { connect_url } = await response.json().catch(() => ({}));
    if (connect_url) return location.assign(connect_url);
    throw new Error(problem.dataset.failed);
  }
  for await (const event of eventsOf(response)) {
    if (event.name === "text") {
      if (answer.parentElement.classList.replace("waiting", "writing")) {
        form.elements.text.value = form.elements.file.value = answer.textContent = "";
      }
      answer.append(event.text);
      answer.scrollIntoView({ block: "nearest" });
    } else if (event.connect_url) {
      return location.assign(event.connect_url);
    } else if (event.name === "error") {
      throw new Error(event.detail);
    }
  }
  await showStored();
}

form.addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const leaving = new AbortController();
  const submit = form.querySelector("[type=submit]");
  stop.onclick = () => leaving.abort();
  [problem.textContent, submit.disabled, stop.hidden] = ["", true, false];
  try {
    await ask(leaving);
  } catch (error) {
    if (!leaving.signal.aborted) problem.textContent = error.message || problem.dataset.failed;
    document.querySelector("#messages .waiting")?.remove();
  } finally {
    [submit.disabled, stop.hidden] = [false, true];
  }
});

if ("send" in form.dataset) form.requestSubmit();
