// Calling a tool of an MCP server behind the proxy: Streamable HTTP, revision 2026-07-28, which is
// stateless.

import { Failure, Refused } from './errors.mjs';
import { errorOf, post } from './wire.mjs';

const VERSION = '2026-07-28';
const ID = 1;

/** Calls one tool; the result as the server gave it (`content`, `isError`, ...). */
export async function callTool(url, token, key, tool, args) {
  const message = {
    jsonrpc: '2.0',
    id: ID,
    method: 'tools/call',
    params: {
      name: tool,
      arguments: args,
      _meta: {
        'io.modelcontextprotocol/protocolVersion': VERSION,
        'io.modelcontextprotocol/clientInfo': { name: 'taper-agent-js', version: '1' },
        'io.modelcontextprotocol/clientCapabilities': {},
      },
    },
  };
  // These say what the body says; the proxy compares.
  const headers = {
    accept: 'application/json, text/event-stream',
    'mcp-protocol-version': VERSION,
    'mcp-method': 'tools/call',
    'mcp-name': tool,
  };
  // The proof covers these very bytes.
  const body = Buffer.from(JSON.stringify(message));
  const answer = await post(url, 'application/json', body, { key, token, headers });
  if (answer.status !== 200) throw new Refused(answer.status, errorOf(answer));
  const reply = messages(answer).find((each) => each?.id === ID && (each.result ?? each.error));
  if (reply === undefined) throw new Failure('the server did not answer the request');
  if (reply.error !== undefined) throw new Refused(answer.status, JSON.stringify(reply.error));
  return reply.result;
}

/** The JSON-RPC messages of an answer, which is one of them or a stream of events. */
function messages({ headers, body }) {
  const type = headers.get('content-type')?.split(';')[0].trim().toLowerCase();
  if (type === 'application/json') return [JSON.parse(body)];
  if (type !== 'text/event-stream') throw new Failure(`an answer of type ${type}`);
  const events = body.replaceAll('\r\n', '\n').replaceAll('\r', '\n').split('\n\n');
  return events.flatMap((event) => {
    const data = event.split('\n').filter((line) => line.startsWith('data:'));
    if (data.length === 0) return [];
    return [JSON.parse(data.map((line) => line.slice(5).replace(/^ /, '')).join('\n'))];
  });
}
