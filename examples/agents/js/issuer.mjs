// The issuer: its root keys, and the exchange of an OAuth token for a capability (RFC 8693).

import { Failure, Refused } from './errors.mjs';
import { errorOf, post, send } from './wire.mjs';

const CAPABILITY = 'urn:taper:params:oauth:token-type:capability';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';

/** The issuer's metadata (RFC 8414), which must name this very issuer. */
export async function metadata(issuer) {
  const { origin, pathname } = new URL(issuer);
  const path = pathname.replace(/\/$/, '');
  const found = JSON.parse(await get(`${origin}/.well-known/oauth-authorization-server${path}`));
  if (found?.issuer !== issuer) throw new Failure(`${issuer} answers with the metadata of another issuer`);
  return found;
}

/** The issuer's root keys, the text of a JWK set, for `Roots`. */
export async function rootKeys(issuer) {
  return get(await endpointOf(issuer, 'jwks_uri'));
}

/**
 * A capability of `issuer`, bound to `key`, for what `scopes` (`server:tool`, `server:*`) or
 * `authorizationDetails` (RFC 9396, JSON) ask for.
 */
export async function exchange(issuer, clientId, subjectToken, key, { scopes = [], authorizationDetails }) {
  const form = new URLSearchParams({
    grant_type: TOKEN_EXCHANGE,
    client_id: clientId,
    subject_token: subjectToken,
    subject_token_type: ACCESS_TOKEN,
    requested_token_type: CAPABILITY,
  });
  if (scopes.length > 0) form.set('scope', scopes.join(' '));
  if (authorizationDetails !== undefined) form.set('authorization_details', authorizationDetails);
  const endpoint = await endpointOf(issuer, 'token_endpoint');
  const body = Buffer.from(form.toString());
  const answer = await post(endpoint, 'application/x-www-form-urlencoded', body, { key });
  if (answer.status !== 200) throw new Refused(answer.status, errorOf(answer));
  const given = JSON.parse(answer.body);
  const isCapability = given?.token_type === 'DPoP' && given.issued_token_type === CAPABILITY;
  if (!isCapability || typeof given.access_token !== 'string') {
    throw new Failure('the issuer gave something else than a capability');
  }
  return given.access_token;
}

/** An address out of the metadata, which is as safe to call as the issuer itself. */
async function endpointOf(issuer, name) {
  const url = (await metadata(issuer))[name];
  if (!URL.canParse(url) || new URL(url).protocol !== new URL(issuer).protocol) {
    throw new Failure(`the metadata of ${issuer} have no usable \`${name}\``);
  }
  return url;
}

async function get(url) {
  const answer = await send('GET', url, { accept: 'application/json' });
  if (answer.status !== 200) throw new Failure(`${url}: status ${answer.status}`);
  return answer.body;
}
