// Talks to the server: every request names this page and carries the token, if there is one.

const CLIENT = "arbiscale.client";
const TOKEN = "arbiscale.token";

/** Says that the server refused a request; the message is its sentence. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Returns the name of this page, which lasts as long as its tab. */
export function client() {
  let name = sessionStorage.getItem(CLIENT);
  if (!name) {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    name = Array.from(bytes, (one) => one.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem(CLIENT, name);
  }
  return name;
}

/** Keeps the token for as long as the tab is open. */
export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

/** Sends a request, and returns the response if the server accepts it. */
export async function send(path, options = {}) {
  const headers = { "X-Client": client(), ...options.headers };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer.");
  }
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new ApiError(response.status, said.detail ?? `The server answered with status ${response.status}.`);
  }
  return response;
}

/** Sends a request whose body, if given, and answer are JSON. */
export async function json(path, { body, ...options } = {}) {
  if (body !== undefined) {
    options = { method: "POST", ...options, body: JSON.stringify(body) };
    options.headers = { "Content-Type": "application/json" };
  }
  const response = await send(path, options);
  return response.status === 204 ? null : response.json();
}

/** Fetches a file. */
export async function blob(path, options) {
  return (await send(path, options)).blob();
}

/** Returns the path of a window of a view. */
export function windowPath(view, { height, width }, box, kind) {
  return `/api/views/${view}/window?size=${height}x${width}&box=${box.join(",")}&kind=${kind}`;
}

/** Keeps a connection open, so that the server knows when the page is closed; `tell` is told whether it stands. */
export async function stay(tell) {
  for (;;) {
    try {
      const reader = (await send("/api/presence")).body.getReader();
      tell(true);
      while (!(await reader.read()).done);
    } catch {
      // it is tried again below
    }
    tell(false);
    await new Promise((next) => setTimeout(next, 2000));
  }
}
