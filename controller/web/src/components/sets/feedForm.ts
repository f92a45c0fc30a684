// A feed as people type it, and back.
import type { FeedInfo } from '@/api/policy'

type Content = FeedInfo['content']
export type Kind = 'url' | 'file' | 'kubernetes'
export const LIMITS = [
  'min_entries',
  'max_entries',
  'max_shrink_percent',
  'max_growth_percent',
  'shortest_ipv4',
  'shortest_ipv6',
  'max_bytes',
] as const

export interface FeedForm {
  name: string
  kind: Kind
  places: string
  format: NonNullable<Content['format']>
  at_least: string
  set: string
  countries: string
  every: string
  expiry: string
  max_age: string
  enabled: boolean
  comment: string
  limits: Record<(typeof LIMITS)[number], string>
  protect: string
}

const text = (value: unknown): string => (value === undefined || value === null ? '' : String(value))
const words = (typed: string): string[] => typed.split(/[\s,]+/).filter(Boolean)
const number = (typed: string | number): number | undefined =>
  String(typed).trim() === '' ? undefined : Number(typed)

export function toForm(feed: FeedInfo | undefined): FeedForm {
  const content = feed?.content
  const source = content?.source
  const limits = LIMITS.map((key) => [key, text(content?.limits?.[key])])
  return {
    name: feed?.name ?? '',
    kind: source?.kind ?? 'url',
    places: (source?.kind === 'url' ? source.urls : source?.kind === 'file' ? source.paths : []).join('\n'),
    format: content?.format ?? 'auto',
    at_least: text(content?.at_least || ''),
    set: content?.set ?? '',
    countries: (content?.countries ?? []).join(', '),
    every: text(content?.every ?? 3600),
    expiry: text(content?.expiry),
    max_age: text(content?.max_age),
    enabled: content?.enabled ?? true,
    comment: content?.comment ?? '',
    limits: Object.fromEntries(limits) as FeedForm['limits'],
    protect: (content?.limits?.protect ?? []).join(', '),
  }
}

export function toContent(form: FeedForm): Content {
  const places = words(form.places)
  const limits = LIMITS.map((key) => [key, number(form.limits[key])]).filter(
    ([, value]) => value !== undefined,
  )
  return {
    source:
      form.kind === 'url'
        ? { kind: 'url', urls: places }
        : form.kind === 'file'
          ? { kind: 'file', paths: places }
          : { kind: 'kubernetes' },
    format: form.format,
    every: number(form.every),
    enabled: form.enabled,
    comment: form.comment.trim() || null,
    set: form.set.trim() || null,
    countries: words(form.countries),
    expiry: number(form.expiry) ?? null,
    max_age: number(form.max_age) ?? null,
    ...(form.format === 'ipsum' && { at_least: number(form.at_least) }),
    limits: { ...Object.fromEntries(limits), protect: words(form.protect) },
  }
}
