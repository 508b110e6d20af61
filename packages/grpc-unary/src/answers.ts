/** What leaves the server for each request besides messages: header blocks and bodies, made before they are needed. */
import { encodeHeaders } from './hpack/encoder.ts';
import { encodeMessage, type Failure, status } from './status.ts';

const contentType = ['content-type', 'application/grpc'] as const;
const acceptEncoding = ['grpc-accept-encoding', 'identity'] as const;

export const responseHeaders = encodeHeaders([[':status', '200'], contentType]);
export const successTrailers = encodeHeaders([['grpc-status', String(status.ok)]]);

const messageLengthMax = 256;

/** The one header block of an answer without a message ("Trailers-Only" of the gRPC protocol over HTTP/2). Throws for OK. */
export function trailersOnly({ status: code, message }: Failure): Buffer {
  if (!Number.isInteger(code) || code < status.cancelled || code > status.unauthenticated) {
    throw new RangeError(`${code} is no status of a failure`);
  }
  return encodeHeaders([
    [':status', '200'],
    contentType,
    ...(code === status.unimplemented ? [acceptEncoding] : []),
    ['grpc-status', String(code)],
    ...(message === '' ? [] : [['grpc-message', encodeMessage(message.slice(0, messageLengthMax))] as const]),
  ]);
}

/** For what is no call of gRPC, and is read by who does not look at `grpc-status`. */
export interface HttpAnswer {
  readonly headers: Buffer;
  readonly body: Buffer;
}

const httpBody = Buffer.from('This server answers unary calls of gRPC.\n');

function httpAnswer(code: number, more: readonly (readonly [string, string])[] = []): HttpAnswer {
  const fields = [['content-type', 'text/plain'], ['content-length', String(httpBody.length)], ...more] as const;
  return { headers: encodeHeaders([[':status', String(code)], ...fields]), body: httpBody };
}

export const httpAnswers = {
  methodNotAllowed: httpAnswer(405, [['allow', 'POST']]),
  unsupportedMediaType: httpAnswer(415),
  headersTooLarge: httpAnswer(431),
} as const;
