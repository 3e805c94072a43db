// A real OpenID provider (node oidc-provider) on loopback, for the whole-program tests.
//
//   node idp.mjs [--port 0] [--audience URL] [--log FILE]
//
// When it is ready it prints one line of JSON:
//   {"issuer", "jwks_uri", "token_endpoint", "client_id", "client_secret", "subject_grant", "kid"}
//
// Access tokens are JWTs of RFC 9068 (`at+jwt`, ES256). Their `aud` is the `resource` that was
// asked for (RFC 8707), or --audience; they carry the claim `groups`, ["eng"] unless told otherwise.
// The client authenticates with client_secret_basic. Two grants:
//   grant_type=client_credentials     `sub` is the client
//   grant_type=<subject_grant>        `sub` is the parameter `subject`, `groups` its words: stands
//                                     for a person who logged in, without a browser
// --log: one line "METHOD /path" for every request, so that a test can see what was fetched.
// SIGHUP: new signing keys from now on (the old ones are gone); prints {"rotated": kid}.

import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import { parseArgs } from 'node:util';
import { Provider, errors } from 'oidc-provider';

const SUBJECT_GRANT = 'urn:example:params:oauth:grant-type:subject';
const LIFETIME = 300; // seconds

const { values: options } = parseArgs({
  options: {
    port: { type: 'string', default: '0' },
    audience: { type: 'string', default: 'https://issuer.example' },
    log: { type: 'string' },
  },
});

const client = { client_id: 'agent', client_secret: crypto.randomBytes(32).toString('base64url') };

function signingKeys() {
  const key = (alg, type, generate) => {
    const { privateKey } = crypto.generateKeyPairSync(type, generate);
    const kid = crypto.randomBytes(8).toString('hex');
    return { ...privateKey.export({ format: 'jwk' }), kid, alg, use: 'sig' };
  };
  return [
    key('ES256', 'ec', { namedCurve: 'P-256' }),
    key('RS256', 'rsa', { modulusLength: 2048 }),
    key('EdDSA', 'ed25519', {}),
  ];
}

// Every resource is a resource server with JWT access tokens.
const resourceServer = (resource) => ({
  scope: '',
  audience: resource,
  accessTokenTTL: LIFETIME,
  accessTokenFormat: 'jwt',
  jwt: { sign: { alg: 'ES256' } },
});

// Answers like the client credentials grant, but for the subject that is named.
async function subjectGrant(ctx) {
  const { client: by, params, provider } = ctx.oidc;
  if (!params.subject) throw new errors.InvalidRequest('subject is missing');
  const resource = params.resource ?? options.audience;
  const token = new provider.AccessToken({ client: by, accountId: params.subject, gty: 'subject' });
  token.resourceServer = new provider.ResourceServer(resource, resourceServer(resource));
  ctx.oidc.entity('AccessToken', token);
  ctx.body = {
    access_token: await token.save(),
    expires_in: token.expiration,
    token_type: token.tokenType,
  };
}

function newProvider(issuer, keys) {
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: [
      {
        ...client,
        grant_types: ['client_credentials', SUBJECT_GRANT],
        redirect_uris: [],
        response_types: [],
        token_endpoint_auth_method: 'client_secret_basic',
      },
    ],
    extraTokenClaims: async (ctx) => ({
      groups: (ctx.oidc.params?.groups ?? 'eng').split(' ').filter(Boolean),
    }),
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: async () => options.audience,
        getResourceServerInfo: async (_ctx, resource) => resourceServer(resource),
      },
    },
    ttl: { AccessToken: LIFETIME, ClientCredentials: LIFETIME },
    findAccount: async (_ctx, sub) => ({ accountId: sub, claims: async () => ({ sub }) }),
  });
  provider.on('server_error', (_ctx, error) => console.error(error));
  provider.registerGrantType(SUBJECT_GRANT, subjectGrant, ['subject', 'groups', 'resource']);
  return provider;
}

let answer;
const server = http.createServer((request, response) => {
  if (options.log) {
    const { pathname } = new URL(request.url, 'http://127.0.0.1');
    fs.appendFileSync(options.log, `${request.method} ${pathname}\n`);
  }
  answer(request, response);
});

server.listen(Number(options.port), '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const useNewKeys = () => {
    const keys = signingKeys();
    answer = newProvider(issuer, keys).callback();
    return keys[0].kid;
  };
  const kid = useNewKeys();
  process.on('SIGHUP', () => console.log(JSON.stringify({ rotated: useNewKeys() })));
  console.log(
    JSON.stringify({
      issuer,
      jwks_uri: `${issuer}/jwks`,
      token_endpoint: `${issuer}/token`,
      ...client,
      subject_grant: SUBJECT_GRANT,
      kid,
    }),
  );
});
