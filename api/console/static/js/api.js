/** The service's HTTP surface. A refusal is an ApiError that says all that the answer said. */
import { boot } from "./boot.js";

/** A refusal, or no answer at all (status 0). */
export class ApiError extends Error {
  constructor(status, body, path) {
    super(body.error || `the service answered ${status} without a reason`);
    this.name = "ApiError";
    this.status = status;
    this.path = path;
    /** @type {string|undefined} */ this.code = body.code;
    /** @type {{field: string, existing: any, incoming: any}[]|undefined} */ this.drift = body.drift;
    /** @type {{instancePath: string, message: string}[]|undefined} */ this.details = body.details;
    /** @type {string|undefined} */ this.runStatus = body.status;
  }

  /** What kind of refusal this is, in words. */
  get kind() {
    return { 0: "No answer", 400: "Malformed", 401: "Not signed in", 403: "Not allowed", 404: "Not there", 409: "Conflict", 410: "Switched off" }[this.status] ?? "Unexpected";
  }
}

/** The full address of a path of the service. */
export const url = (path) => boot.base + path;

async function ask(method, path, { body, signal } = {}) {
  let response;
  try {
    response = await fetch(url(path), {
      method,
      signal,
      headers: body === undefined ? { accept: "application/json" } : { accept: "application/json", "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { error: "the service did not answer; it may be restarting" }, path);
  }
  const text = await response.text();
  let value;
  try {
    value = text ? JSON.parse(text) : null;
  } catch {
    throw new ApiError(response.status, { error: `the answer of ${path} is not JSON` }, path);
  }
  if (!response.ok) throw new ApiError(response.status, value ?? {}, path);
  return { value, status: response.status, cursor: response.headers.get("x-cursor") };
}

export const api = {
  /** The JSON at this path. Raises ApiError. */
  get: async (path, options) => (await ask("GET", path, options)).value,
  /** The same with where the next page begins: {value, cursor}; cursor is null on the last one. */
  page: (path, options) => ask("GET", path, options),
  /** The answer to this body, as JSON. Raises ApiError. */
  post: async (path, body, options) => (await ask("POST", path, { ...options, body: body ?? {} })).value,
  /** The same with the status: {value, status}; 201 and 200 tell a fresh run from a replay. */
  posted: (path, body, options) => ask("POST", path, { ...options, body: body ?? {} }),
  /** Text as it is, for previews. Raises ApiError. */
  text: async (path, options) => {
    const response = await fetch(url(path), options).catch(() => null);
    if (!response) throw new ApiError(0, { error: "the service did not answer" }, path);
    if (!response.ok) throw new ApiError(response.status, await response.json().catch(() => ({})), path);
    return { text: await response.text(), type: response.headers.get("content-type") ?? "" };
  },
  url,
};

/** A path with its parts encoded: path`/api/runs/${wid}/gates/${key}`. */
export const path = (parts, ...values) => parts.reduce((all, part, i) => all + encodeURIComponent(values[i - 1]) + part);
