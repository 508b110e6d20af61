/** POST /v1/providers/{id}/preview. The token in it is not an exchange, and stands in no log. */
import type { Static } from 'typebox';
import { Compile } from 'typebox/compile';
import type { Preview, PreviewResult } from '../exchange/preview.ts';
import { requireExpressions, withChanges } from '../providers/provider-changes.ts';
import type { Administration, AdministrativeCall } from './administration.ts';
import { parseBody } from './json-body.ts';
import { PreviewRequestSchema, type PreviewSchema } from './schemas.ts';

/** Rejects with ServiceError. */
export type PreviewEndpoint = (call: AdministrativeCall) => Promise<Static<typeof PreviewSchema>>;

export const previewRoute = '/v1/providers/:id/preview';
const requestForm = Compile(PreviewRequestSchema);

export function createPreviewEndpoint(
  { administration, preview }: { readonly administration: Administration; readonly preview: Preview },
  config: { readonly audience: string },
): PreviewEndpoint {
  return (call) =>
    administration.run(call, { method: 'POST', route: previewRoute, status: 200 }, async ({ id }) => {
      const { token, presentedAs, audience = config.audience, changes = {} } = parseBody(call.body, requestForm);
      requireExpressions(changes);
      const use = presentedAs === 'id_token' ? 'id' : 'access';
      return told(await preview(id, { token, use, audience, change: (provider) => withChanges(provider, changes) }));
    });
}

function told(result: PreviewResult): Static<typeof PreviewSchema> {
  if (result.outcome !== 'granted') {
    const { outcome, code, detail } = result;
    return { outcome, code, ...(detail === undefined ? {} : { reason: detail }) };
  }
  const { outcome, claims, conditions, firstUse } = result;
  return {
    outcome,
    claims: { ...claims },
    ...(conditions === null ? {} : { conditions }),
    ...(firstUse === undefined ? {} : { firstUse }),
  };
}
