// DPoP proofs (RFC 9449), with `content_digest` over the body (spec/presentation.md).

import { b64url } from './keys.mjs';

/**
 * The value of a `DPoP` header, for one request only. `token` is the exact text that is presented,
 * `body` the exact bytes that are sent, `nonce` the one that the server gave.
 */
export async function prove(key, method, url, { token, body, nonce } = {}) {
  const header = { typ: 'dpop+jwt', alg: 'EdDSA', jwk: key.publicJwk() };
  const claims = {
    jti: b64url(crypto.getRandomValues(new Uint8Array(16))),
    htm: method,
    htu: url.split(/[?#]/)[0],
    iat: Math.floor(Date.now() / 1000),
  };
  if (token !== undefined) claims.ath = b64url(await sha256(Buffer.from(token)));
  if (body !== undefined) {
    claims.content_digest = `sha-256=:${Buffer.from(await sha256(body)).toString('base64')}:`;
  }
  if (nonce !== undefined) claims.nonce = nonce;
  const parts = [header, claims].map((part) => b64url(JSON.stringify(part)));
  const signingInput = parts.join('.');
  return `${signingInput}.${b64url(await key.sign(Buffer.from(signingInput)))}`;
}

function sha256(bytes) {
  return crypto.subtle.digest('SHA-256', bytes);
}
