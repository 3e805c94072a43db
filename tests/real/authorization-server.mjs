// A real authorization server (node oidc-provider) on loopback, as an operator runs one for the servers behind
// the proxy: clients of every kind of authentication, tokens that are introspected, and RFC 8693.
//
//   node authorization-server.mjs --dir DIR [--port 0]
//
// DIR holds
//   clients.json       [{ "client_id", "token_endpoint_auth_method", … }], metadata of RFC 7591; with
//                      "certificate": FILE the client is known by that certificate (RFC 8705 §2.2)
//   subjects.json      { "issuer", "jwks_uri", "subject_issuer", "subjects": [NAME] }: whose word on whom
//                      is taken for an exchange
//   tls.pem, tls-key.pem, ca.pem   for the second listener, which asks for certificates
//   asked.log          is written: one line of JSON for each answer of the token endpoint
//
// When it is ready it prints one line of JSON: {"issuer", "introspection_endpoint", "mtls_token_endpoint"}.
// The issuer is plain HTTP. Its metadata names the second listener's token endpoint among
// `mtls_endpoint_aliases` (RFC 8705 §5), where alone a certificate can be seen.
//
// A token is opaque and for one resource, the `resource` that was asked for (RFC 8707). It lives for 600 s, or
// for the `lifetime` in the query of its resource.

import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import { Provider, errors } from 'oidc-provider';

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const TYPE = 'urn:ietf:params:oauth:token-type:';

const { values: options } = parseArgs({
  options: { dir: { type: 'string' }, port: { type: 'string', default: '0' } },
});
const read = (name) => fs.readFileSync(path.join(options.dir, name), 'utf8');
const json = (name) => JSON.parse(read(name));

const trusted = json('subjects.json');
const keys = createRemoteJWKSet(new URL(trusted.jwks_uri));
const used = new Set();

function resourceServer(resource) {
  const lifetime = new URL(resource).searchParams.get('lifetime');
  return {
    scope: 'mcp:call',
    audience: resource,
    accessTokenTTL: Number(lifetime ?? 600),
    accessTokenFormat: 'opaque',
  };
}

// A client that is known by its certificate has its key among its own, with the certificate.
function known({ certificate, ...client }) {
  if (!certificate) return client;
  const own = new crypto.X509Certificate(read(certificate));
  const jwk = own.publicKey.export({ format: 'jwk' });
  return { ...client, jwks: { keys: [{ ...jwk, use: 'sig', x5c: [own.raw.toString('base64')] }] } };
}

// The exchange of RFC 8693: whose word is taken says on whose behalf the client asks.
async function exchange(ctx) {
  const { client, params, provider } = ctx.oidc;
  if (params.subject_token_type !== `${TYPE}jwt`) throw new errors.InvalidRequest('subject_token_type');
  if (params.requested_token_type !== `${TYPE}access_token`) throw new errors.InvalidRequest('requested_token_type');
  if (!params.resource) throw new errors.InvalidTarget();
  let claims;
  try {
    ({ payload: claims } = await jwtVerify(params.subject_token, keys, {
      issuer: trusted.issuer,
      audience: provider.issuer,
      typ: 'JWT',
      algorithms: ['ES256', 'EdDSA'],
      requiredClaims: ['sub', 'sub_id', 'act', 'iat', 'exp', 'jti', 'grant_id'],
      maxTokenAge: 60,
    }));
  } catch (cause) {
    throw new errors.InvalidRequest('subject_token', undefined, { cause });
  }
  if (used.has(claims.jti)) throw new errors.InvalidRequest('subject_token was used before');
  used.add(claims.jti);
  const { format, iss, sub } = claims.sub_id;
  if (format !== 'iss_sub' || iss !== trusted.subject_issuer || sub !== claims.sub) {
    throw new errors.InvalidRequest('sub_id');
  }
  if (!trusted.subjects.includes(sub)) throw new errors.InvalidGrant('nobody knows this subject');
  const token = new provider.AccessToken({ client, accountId: sub, gty: 'exchange', scope: 'mcp:call' });
  token.resourceServer = new provider.ResourceServer(params.resource, resourceServer(params.resource));
  ctx.oidc.entity('AccessToken', token);
  ctx.body = {
    access_token: await token.save(),
    issued_token_type: `${TYPE}access_token`,
    expires_in: token.expiration,
    token_type: token.tokenType,
  };
}

function newProvider(issuer, mtls) {
  const { privateKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const provider = new Provider(issuer, {
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig' }] },
    clients: json('clients.json').map((client) => ({
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
      id_token_signed_response_alg: 'ES256',
      ...known(client),
    })),
    clientAuthMethods: [
      'client_secret_basic',
      'client_secret_post',
      'private_key_jwt',
      'tls_client_auth',
      'self_signed_tls_client_auth',
    ],
    scopes: ['mcp:call'],
    // The keys of a client are on loopback, where the usual dispatcher does not go.
    fetch: (url, { dispatcher: _, ...usual }) => fetch(url, usual),
    discovery: { mtls_endpoint_aliases: { token_endpoint: mtls } },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true, allowedPolicy: (_ctx, client) => client.clientId === 'upstream' },
      mTLS: {
        enabled: true,
        tlsClientAuth: true,
        selfSignedTlsClientAuth: true,
        getCertificate: (ctx) => {
          const raw = ctx.socket.getPeerCertificate?.().raw;
          return raw && new crypto.X509Certificate(raw);
        },
        certificateAuthorized: (ctx) => ctx.socket.authorized,
        certificateSubjectMatches: (ctx, property, expected) =>
          property === 'tls_client_auth_san_dns' &&
          ctx.socket.getPeerCertificate().subjectaltname === `DNS:${expected}`,
      },
      resourceIndicators: {
        enabled: true,
        // A token without a resource is for nobody.
        defaultResource: async () => undefined,
        getResourceServerInfo: async (_ctx, resource) => resourceServer(resource),
      },
    },
    findAccount: async (_ctx, sub) => ({ accountId: sub, claims: async () => ({ sub }) }),
  });
  provider.registerGrantType(EXCHANGE, exchange, [
    'subject_token',
    'subject_token_type',
    'requested_token_type',
    'resource',
    'scope',
    'audience',
  ]);
  provider.on('server_error', (_ctx, error) => console.error(error));
  // What the client is not told.
  provider.on('grant.error', (ctx, error) => {
    const causes = [];
    for (let cause = error; cause; cause = cause.cause) {
      causes.push(cause.error_detail ?? cause.error_description ?? cause.message);
    }
    ctx.state.detail = causes.join(': ');
  });
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.oidc?.route !== 'token') return;
    const { grant_type: grant, subject_token: subject, resource, client_id: client } = ctx.oidc.body ?? {};
    const line = {
      client: ctx.oidc.client?.clientId ?? client,
      certified: Boolean(ctx.socket.encrypted),
      grant,
      resource,
      subject: subject && JSON.parse(Buffer.from(subject.split('.')[1], 'base64url')).sub,
      status: ctx.status,
      error: ctx.body?.error,
      detail: ctx.state.detail,
      // Everything that came, to be searched.
      authorization: ctx.get('authorization'),
      body: ctx.oidc.body,
    };
    fs.appendFileSync(path.join(options.dir, 'asked.log'), `${JSON.stringify(line)}\n`);
  });
  return provider;
}

let answer;
const plain = http.createServer((request, response) => answer(request, response));
const certified = https.createServer(
  {
    cert: read('tls.pem'),
    key: read('tls-key.pem'),
    ca: read('ca.pem'),
    requestCert: true,
    // A certificate that signs itself is looked at by who knows it.
    rejectUnauthorized: false,
  },
  (request, response) => answer(request, response),
);
certified.listen(0, '127.0.0.1', () => {
  plain.listen(Number(options.port), '127.0.0.1', () => {
    const issuer = `http://127.0.0.1:${plain.address().port}`;
    const mtls = `https://127.0.0.1:${certified.address().port}/token`;
    answer = newProvider(issuer, mtls).callback();
    console.log(
      JSON.stringify({
        issuer,
        introspection_endpoint: `${issuer}/token/introspection`,
        mtls_token_endpoint: mtls,
      }),
    );
  });
});
