import { type HttpAnswer, httpAnswers, trailersOnly } from './answers.ts';
import type { RequestHead } from './request-head.ts';
import { type Failure, status } from './status.ts';

/** The answer to a request that its headers alone decide. */
export type Refusal = Buffer | HttpAnswer;

const refuse = (code: number, message: string): Buffer => trailersOnly({ status: code, message } satisfies Failure);

export const refusals = {
  unknownMethod: refuse(status.unimplemented, 'unknown method'),
  encoding: refuse(status.unimplemented, 'the message encoding is not supported'),
  timeout: refuse(status.internal, 'grpc-timeout is malformed'),
  deadline: refuse(status.deadlineExceeded, 'the deadline has passed'),
  compressed: refuse(status.internal, 'a compressed message without its encoding'),
  notOneMessage: refuse(status.internal, 'a unary call has one whole message'),
  messageTooLarge: refuse(status.resourceExhausted, 'the message is too large'),
  noMemory: refuse(status.resourceExhausted, 'too many incomplete messages'),
  failed: refuse(status.internal, ''),
} as const;

/** Null when it is a call whose message may come. */
export function judge(head: RequestHead): Refusal | null {
  if (head.isTooLarge) return httpAnswers.headersTooLarge;
  // An answer to HEAD has no body (RFC 9110 section 9.3.2).
  if (head.method === 'HEAD') return httpAnswers.methodNotAllowed.headers;
  if (head.method !== 'POST') return httpAnswers.methodNotAllowed;
  if (!isGrpc(head.contentType)) return httpAnswers.unsupportedMediaType;
  if (head.encoding !== '' && head.encoding !== 'identity') return refusals.encoding;
  if (head.timeoutMs === null) return refusals.timeout;
  if (head.timeoutMs === 0) return refusals.deadline;
  return null;
}

/** `application/grpc`, alone or with the name of a message format or parameters behind it. */
function isGrpc(contentType: string): boolean {
  if (contentType === 'application/grpc') return true;
  return contentType.startsWith('application/grpc+') || contentType.startsWith('application/grpc;');
}
