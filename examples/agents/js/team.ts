// A team of agents: an orchestrator that obtains one capability and hands three sub-agents three
// different slices of it. They work in parallel, and none can do another's work.
//
// `../README.md` says how to run it. It reads `TAPER_ISSUER`, `TAPER_URL`, `TAPER_SUBJECT_TOKEN_FILE`
// and, if it is not `dev`, `TAPER_CLIENT_ID`.

import { readFile } from 'node:fs/promises';
import { Roots, delegate, sealed } from './capability.mjs';
import * as caveats from './caveats.mjs';
import { Failure, Refused } from './errors.mjs';
import { exchange, rootKeys } from './issuer.mjs';
import { Key } from './keys.mjs';
import { callTool } from './mcp.mjs';
import { printable } from './text.mjs';

/** What a sub-agent is there for: one tool, one repository, some minutes. */
interface Work {
  agent: string;
  tool: 'git_log' | 'git_show';
  repository: string;
  minutes: number;
}

const team: Work[] = [
  { agent: 'historian', tool: 'git_log', repository: 'acme/web', minutes: 10 },
  { agent: 'reviewer', tool: 'git_show', repository: 'acme/web', minutes: 5 },
  { agent: 'auditor', tool: 'git_log', repository: 'acme/payroll', minutes: 2 },
];

function argumentsOf({ tool, repository }: Work): Record<string, unknown> {
  const more = tool === 'git_show' ? { revision: 'HEAD' } : { max_count: 1 };
  return { repo_path: repository, ...more };
}

/** A sub-agent's report: what it says, and how often it tried what it must not do. */
interface Report {
  lines: string[];
  tried: number;
  refused: number;
}

/** Holds its own key. Only the public half leaves it, and only a capability comes back. */
class SubAgent {
  readonly work: Work;
  readonly #key: Key;

  private constructor(work: Work, key: Key) {
    this.work = work;
    this.#key = key;
  }

  static async create(work: Work): Promise<SubAgent> {
    return new SubAgent(work, await Key.generate());
  }

  publicJwk() {
    return this.#key.publicJwk();
  }

  /** Does its own work, then tries the others'. What it presents cannot be handed on. */
  async run(url: string, roots: Roots, token: string): Promise<Report> {
    const presented = sealed(roots, token);
    const call = (work: Work) => callTool(url, presented, this.#key, work.tool, argumentsOf(work));
    const { agent, tool, repository, minutes } = this.work;
    const { content = [], isError = false } = await call(this.work);
    const first = printable((content[0]?.text ?? '').split('\n')[0]);
    if (isError) throw new Failure(`${agent} cannot do its work: ${first}`);
    const lines = [`${agent} has ${tool} of ${repository} for ${minutes} minutes: ${first}`];
    let tried = 0;
    let refused = 0;
    for (const other of team.filter((each) => each !== this.work)) {
      tried += 1;
      let said = 'it worked';
      try {
        await call(other);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        refused += 1;
        said = explained(error);
      }
      lines.push(`${agent} tries the work of ${other.agent}: ${said}`);
    }
    return { lines, tried, refused };
  }
}

/** What a denial says. Any other refusal, of a server that is down for example, proves nothing. */
function explained(refusal: Refused): string {
  let error;
  try {
    error = JSON.parse(refusal.reason);
  } catch {
    // Whatever it is, it is none of the proxy's denials.
  }
  const rule: unknown = error?.data?.rule;
  if (refusal.status !== 403 || error?.code !== 4403 || typeof rule !== 'string') {
    throw new Failure(`this is no denial: ${refusal.message}`);
  }
  return `refused, status 403, code 4403, rule ${printable(rule)}`;
}

function variable(name: string, otherwise?: string): string {
  const value = process.env[name] ?? otherwise;
  if (value === undefined) throw new Failure(`the environment variable ${name} is not set`);
  return value;
}

async function main(): Promise<number> {
  const issuer = variable('TAPER_ISSUER');
  const url = variable('TAPER_URL');
  const subjectToken = (await readFile(variable('TAPER_SUBJECT_TOKEN_FILE'), 'utf8')).trim();

  // The orchestrator holds a capability for every tool of the server.
  const roots = new Roots(await rootKeys(issuer));
  const key = await Key.generate();
  const token: string = await exchange(issuer, variable('TAPER_CLIENT_ID', 'dev'), subjectToken, key, { scopes: ['git:*'] });

  const reports = await Promise.all(
    team.map(async (work) => {
      const agent = await SubAgent.create(work);
      // A slice for another key: this needs no network, and nobody's consent.
      const slice: string = await delegate(roots, token, key, agent.publicJwk(), {
        until: new Date(Date.now() + work.minutes * 60_000),
        caveats: [caveats.tool('git', [work.tool]), caveats.resourceOneOf('repo', [work.repository])],
        note: work.agent,
      });
      return agent.run(url, roots, slice);
    }),
  );

  for (const { lines } of reports) console.log(lines.join('\n'));
  const sum = (of: 'tried' | 'refused') => reports.reduce((total, report) => total + report[of], 0);
  console.log(`${sum('tried')} attempts at another's work, ${sum('refused')} refused`);
  return sum('refused') === sum('tried') ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof Failure || error instanceof Refused)) throw error;
  console.error(`failed: ${printable(error.message)}`);
  process.exitCode = 1;
}
