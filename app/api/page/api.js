// Every call the page makes to the service. A failure is always an ApiError with one
// line for the reader, except an abort by the page itself, which stays an AbortError.

const TIMEOUT_MS = 15_000;
const KEY = "marquee-key"; // where keys are on; gone with the tab

/** The key that every call shows; an empty one forgets it. */
export function useKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

function headers(body) {
  const key = sessionStorage.getItem(KEY);
  return {
    ...(body ? { "content-type": "application/json" } : {}),
    ...(key ? { authorization: `Bearer ${key}` } : {}),
  };
}

export class ApiError extends Error {
  constructor(message, { status = 0, field = null } = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status; // 0: no answer at all
    this.field = field;
  }

  /** Whether another key is what it takes. */
  get wantsKey() {
    return this.status === 401 || this.status === 403;
  }

  /** Whether the same request may well succeed later. */
  get retryable() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

function unreachable() {
  const why = navigator.onLine ? "Marquee does not answer." : "You are offline.";
  return new ApiError(why);
}

function refusal(status, body) {
  const { message, field } = body?.error ?? {};
  if (!message) {
    const line = status >= 500 ? "Marquee is not available right now." : "Marquee refused the request.";
    return new ApiError(`${line} (HTTP ${status})`, { status });
  }
  const line = field && !message.includes(field) ? `${field}: ${message}` : message;
  return new ApiError(line, { status, field });
}

async function request(path, { query = {}, body = null, signal = null } = {}) {
  const url = Object.keys(query).length ? `${path}?${new URLSearchParams(query)}` : path;
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let response;
  let answer;
  try {
    response = await fetch(url, {
      method: body ? "POST" : "GET",
      headers: headers(body),
      body: body && JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    // A proxy in front answers in HTML or not at all: that is no answer of the service.
    const text = await response.text();
    answer = response.headers.get("content-type")?.includes("json") ? JSON.parse(text) : null;
  } catch (cause) {
    throw signal?.aborted ? cause : unreachable();
  }
  if (!response.ok || answer === null) throw refusal(response.status, answer);
  return answer;
}

const segment = encodeURIComponent;

export const info = () => request("/info");
export const users = (limit) => request("/users", { query: { limit } });
export const popular = (limit, signal) => request("/popular", { query: { limit }, signal });
export const search = (q, limit, signal) => request("/items", { query: { q, limit }, signal });
export const similar = (itemId, limit, signal) =>
  request(`/similar/${segment(itemId)}`, { query: { limit }, signal });
export const userHistory = (userId, limit, signal) =>
  request(`/users/${segment(userId)}/history`, { query: { limit }, signal });
export const recommend = (body, signal) => request("/recommend", { body, signal });
export const feedback = (userId, itemId, eventType) =>
  request("/feedback", { body: { user_id: userId, item_id: itemId, event_type: eventType } });
