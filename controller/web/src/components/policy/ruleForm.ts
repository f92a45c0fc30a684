// A rule as people type it, and back. The controller judges what is typed: nothing is refused here.
import { stringify } from 'yaml'
import type { Rule } from '@/api/policy'

export type Text = Record<string, string>
export interface RuleForm {
  id: string
  priority: string
  name: string
  comment: string
  enabled: boolean
  mode: 'enforce' | 'monitor'
  /** Local, as an input of the browser has it. */
  expires: string
  interfaces: string
  labels: string
  /** The fields of `match`, as text. */
  match: Text
  not: Record<'src' | 'dst' | 'sport' | 'dport', boolean>
  anomaly: string[]
  action: 'drop' | 'pass' | 'count' | 'rate_limit'
  unit: 'packets_per_second' | 'bits_per_second'
  limit: string
  burst: string
  per: 'rule' | 'source' | 'prefix'
  v4: string
  v6: string
}

export const ANOMALIES = ['bad_fragment', 'invalid']
export const FRAGMENTS = ['none', 'first', 'later', 'any']
export const PRESETS = ['tcp_ack', 'tcp_rst', 'tcp_fin']
const LISTS = ['src', 'dst', 'protocol', 'sport', 'dport', 'vlan', 'dscp']
const WORDS = ['family', 'tcp_flags', 'length', 'fragment', 'ttl', 'preset']

export function emptyForm(): RuleForm {
  return {
    id: '',
    priority: '',
    name: '',
    comment: '',
    enabled: true,
    mode: 'enforce',
    expires: '',
    interfaces: '',
    labels: '',
    match: Object.fromEntries([...LISTS, ...WORDS, 'icmp_type', 'icmp_code'].map((key) => [key, ''])),
    not: { src: false, dst: false, sport: false, dport: false },
    anomaly: [],
    action: 'drop',
    unit: 'packets_per_second',
    limit: '',
    burst: '',
    per: 'rule',
    v4: '',
    v6: '',
  }
}

const list = (value: unknown): string =>
  value === undefined ? '' : Array.isArray(value) ? value.map(String).join(', ') : String(value)
const text = (value: unknown): string => (value === undefined || value === null ? '' : String(value))

export function toForm(rule: Rule): RuleForm {
  const form = emptyForm()
  form.id = rule.id
  form.priority = text(rule.priority)
  form.name = rule.name ?? ''
  form.comment = rule.comment ?? ''
  form.enabled = rule.enabled ?? true
  form.mode = rule.mode ?? 'enforce'
  form.expires = rule.expires ? toLocal(rule.expires) : ''
  form.interfaces = list(rule.interfaces)
  form.labels = sayLabels(rule.labels ?? {})
  for (const key of LISTS) {
    const value = rule.match[key]
    const negated = typeof value === 'object' && value !== null && 'not' in value
    form.match[key] = list(negated ? (value as { not: unknown }).not : value)
    if (negated && key in form.not) form.not[key as keyof RuleForm['not']] = true
  }
  for (const key of WORDS) form.match[key] = text(rule.match[key])
  const icmp = rule.match.icmp as { type?: number; code?: number } | undefined
  form.match.icmp_type = text(icmp?.type)
  form.match.icmp_code = text(icmp?.code)
  form.anomaly = rule.match.anomaly === undefined ? [] : [rule.match.anomaly].flat().map(String)
  if (typeof rule.action === 'string') form.action = rule.action as RuleForm['action']
  else takeLimit(form, rule.action.rate_limit)
  return form
}

function takeLimit(form: RuleForm, limit: Record<string, unknown>): void {
  form.action = 'rate_limit'
  form.unit = 'bits_per_second' in limit ? 'bits_per_second' : 'packets_per_second'
  form.limit = text(limit[form.unit])
  form.burst = text(limit.burst)
  const per = limit.per ?? 'rule'
  if (per === 'rule' || per === 'source') {
    form.per = per
  } else if (typeof per === 'string') {
    form.per = 'prefix'
    form.v4 = per.replace('source/', '')
  } else {
    const source = (per as { source?: { v4?: number; v6?: number } }).source
    form.per = 'prefix'
    form.v4 = text(source?.v4)
    form.v6 = text(source?.v6)
  }
}

/** Numbers as numbers, the rest as it is typed. */
const word = (value: string): string | number => (/^\d{1,15}$/.test(value) ? Number(value) : value)
const words = (value: string): (string | number)[] =>
  value
    .split(/[\s,]+/)
    .filter(Boolean)
    .map(word)
const oneOrList = (value: string): unknown => {
  const all = words(value)
  return all.length === 1 ? all[0] : all
}

export function toRule(form: RuleForm): Rule {
  const match: Record<string, unknown> = {}
  for (const key of LISTS) {
    const typed = form.match[key] ?? ''
    if (typed.trim() === '') continue
    match[key] = form.not[key as keyof RuleForm['not']] ? { not: oneOrList(typed) } : oneOrList(typed)
  }
  for (const key of WORDS) {
    const typed = form.match[key]?.trim() ?? ''
    if (typed !== '') match[key] = word(typed)
  }
  if (form.match.icmp_type || form.match.icmp_code) {
    match.icmp = {
      ...(form.match.icmp_type && { type: word(form.match.icmp_type.trim()) }),
      ...(form.match.icmp_code && { code: word(form.match.icmp_code.trim()) }),
    }
  }
  if (form.anomaly.length > 0) match.anomaly = form.anomaly.length === 1 ? form.anomaly[0] : form.anomaly
  return {
    id: form.id.trim(),
    ...(form.priority.trim() && { priority: word(form.priority.trim()) as number }),
    match,
    action: form.action === 'rate_limit' ? { rate_limit: limitOf(form) } : form.action,
    ...(form.mode === 'monitor' && { mode: form.mode }),
    ...(!form.enabled && { enabled: false }),
    ...(form.expires && { expires: toUtc(form.expires) }),
    ...(form.interfaces.trim() && { interfaces: form.interfaces.split(/[\s,]+/).filter(Boolean) }),
    ...(form.name.trim() && { name: form.name.trim() }),
    ...(form.comment.trim() && { comment: form.comment.trim() }),
    ...(form.labels.trim() && { labels: readLabels(form.labels) }),
  }
}

function limitOf(form: RuleForm): Record<string, unknown> {
  const sizes = {
    ...(form.v4.trim() && { v4: word(form.v4.trim()) }),
    ...(form.v6.trim() && { v6: word(form.v6.trim()) }),
  }
  return {
    ...(form.limit.trim() && { [form.unit]: word(form.limit.trim()) }),
    ...(form.burst.trim() && { burst: word(form.burst.trim()) }),
    per: form.per === 'prefix' ? { source: sizes } : form.per,
  }
}

/** `a=1, b=2` and back. */
export function sayLabels(labels: Record<string, string>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(', ')
}
export function readLabels(typed: string): Record<string, string> {
  const pairs = typed.split(',').map((pair) => pair.trim())
  return Object.fromEntries(
    pairs.filter(Boolean).map((pair) => {
      const at = pair.indexOf('=')
      return at < 0 ? [pair, ''] : [pair.slice(0, at).trim(), pair.slice(at + 1).trim()]
    }),
  )
}

export function toLocal(utc: string): string {
  const at = new Date(utc)
  if (Number.isNaN(at.getTime())) return ''
  const pad = (value: number): string => String(value).padStart(2, '0')
  const day = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`
  return `${day}T${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`
}
export function toUtc(local: string): string {
  const at = new Date(local)
  return Number.isNaN(at.getTime()) ? local : at.toISOString().replace('.000Z', 'Z')
}

/** A rule as it stands in a policy file. */
export function sayYaml(rule: Rule): string {
  const { id, priority, match, action, mode, enabled, expires, interfaces, name, comment, labels } = rule
  const ordered = { id, priority, match, action, mode, enabled, expires, interfaces, name, comment, labels }
  const known = Object.fromEntries(Object.entries(ordered).filter(([, value]) => value !== undefined))
  return stringify([known], { lineWidth: 0, version: '1.2' })
}

const say = (value: unknown): string => {
  if (Array.isArray(value))
    return value.length > 3
      ? `${value.slice(0, 3).map(say).join(', ')} +${value.length - 3}`
      : value.map(say).join(', ')
  if (typeof value === 'object' && value !== null) {
    return Object.entries(value)
      .map(([key, inner]) => (key === 'not' ? `≠ ${say(inner)}` : `${key} ${say(inner)}`))
      .join(' ')
  }
  return String(value)
}
/** What a rule asks for, in short. */
export function sayMatch(match: Record<string, unknown>): { key: string; value: string }[] {
  return Object.entries(match).map(([key, value]) => ({ key, value: say(value) }))
}
