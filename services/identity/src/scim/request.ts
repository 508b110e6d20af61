/** What the SCIM routes have in common: who calls, for whom, and how a list is answered. */
import { ServiceError } from '@token-gateway/platform';
import { and, eq } from 'drizzle-orm';
import type { FastifyRequest } from 'fastify';
import { type Caller, requireScim } from '../rest/caller.ts';
import { found, type RestContext } from '../rest/context.ts';
import { providers } from '../store/schema.ts';
import { pageSizeMax } from './discovery.ts';
import type { Resource } from './patch.ts';
import { ScimError } from './scim-error.ts';

export interface ScimCall {
  readonly caller: Caller;
  /** The caller's: a SCIM client reaches no other. */
  readonly tenantId: string;
  /** Whose subjects external ids are: the provider the client's base URL names, else the tenant's one; null = nobody's. */
  readonly issuer: string | null;
  readonly baseUrl: string;
}

/** Throws where the caller may not, or names a provider that is not the tenant's. */
export async function readCall(context: RestContext, request: FastifyRequest): Promise<ScimCall> {
  const caller = await context.callers.read(request);
  requireScim(caller);
  const { tenantId } = caller;
  const { providerId } = request.params as { providerId?: string };
  if (providerId !== undefined) requireId(providerId);
  const named = providerId === undefined ? undefined : eq(providers.id, providerId);
  const rows = await context.drizzle
    .select({ issuer: providers.issuer })
    .from(providers)
    .where(and(eq(providers.tenantId, tenantId), eq(providers.isDisabled, false), named));
  const issuers = [...new Set(rows.map(({ issuer }) => issuer))];
  if (providerId !== undefined) found(issuers[0], `provider ${providerId}`);
  const [issuer = null] = issuers.length === 1 ? issuers : [];
  const base = providerId === undefined ? '/scim/v2' : `/scim/v2/providers/${providerId}`;
  return { caller, tenantId, issuer, baseUrl: `${request.protocol}://${request.host}${base}` };
}

/** The id in the path, in a form that the database can be asked for. */
export function idOf(request: FastifyRequest): string {
  const { id = '' } = request.params as { id?: string };
  requireId(id);
  return id;
}

function requireId(id: string): void {
  if (!/^\w{1,100}$/.test(id)) throw new ServiceError('not_found', { detail: 'an id that cannot be' });
}

export interface Paging {
  readonly startIndex: number;
  readonly count: number;
}

/** RFC 7644 section 3.4.2.4: what is too small is taken for the smallest. */
export function pagingOf(request: FastifyRequest): Paging {
  return {
    startIndex: Math.max(1, numberIn(request, 'startIndex') ?? 1),
    count: Math.min(pageSizeMax, Math.max(0, numberIn(request, 'count') ?? 100)),
  };
}

function numberIn(request: FastifyRequest, name: string): number | null {
  const text = textIn(request, name);
  if (text === null) return null;
  if (!/^-?\d{1,9}$/.test(text)) throw new ScimError('invalidValue', `${name} has to be a number.`);
  return Number(text);
}

/** A parameter of the query, once at most. */
export function textIn(request: FastifyRequest, name: string): string | null {
  const value = (request.query as Record<string, unknown>)[name];
  if (value === undefined || value === '') return null;
  if (typeof value !== 'string') throw new ScimError('invalidValue', `${name} occurs twice.`);
  return value;
}

export function listAnswer(resources: readonly Resource[], totalResults: number, startIndex: number): Resource {
  return {
    schemas: ['urn:ietf:params:scim:api:messages:2.0:ListResponse'],
    totalResults,
    startIndex,
    itemsPerPage: resources.length,
    Resources: resources,
  };
}

const always = new Set(['schemas', 'id']);

/** RFC 7644 section 3.9, for attributes as a whole. */
export function narrowed(request: FastifyRequest, resource: Resource): Resource {
  const names = (name: string) =>
    textIn(request, name)
      ?.toLowerCase()
      .split(',')
      .map((text) => text.trim());
  const [wanted, unwanted] = [names('attributes'), names('excludedAttributes')];
  if (wanted === undefined && unwanted === undefined) return resource;
  const isShown = (name: string) =>
    always.has(name) ||
    ((wanted?.some((text) => text.split('.')[0] === name) ?? true) && unwanted?.includes(name) !== true);
  return Object.fromEntries(Object.entries(resource).filter(([name]) => isShown(name.toLowerCase())));
}
