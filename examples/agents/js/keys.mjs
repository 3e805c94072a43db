// Keys as JWKs (RFC 7517, RFC 8037): the agent's own, which is Ed25519, and those of other holders,
// which may be P-256 too.

import { open, writeFile } from 'node:fs/promises';
import { Failure } from './errors.mjs';

const { subtle } = globalThis.crypto;

/** Base64url without padding, as tokens, proofs and JWKs have it. */
export function b64url(bytes) {
  return Buffer.from(bytes).toString('base64url');
}

/** The bytes of base64url without padding; any other spelling is refused. */
export function b64urlDecode(text) {
  const bytes = Buffer.from(text, 'base64url');
  if (bytes.toString('base64url') !== text) throw new Failure('it is not base64url without padding');
  return new Uint8Array(bytes);
}

/** An agent's private key. */
export class Key {
  #jwk;
  #private;

  constructor(jwk, privateKey) {
    this.#jwk = jwk;
    this.#private = privateKey;
  }

  /** A new key. */
  static async generate() {
    const { privateKey } = await subtle.generateKey('Ed25519', true, ['sign', 'verify']);
    const { kty, crv, x, d } = await subtle.exportKey('jwk', privateKey);
    return new Key({ kty, crv, x, d }, privateKey);
  }

  /** Reads a private JWK from a file that only its owner may read. */
  static async load(path) {
    const file = await open(path);
    try {
      const { mode } = await file.stat();
      if (mode & 0o077) throw new Failure(`${path} may be read by others: chmod 600 ${path}`);
      const { kty, crv, x, d } = parseJwk(await file.readFile('utf8'));
      if (crv !== 'Ed25519' || d === undefined) throw new Failure(`${path} holds no private Ed25519 JWK`);
      const jwk = { kty, crv, x, d };
      return new Key(jwk, await subtle.importKey('jwk', jwk, 'Ed25519', false, ['sign']));
    } catch (error) {
      if (error instanceof DOMException) throw new Failure(`the key in ${path} is broken`);
      throw error;
    } finally {
      await file.close();
    }
  }

  /** Writes the private JWK to a new file, mode 0600. An existing file is never overwritten. */
  async save(path) {
    await writeFile(path, `${JSON.stringify(this.#jwk)}\n`, { flag: 'wx', mode: 0o600 });
  }

  /** The public half, to be given to whoever delegates to this agent. */
  publicJwk() {
    const { kty, crv, x } = this.#jwk;
    return { kty, crv, x };
  }

  /** The 32 secret bytes, which the Biscuit library wants. */
  seed() {
    return b64urlDecode(this.#jwk.d);
  }

  /** An Ed25519 signature, 64 bytes. */
  async sign(bytes) {
    return new Uint8Array(await subtle.sign('Ed25519', this.#private, bytes));
  }
}

/** A public key as the fact `holder(alg, key)` names it (P-12), from a public JWK. */
export async function holderOf(jwk) {
  if (jwk.d !== undefined) {
    throw new Failure('this is a private key: whoever delegates needs the public one only');
  }
  const { kty, crv, x, y } = jwk;
  try {
    if (kty === 'OKP' && crv === 'Ed25519') {
      const key = await subtle.importKey('jwk', { kty, crv, x }, 'Ed25519', true, ['verify']);
      return { alg: 'ed25519', key: new Uint8Array(await subtle.exportKey('raw', key)) };
    }
    if (kty === 'EC' && crv === 'P-256') {
      const algorithm = { name: 'ECDSA', namedCurve: crv };
      const key = await subtle.importKey('jwk', { kty, crv, x, y }, algorithm, true, ['verify']);
      const point = new Uint8Array(await subtle.exportKey('raw', key)); // 4, x, y
      return { alg: 'secp256r1', key: new Uint8Array([2 + (point[64] & 1), ...point.slice(1, 33)]) };
    }
  } catch (error) {
    throw new Failure(`the JWK is no public key: ${error.message}`);
  }
  throw new Failure("a holder's key is an Ed25519 or P-256 JWK");
}

/** The members of one JWK. */
export function parseJwk(text) {
  try {
    const jwk = JSON.parse(text);
    if (jwk !== null && typeof jwk === 'object' && !Array.isArray(jwk)) return jwk;
  } catch {
    // The answer is the same.
  }
  throw new Failure('it is not a JWK');
}
