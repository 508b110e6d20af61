/**
 * What the OpenAPI document says of the SCIM routes. It binds nobody: bodies are read by hand, since directories do not keep
 * to the letter, and what a client asks for decides which attributes an answer has (RFC 7644 section 3.9).
 * @module
 */
import { problemAnswers } from '@token-gateway/platform';
import type { FastifySchema } from 'fastify';
import { pageSizeMax } from './discovery.ts';

export const mediaType = 'application/scim+json';
export const mediaTypes = [mediaType, 'application/json'];

const text = { type: 'string' };
const texts = { type: 'array', items: text };
const id = { type: 'string', pattern: '^\\w{1,100}$' };
const object = { type: 'object' };

function answerOf(description: string, schema: object): object {
  return { description, content: { [mediaType]: { schema } } };
}

/** RFC 7644 section 3.12; what is refused before a route is found is a problem body, as everywhere else. */
const error = {
  type: 'object',
  required: ['schemas', 'status', 'detail'],
  properties: { schemas: texts, status: text, scimType: text, detail: text },
  additionalProperties: false,
};
const refusals = Object.fromEntries(
  Object.entries(problemAnswers).map(([status, { description, content }]) => [
    status,
    { description, content: { [mediaType]: { schema: error }, ...content } },
  ]),
);

const resource = (properties: object) => ({
  type: 'object',
  required: ['schemas', 'id'],
  properties: { schemas: texts, id: text, meta: object, ...properties },
});
const references = { type: 'array', items: { type: 'object', required: ['value'], properties: { value: id } } };
const kinds = {
  User: {
    answer: resource({ externalId: text, userName: text, active: { type: 'boolean' }, groups: references }),
    body: {
      type: 'object',
      required: ['userName'],
      properties: {
        schemas: texts,
        userName: { type: 'string', minLength: 1, maxLength: 500 },
        externalId: { type: 'string', maxLength: 500 },
        active: { type: 'boolean' },
        displayName: { type: 'string', maxLength: 500 },
        name: { type: 'object', properties: { givenName: text, familyName: text, formatted: text } },
        emails: {
          type: 'array',
          items: { type: 'object', properties: { value: text, type: text, primary: { type: 'boolean' } } },
        },
      },
    },
  },
  Group: {
    answer: resource({ externalId: text, displayName: text, members: references }),
    body: {
      type: 'object',
      required: ['displayName'],
      properties: {
        schemas: texts,
        displayName: { type: 'string', minLength: 1, maxLength: 200 },
        externalId: { type: 'string', maxLength: 500 },
        members: references,
      },
    },
  },
  Any: { answer: resource({}), body: object },
};
const patch = {
  type: 'object',
  required: ['schemas', 'Operations'],
  properties: {
    schemas: { type: 'array', items: { enum: ['urn:ietf:params:scim:api:messages:2.0:PatchOp'] } },
    Operations: {
      type: 'array',
      items: {
        type: 'object',
        required: ['op'],
        properties: { op: { enum: ['add', 'remove', 'replace'] }, path: text, value: {} },
      },
    },
  },
};

type Kind = keyof typeof kinds;

const shown = { attributes: text, excludedAttributes: text };
const paging = {
  filter: text,
  startIndex: { type: 'string', pattern: '^\\d{1,9}$', description: 'Counted from 1, which is the default.' },
  count: { type: 'string', pattern: '^\\d{1,9}$', description: `At most ${pageSizeMax}; default 100.` },
};
const queryOf = (properties: object) => ({ querystring: { type: 'object', properties } });

/** Of the path: a base URL that names a provider, and the id of one resource. */
function paramsOf(base: string, given: object): FastifySchema {
  const properties = { ...(base === '' ? {} : { providerId: id }), ...given };
  const required = Object.keys(properties);
  return required.length === 0 ? {} : { params: { type: 'object', properties, required } };
}

function listOf(kind: Kind): object {
  const counted = { type: 'integer' };
  return {
    type: 'object',
    required: ['schemas', 'totalResults', 'startIndex', 'itemsPerPage', 'Resources'],
    properties: {
      schemas: texts,
      totalResults: counted,
      startIndex: counted,
      itemsPerPage: counted,
      Resources: { type: 'array', items: kinds[kind].answer },
    },
    additionalProperties: false,
  };
}

/** Schemas of the routes of one kind of resource, below one base URL. */
export function documented(kind: Kind, base: string, pathId: object = id) {
  const { answer, body } = kinds[kind];
  const [ofAll, ofOne] = [paramsOf(base, {}), paramsOf(base, { id: pathId })];
  const gone = { 204: { description: 'Done.', type: 'null' } };
  const one = { 200: answerOf(`The ${kind.toLowerCase()}.`, answer) };
  const whole = { consumes: mediaTypes, body };
  const change = { consumes: mediaTypes, body: patch };
  const route = (schema: object, response: object) => ({
    schema: { ...schema, response: { ...response, ...refusals } },
  });
  return {
    config: route(ofAll, { 200: answerOf('What the endpoints can do.', object) }),
    post: route({ ...ofAll, ...queryOf(shown), ...whole }, { 201: answerOf('Made.', answer) }),
    list: route({ ...ofAll, ...queryOf({ ...paging, ...shown }) }, { 200: answerOf('A page.', listOf(kind)) }),
    get: route({ ...ofOne, ...queryOf(shown) }, one),
    put: route({ ...ofOne, ...queryOf(shown), ...whole }, one),
    patch: route({ ...ofOne, ...queryOf(shown), ...change }, one),
    patchUnanswered: route({ ...ofOne, ...change }, gone),
    delete: route(ofOne, gone),
  };
}
