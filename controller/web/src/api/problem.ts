// What the controller says when it refuses: RFC 9457, with a code, the field and the mend.
import type { components } from './schema'

export type Problem = Partial<components['schemas']['Problem']> & {
  code: string
  title: string
  status: number
  detail?: string
}

export class Refused extends Error {
  readonly problem: Problem

  constructor(problem: Problem) {
    super(problem.detail ?? problem.title)
    this.name = 'Refused'
    this.problem = problem
  }

  /** Somebody else changed it meanwhile. */
  get isConflict(): boolean {
    return this.problem.code === 'version_conflict'
  }
}

export function problemOf(error: unknown): Problem {
  if (error instanceof Refused) return error.problem
  const detail = error instanceof Error ? error.message : String(error)
  return { code: 'unexpected', title: 'Unexpected', status: 0, detail }
}
