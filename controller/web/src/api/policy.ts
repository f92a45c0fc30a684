// Policies, rules and sets: shapes that the OpenAPI document leaves open, and the calls that pages share.
import { api, body } from './client'
import type { components } from './schema'

export type PolicyInfo = components['schemas']['PolicyInfo']
export type SetInfo = components['schemas']['SetInfo']
export type GroupInfo = components['schemas']['GroupInfo']
export type FeedInfo = components['schemas']['FeedInfo']
export type Problem = components['schemas']['Problem']

/** A rule of the policy file, in canonical form, with the version of the policy that touched it last. */
export interface Rule {
  id: string
  priority?: number
  match: Record<string, unknown>
  action: string | { rate_limit: Record<string, unknown> }
  mode?: 'enforce' | 'monitor'
  enabled?: boolean
  expires?: string
  interfaces?: string[]
  name?: string
  comment?: string
  labels?: Record<string, string>
}
export type KnownRule = Rule & { version: number }

export interface Page<Row> {
  items: Row[]
  next?: string | null
  total?: number | null
}
export interface Version {
  version: number
  by: string
  at: string
  why?: string
  changed: string[]
  deleted: boolean
  count: number
}
export interface FieldDiff {
  field: string
  from: unknown
  to: unknown
}
export interface PolicyDiff {
  text: string
  settings: FieldDiff[]
  added: string[]
  removed: string[]
  changed: { id: string; fields: FieldDiff[] }[]
}
export interface Progress {
  seen: boolean
  applied: number
  refused: unknown[]
  pending: unknown[]
  offline: unknown[]
}
/** What became of one change of several. */
export interface Done {
  object?: string
  effect?: string
  entries?: number
  version?: number
  error?: Problem
}
export interface Changed {
  revision: number
  repeated: boolean
  effects: Done[]
  plans?: { policies: string[]; nodes: number; text: string }[]
}
export interface ChangeOptions {
  why?: string
  dry_run?: boolean
  rollout?: string
}
export type Operation =
  | { op: 'patch'; id: string; patch: Record<string, unknown> }
  | { op: 'enable' | 'disable' | 'delete'; id: string }

/** Text goes as it is. */
const asIs = (text: unknown): string => text as string

export const changed = (answer: unknown): Changed => (answer as { data: unknown }).data as Changed

/** What a change of a policy by a text would do, per kind of node. */
export async function planText(policy: string, text: string): Promise<Changed> {
  const answer = await api.POST('/api/v1/policies/{policy}/plan', {
    params: { path: { policy } },
    body: text,
    bodySerializer: asIs,
    headers: { 'content-type': 'application/yaml' },
  })
  return changed(answer)
}

export async function putText(
  policy: string,
  text: string,
  query: ChangeOptions,
  headers: Record<string, string>,
): Promise<Changed> {
  const answer = await api.PUT('/api/v1/policies/{policy}', {
    params: { path: { policy }, query },
    body: text,
    bodySerializer: asIs,
    headers: { 'content-type': 'application/yaml', ...headers },
  })
  return changed(answer)
}

/** The whole policy, and the version that it is of. */
export async function getText(policy: string): Promise<{ text: string; version: number | undefined }> {
  const answer = await api.GET('/api/v1/policies/{policy}/text', {
    params: { path: { policy } },
    parseAs: 'text',
  })
  const tag = answer.response.headers.get('etag')?.match(/^"(\d+)"$/)
  return { text: body(answer) as unknown as string, version: tag ? Number(tag[1]) : undefined }
}

export async function importEntries(
  set: string,
  list: string | Blob,
  query: { mode: 'add' | 'replace'; why?: string; dry_run?: boolean },
  headers: Record<string, string> = {},
): Promise<Changed> {
  const answer = await api.PUT('/api/v1/sets/{set}/entries', {
    params: { path: { set }, query },
    body: list as string,
    bodySerializer: asIs,
    headers: { 'content-type': 'text/plain', ...headers },
  })
  return changed(answer)
}

/** The most operations of one batch. */
const BATCH = 1000

export interface BatchAnswer {
  items: { id: string; done: Done }[]
  /** What it does at the nodes, where one request was enough. */
  plan: Changed | undefined
}

/** Changes of rules, as many requests as it takes; what could not be made is among what is answered. */
export async function batch(
  policy: string,
  operations: Operation[],
  query: ChangeOptions,
  told: (done: number) => void = () => undefined,
): Promise<BatchAnswer> {
  const items: BatchAnswer['items'] = []
  let plan: Changed | undefined
  for (let from = 0; from < operations.length; from += BATCH) {
    const part = operations.slice(from, from + BATCH)
    const answer = await api.POST('/api/v1/policies/{policy}/batch', {
      params: { path: { policy }, query },
      body: { operations: part as never, partial: true },
    })
    plan = changed(answer)
    const { effects } = plan
    part.forEach((operation, i) => items.push({ id: operation.id, done: effects[i] ?? {} }))
    told(items.length)
  }
  return { items, plan: operations.length > BATCH ? undefined : plan }
}
