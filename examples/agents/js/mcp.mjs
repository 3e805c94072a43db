// Calling a tool of an MCP server behind the proxy: Streamable HTTP, revision 2026-07-28, which is
// stateless.

import { Failure, Refused } from './errors.mjs';
import { errorOf, post } from './wire.mjs';

const VERSION = '2026-07-28';
const ID = 1;

/**
 * Calls one tool; the result as the server gave it (`content`, `isError`, ...).
 *
 * What is there of `content` is a list of objects, each `text` in them a string, `isError` a boolean.
 */
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
  const reply = messages(answer).find((each) => each?.id === ID && (each.result !== undefined || each.error !== undefined));
  if (reply === undefined) throw new Failure('the server did not answer the request');
  if (reply.error !== undefined) throw new Refused(answer.status, JSON.stringify(reply.error));
  return checked(reply.result);
}

function checked(result) {
  if (!isObject(result)) throw new Failure('the result is no object');
  const { content = [], isError = false } = result;
  if (!Array.isArray(content) || !content.every(isObject)) {
    throw new Failure('the content of the result is no list of objects');
  }
  if (!content.every(({ text = '' }) => typeof text === 'string')) {
    throw new Failure('a text in the result is no string');
  }
  if (typeof isError !== 'boolean') throw new Failure('`isError` of the result is no boolean');
  return result;
}

function isObject(given) {
  return given !== null && typeof given === 'object' && !Array.isArray(given);
}

/** The JSON-RPC messages of an answer, which is one of them or a stream of events. */
function messages({ headers, body }) {
  const type = headers.get('content-type')?.split(';')[0].trim().toLowerCase();
  if (type === 'application/json') return [message(body)];
  if (type !== 'text/event-stream') throw new Failure(`an answer of type ${type}`);
  const events = body.replaceAll('\r\n', '\n').replaceAll('\r', '\n').split('\n\n');
  return events.flatMap((event) => {
    const data = event.split('\n').filter((line) => line.startsWith('data:'));
    if (data.length === 0) return [];
    return [message(data.map((line) => line.slice(5).replace(/^ /, '')).join('\n'))];
  });
}

function message(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Failure(`the answer is no JSON: ${error.message}`);
  }
}
