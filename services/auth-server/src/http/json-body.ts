import { parseStrictJson, RequestInvalid, ServiceError } from '@token-gateway/platform';

/** A compiled schema. */
interface BodyForm<T> {
  Check(value: unknown): value is T;
  Errors(value: unknown): readonly { readonly instancePath: string; readonly message: string }[];
}

const problemsMax = 10;

/** A body of an administrative call; null = not JSON, by its type. Throws ServiceError, without any value of it. */
export function parseBody<T>(body: string | null, form: BodyForm<T>): T {
  if (body === null) throw new ServiceError('media_type_unsupported');
  let value: unknown;
  try {
    value = parseStrictJson(body);
  } catch {
    throw new RequestInvalid([{ in: 'body', field: '', message: 'is no JSON' }]);
  }
  if (form.Check(value)) return value;
  const fields = form.Errors(value).map(({ instancePath, message }) => ({
    in: 'body',
    // Names come from the caller as well.
    field: /^[\w/.~-]{0,128}$/.test(instancePath) ? instancePath : '(name not shown)',
    message,
  }));
  throw new RequestInvalid(fields.slice(0, problemsMax));
}
