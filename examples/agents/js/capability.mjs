// Narrowing and delegating: one more block, signed by the current holder (spec/delegation.md).
//
// No network is needed, but the Biscuit library parses a token only if it verifies under the issuer's
// root key. So the root keys are kept beside the capability (`Roots`).
//
// The library does not know whose turn it is: a block that is signed by any other key than the current
// holder's makes a valid Biscuit. The proxy refuses it (D-02).

import {
  Biscuit,
  BlockBuilder,
  KeyPair,
  PrivateKey,
  PublicKey,
  SignatureAlgorithm,
  check,
  fact,
  reason,
} from './biscuit.mjs';
import { Failure } from './errors.mjs';
import { b64url, b64urlDecode, holderOf } from './keys.mjs';

const MAX_TOKEN = 12_288; // P-01

/** The root keys of one issuer, as its `jwks.json` lists them: `kid` is the root key id. */
export class Roots {
  #keys = new Map();

  constructor(jwks) {
    try {
      for (const { kty, crv, kid, x } of JSON.parse(jwks).keys) {
        if (kty === 'OKP' && crv === 'Ed25519') this.#keys.set(kid, b64urlDecode(x));
      }
    } catch (error) {
      throw new Failure(`these are not the root keys of an issuer: ${reason(error)}`);
    }
  }

  /** The token, when all its Biscuit signatures verify under one of these keys. */
  parse(token) {
    if (token.length < 1 || token.length > MAX_TOKEN) {
      throw new Failure(`a capability has 1 to ${MAX_TOKEN} bytes`);
    }
    const bytes = b64urlDecode(token);
    const [anyKey] = this.#keys.values();
    if (anyKey === undefined) throw new Failure('the issuer has no root key');
    let unknown;
    // The library takes each key that it is given out of our hands, and crashes when it is given none.
    const provider = (id) => {
      const key = this.#keys.get(String(id));
      if (key === undefined) unknown = `the issuer has no root key ${id}`;
      return PublicKey.fromBytes(key ?? anyKey, SignatureAlgorithm.Ed25519);
    };
    try {
      const biscuit = Biscuit.fromBytesWithProvider(bytes, provider);
      if (unknown === undefined) return biscuit;
    } catch (error) {
      unknown ??= `it is no capability of this issuer: ${reason(error)}`;
    }
    throw new Failure(unknown);
  }
}

/**
 * Restricts the holder's own capability: the same key holds what comes back.
 *
 * `terms` is what the next block says, and it can only take away: `until`, a `Date` (later than its
 * parent is no error: the earliest end of the chain holds); `caveats`, all of which have to pass;
 * `note`, a word to whoever reads the chain; `maxDepth`, hand-overs counted from the issuer.
 */
export async function narrow(roots, token, key, terms) {
  return append(roots, token, key, await holderOf(key.publicJwk()), terms);
}

/** Hands on to the holder of the public JWK `to`: only that key can use what comes back. */
export async function delegate(roots, token, key, to, terms) {
  const holder = await holderOf(to);
  if (to.x === key.publicJwk().x && to.y === undefined) {
    throw new Failure('the holder cannot hand on to itself: narrow instead');
  }
  return append(roots, token, key, holder, terms);
}

/** A copy that cannot be extended: what is presented. The one that can stays with its holder. */
export function sealed(roots, token) {
  return b64url(roots.parse(token).sealToken().toBytes());
}

function append(roots, token, key, holder, { until, caveats = [], note, maxDepth }) {
  const block = new BlockBuilder();
  block.addFact(fact('holder({alg}, {key})', holder));
  // Each block ends once, and in this shape only (P-10).
  block.addCheck(check('check if time($t), $t < {until}', { until }));
  for (const caveat of caveats) block.addCheck(caveat);
  if (note !== undefined) {
    if (Buffer.byteLength(note) > 1024) throw new Failure('a note has at most 1,024 bytes');
    block.addFact(fact('note({note})', { note }));
  }
  if (maxDepth !== undefined) {
    if (!(maxDepth >= 0 && maxDepth < 2 ** 32)) throw new Failure('a depth is 0 to 2^32 - 1');
    block.addFact(fact('max_depth({maxDepth})', { maxDepth }));
  }

  const parent = roots.parse(token);
  const signer = PrivateKey.fromBytes(key.seed(), SignatureAlgorithm.Ed25519);
  const signed = parent.getThirdPartyRequest().createBlock(signer, block);
  const child = parent.appendThirdPartyBlock(KeyPair.fromPrivateKey(signer).getPublicKey(), signed);
  // `toBase64` pads, and the profile has one spelling: without.
  return b64url(child.toBytes());
}
