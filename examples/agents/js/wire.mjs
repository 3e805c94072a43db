// HTTP with proofs: a request is signed, sent, and sent once more when the server asks for a nonce.

import { Failure } from './errors.mjs';
import { prove } from './proof.mjs';

const MAX_ANSWER = 16 * 1024 * 1024; // bytes
const TIMEOUT = 60_000; // milliseconds

/**
 * One request, and its answer as `{ status, headers, body }` with the body as text. No redirect is
 * followed, and plain HTTP is for this machine only.
 */
export async function send(method, url, headers, body) {
  const { protocol, hostname, host } = new URL(url);
  const local = ['127.0.0.1', '[::1]', 'localhost'].includes(hostname);
  if (protocol !== 'https:' && !(protocol === 'http:' && local)) {
    throw new Failure(`${url} is neither https nor on this machine`);
  }
  const signal = AbortSignal.timeout(TIMEOUT);
  try {
    const response = await fetch(url, { method, headers, body, signal, redirect: 'error' });
    return { status: response.status, headers: response.headers, body: await text(response) };
  } catch (error) {
    throw new Failure(`no answer from ${host}: ${error.cause?.message ?? error.message}`);
  }
}

/** A POST with a proof by `key`, and with the capability `token` if there is one. */
export async function post(url, contentType, body, { key, token, headers = {} }) {
  const all = { 'content-type': contentType, ...headers };
  if (token !== undefined) all.authorization = `DPoP ${token}`;
  const first = { ...all, dpop: await prove(key, 'POST', url, { token, body }) };
  const answer = await send('POST', url, first, body);
  const nonce = answer.headers.get('dpop-nonce');
  if (nonce === null || !asksForNonce(answer)) return answer;
  const second = { ...all, dpop: await prove(key, 'POST', url, { token, body, nonce }) };
  return send('POST', url, second, body);
}

/** What a refusal says: its JSON body's `error`, else its challenge. */
export function errorOf(answer) {
  try {
    const { error } = JSON.parse(answer.body);
    if (error !== undefined) return typeof error === 'string' ? error : JSON.stringify(error);
  } catch {
    // There is no such body.
  }
  return answer.headers.get('www-authenticate') ?? 'without a reason';
}

function asksForNonce(answer) {
  // The issuer says so in its body, the proxy in its challenge (RFC 9449 sections 8 and 9).
  if (answer.status === 400) return errorOf(answer) === 'use_dpop_nonce';
  const challenge = answer.headers.get('www-authenticate') ?? '';
  return answer.status === 401 && /\berror="use_dpop_nonce"/.test(challenge);
}

async function text(response) {
  const parts = [];
  let size = 0;
  for await (const part of response.body ?? []) {
    size += part.length;
    if (size > MAX_ANSWER) throw new Failure('the answer is too large');
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}
