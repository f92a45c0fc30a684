// The API of the controller, typed by its OpenAPI document. Nothing else of the controller is used.
import createClient, { type Middleware } from 'openapi-fetch'
import type { paths } from './schema'
import { Refused, type Problem } from './problem'

let csrf = ''
let onLoggedOut: () => void = () => undefined

/** What each changing request of a session has to carry. */
export function setCsrf(token: string): void {
  csrf = token
}

/** Called once the session is no good any more. */
export function whenLoggedOut(act: () => void): void {
  onLoggedOut = act
}

const session: Middleware = {
  onRequest({ request }) {
    if (request.method !== 'GET' && csrf !== '') request.headers.set('x-csrf-token', csrf)
    return request
  },
  async onResponse({ request, response }) {
    if (response.ok || response.status === 304) return response
    const problem = await problemOf(response)
    const logsIn = request.method === 'POST' && new URL(request.url).pathname.endsWith('/api/v1/session')
    if (response.status === 401 && !logsIn) onLoggedOut()
    throw new Refused(problem)
  },
  onError({ error }) {
    return new Refused({
      code: 'unreachable',
      title: 'Unreachable',
      status: 0,
      detail: error instanceof Error ? error.message : String(error),
    })
  },
}

async function problemOf(response: Response): Promise<Problem> {
  try {
    const body: unknown = await response.json()
    if (typeof body === 'object' && body !== null && 'code' in body) return body as Problem
  } catch {
    // Not of the controller: something between answered.
  }
  return { code: 'answer', title: response.statusText, status: response.status, detail: response.statusText }
}

export const api = createClient<paths>({
  baseUrl: location.origin,
  // Each request looks the function up, so that tests can put another one there.
  fetch: (request) => globalThis.fetch(request),
  querySerializer: { array: { style: 'form', explode: false } },
})
api.use(session)

type Body<A> = NonNullable<Extract<Awaited<A>, { data: unknown }>['data']>

/** The body of an answer. Refusals were thrown before. */
export function body<A>(answer: A): Body<A> {
  return (answer as { data: Body<A> }).data
}

/** Likewise, of an answer that is to come. */
export async function must<A>(answer: A): Promise<Body<A>> {
  return body(await answer) as Body<A>
}

/** With the version that the caller saw, so that a change by somebody else in between is refused. */
export function ifMatch(version: number | undefined): Record<string, string> {
  return version === undefined ? {} : { 'If-Match': `"${version}"` }
}
