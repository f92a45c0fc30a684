// Where in a policy file the controller's complaint is about.
import type { Diagnostic } from '@codemirror/lint'
import { LineCounter, parseDocument } from 'yaml'
import type { Problem } from '@/api/problem'

/** Texts up to this many characters are parsed for a mistake of YAML. */
const PARSED = 2_000_000

export function locate(text: string, problem: Problem): Diagnostic[] {
  const message = [problem.detail, problem.mend].filter(Boolean).join('. ')
  const place = syntax(text, problem) ?? field(text, problem)
  return [{ from: place.from, to: Math.max(place.to, place.from), severity: 'error', message }]
}

/** The line of a place, from 1. */
export function lineOf(text: string, at: number): number {
  let line = 1
  for (let i = text.indexOf('\n'); i !== -1 && i < at; i = text.indexOf('\n', i + 1)) line += 1
  return line
}

interface Place {
  from: number
  to: number
}

function syntax(text: string, problem: Problem): Place | undefined {
  if (problem.field || problem.object?.includes('rule/') || text.length > PARSED) return undefined
  const errors = parseDocument(text, { lineCounter: new LineCounter(), prettyErrors: false }).errors
  const pos = errors[0]?.pos
  return pos && { from: pos[0], to: Math.max(pos[1], pos[0] + 1) }
}

function field(text: string, problem: Problem): Place {
  const id = problem.object?.match(/rule\/(.+)$/)?.[1]
  const word = (name: string): string => name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
  let [from, to] = [0, text.length]
  if (id !== undefined) {
    const found = new RegExp(`["']?\\bid["']?\\s*:\\s*["']?${word(id)}(?![\\w.-])`).exec(text)
    if (found) {
      from = found.index
      const next = /\n\s*-\s/.exec(text.slice(from))
      to = next ? from + next.index : text.length
      // Keys may stand before the id.
      from = Math.max(0, text.lastIndexOf('\n', from) + 1)
    }
  } else {
    const rule = problem.field?.match(/^rules\[(\d+)\]/)
    if (rule) {
      const starts = [...text.matchAll(/^\s*-\s/gm)]
      from = starts[Number(rule[1])]?.index ?? 0
      to = starts[Number(rule[1]) + 1]?.index ?? text.length
    }
  }
  let start = from
  for (const key of (problem.field ?? '').replace(/\[\d+\]/g, '').split('.')) {
    if (key === '' || key === 'rules') continue
    const found = new RegExp(`["']?(?<![\\w-])${word(key)}["']?\\s*:`).exec(text.slice(start, to))
    if (!found) break
    start += found.index
    from = start
  }
  const end = text.indexOf('\n', from)
  return { from, to: Math.min(end === -1 ? text.length : end, to) }
}
